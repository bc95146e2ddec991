"""A first look at a data set: its size, lengths and faults."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from lorary.errors import OptionError
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks


@dataclass(frozen=True)
class TaskLook:
    """What one task holds. Lengths are of prompt and completion together, over all parts, in `unit`."""

    name: str
    n_train: int
    n_valid: int
    n_test: int
    unit: str  # "tokens" or "characters"
    median_length: float
    longest: int
    truncated: float | None  # share of examples over max_tokens, 0 to 1; None without a limit
    n_duplicates: int  # examples that repeat an earlier one of the same part, prompt and completion
    n_leaks: int  # distinct prompts that stand in more than one part
    sample: str
    unread: Mapping[str, int]  # fields that no example holds -> the number of rows that had them

    @property
    def findings(self) -> tuple[str, ...]:
        """What its owner may want to fix, one sentence each."""
        sentences = (
            (not self.n_train, "no examples to train on"),
            (not self.n_test, "no examples to test on"),
            (self.n_leaks, f"{self.n_leaks} prompts are in more than one part"),
            (self.n_duplicates, f"{self.n_duplicates} examples come twice"),
            (self.truncated, f"{self.truncated or 0:.1%} of the examples are too long and will be cut"),
        )
        return tuple(f"W-DATA task {self.name!r}: {sentence}." for applies, sentence in sentences if applies)


@dataclass(frozen=True)
class Look:
    """What a data set holds, task by task, in order of names."""

    tasks: tuple[TaskLook, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings of all tasks, in order."""
        return tuple(finding for task in self.tasks for finding in task.findings)

    @property
    def unread(self) -> dict[str, int]:
        """Fields that no example holds -> the number of rows that had them, over all tasks."""
        counts = Counter[str]()
        for task in self.tasks:
            counts.update(task.unread)
        return dict(counts)


def look(tasks: Tasks, count_tokens: Callable[[str], int] | None = None, max_tokens: int | None = None) -> Look:
    """Look at every task: sizes, lengths, truncated share, duplicates, leaks, one example. Changes nothing.

    `count_tokens` counts one text; without it, lengths are in characters. Raises E-OPTION for `max_tokens` without it.
    """
    if max_tokens is not None and count_tokens is None:
        raise OptionError("E-OPTION", "max_tokens needs count_tokens.", "Give the tokenizer's count, or no limit.")
    return Look(tuple(_look_at(task, count_tokens, max_tokens) for task in tasks.values()))


def _look_at(task: Task, count_tokens: Callable[[str], int] | None, max_tokens: int | None) -> TaskLook:
    examples = (*task.train, *task.valid, *task.test)
    count = count_tokens or len
    lengths = [count(example.whole_prompt) + count(example.answer) for example in examples] or [0]
    return TaskLook(
        name=task.name,
        n_train=len(task.train),
        n_valid=len(task.valid),
        n_test=len(task.test),
        unit="tokens" if count_tokens else "characters",
        median_length=float(median(lengths)),
        longest=max(lengths),
        truncated=None if max_tokens is None else sum(n > max_tokens for n in lengths) / len(lengths),
        n_duplicates=sum(_n_repeated(part) for part in (task.train, task.valid, task.test)),
        n_leaks=_n_leaks(task),
        sample=f"{examples[0].whole_prompt}\n-> {examples[0].answer}" if examples else "",
        unread=dict(task.origin.unread),
    )


def _n_repeated(examples: Iterable[Example]) -> int:
    pairs = [(example.question, example.answer) for example in examples]
    return len(pairs) - len(set(pairs))


def _n_leaks(task: Task) -> int:
    train, valid, test = ({example.question for example in part} for part in (task.train, task.valid, task.test))
    return len((train & valid) | (train & test) | (valid & test))
