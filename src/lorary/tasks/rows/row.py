"""One row -> its examples, and its unread fields."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from lorary.errors import known_names
from lorary.tasks.example import Example, Message, require_text, short
from lorary.tasks.rows.fields import Row, row_error, text, texts, wrong_type
from lorary.tasks.rows.names import PARTS
from lorary.tasks.rows.shapes import Content, shape_of
from lorary.tasks.rows.turns import is_answer
from lorary.tasks.rows.unread import unread_of

Answers: TypeAlias = Literal["last", "all"]


@dataclass(frozen=True)
class Reading:
    """What a row gives: examples, the last of all its text; its shape; fields not read -> whether they hold text."""

    examples: tuple[Example, ...]
    shape: str
    unread: dict[str, bool]


def read_row(row: Row, answers: Answers = "last") -> Reading:
    """Make examples of a row: one, or of turns one for each answer. Raises E-DATA with its place for what is none."""
    shape = shape_of(row)
    content = shape.read(row)
    whole = _whole(row, content)
    if tests := _tests(row):
        whole = replace(whole, tests=tests)
    earlier = _earlier(whole, content) if answers == "all" else []
    name = f"{shape.name}, as turns" if content.turns and not shape.turns_only else shape.name
    return Reading((*earlier, whole), name, unread_of(row, shape, whole))


def _whole(row: Row, content: Content) -> Example:
    answers = content.answers
    choices = _choices(row, answers[0])
    references = answers if len(answers) > 1 else ()
    if not content.turns:
        return Example(content.prompt, answers[0], task_of(row), references, choices)
    *before, last = content.turns
    return Example(
        _last_question(before), answers[0], task_of(row), references, choices, tuple(before),
        last.extra, content.template,
    )  # fmt: skip


def _earlier(whole: Example, content: Content) -> list[Example]:
    """Make the examples of all answers but the last, each with the turns before it."""
    found = []
    for place, turn in enumerate(content.turns[:-1]):
        before = content.turns[:place]
        question = _last_question(before)
        if question and is_answer(turn):  # a greeting answers nothing
            found.append(Example(question, turn.content, whole.task, (), (), before, turn.extra, content.template))
    return found


def _last_question(turns: Sequence[Message]) -> str:
    return next((turn.content for turn in reversed(turns) if turn.role == "user" and turn.content.strip()), "")


def task_of(row: Row) -> str:
    """Name the row's task: its `task` or `task_name`, else what the file's name says."""
    for key in ("task", "task_name"):
        if row.values.get(key) is not None:
            return text(row, key, row.values[key])
    require_text(f"{row.place}: the name of the file", row.task)
    return row.task


def part_of(row: Row) -> str | None:
    """Say which part the row declares: its `split`, else what the file's name says, else None."""
    split = row.values.get("split")
    if split is None:
        return row.part
    if not isinstance(split, str) or split.lower() not in PARTS:
        raise row_error(row, f"unknown split {split!r}.", known_names(str(split), list(PARTS)))
    return PARTS[split.lower()]


def _tests(row: Row) -> str:
    return "" if row.values.get("tests") is None else "\n".join(texts(row, "tests"))


def _choices(row: Row, completion: str) -> tuple[str, ...]:
    value = row.values.get("choices")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) < 2:
        raise wrong_type(row, "choices", "a list of at least two texts", value)
    choices = tuple(text(row, "choices", choice) for choice in value)
    if completion not in choices:
        what = f"the completion {short(completion)} isn't one of its choices."
        raise row_error(row, what, "Write it as in 'choices'.")
    return choices
