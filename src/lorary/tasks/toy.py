"""Eight tiny synthetic tasks for tests, docs and quickstart."""

import random
from collections.abc import Callable

from lorary.errors import TaskError
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks

_WORDS = (
    "ant ape bat bee cat cow dog eel elk emu fly fox gnu hen jay owl pig ram rat yak "
    "red tan big fat hot icy new odd old shy wet dry raw sad bad fit low mad coy apt"
)

_RULES: dict[str, Callable[[str, str], str]] = {
    "copy": lambda a, b: f"{a} {b}",
    "double": lambda a, b: f"{a} {a} {b} {b}",
    "first": lambda a, b: a,
    "join": lambda a, b: a + b,
    "last": lambda a, b: b,
    "reverse": lambda a, b: (a + " " + b)[::-1],
    "swap": lambda a, b: f"{b} {a}",
    "upper": lambda a, b: f"{a} {b}".upper(),
}


def toy_tasks(n_train: int = 32, n_valid: int = 8, n_test: int = 8) -> Tasks:
    """Make eight tasks on two short words each ("swap: red fox " -> "fox red"); the same at every call.

    Prompts are distinct within a task. Raises E-TASK for more examples a task than there are pairs of words (1560).
    """
    return Tasks(_toy_task(name, n_train, n_valid, n_test) for name in _RULES)


def _toy_task(name: str, n_train: int, n_valid: int, n_test: int) -> Task:
    words = _WORDS.split()
    pairs = [(a, b) for a in words for b in words if a != b]
    n_all = n_train + n_valid + n_test
    if n_all > len(pairs):
        raise TaskError("E-TASK", f"{n_all} toy examples, but there are {len(pairs)}.", "Ask for fewer.")
    drawn = random.Random(f"toy {name}").sample(pairs, n_all)
    examples = tuple(Example(f"{name}: {a} {b} ", _RULES[name](a, b), name) for a, b in drawn)
    return Task(name, examples[:n_train], examples[n_train : n_train + n_valid], examples[n_train + n_valid :])
