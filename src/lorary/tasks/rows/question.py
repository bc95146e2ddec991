"""One row -> what it asks: rows of all shapes, their answers left out where there are any."""

from dataclasses import replace
from typing import Any

from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.row import read_row
from lorary.tasks.rows.shapes import SHAPES, Shape
from lorary.tasks.rows.turns import turns_of

_ANY = "-"  # in the place of an answer, which nobody looks at
_OF_ANSWERS = ("choices", "tests")


def read_question(row: Row) -> Example:
    """Make an example without a completion of a row that may have an answer or none.

    Its shape is the one that the reader of tasks would find; without an answer, the shape of which most is there.
    A conversation that ends in a turn of the assistant is answered in its place. Other fields are left alone.
    Raises E-DATA with the row's place for what asks nothing.
    """
    values = {key: value for key, value in row.values.items() if key not in _OF_ANSWERS}
    found = replace(row, values=values)
    whole = read_row(replace(found, values=_answered(found))).examples[-1]
    return replace(whole, completion="", references=(), extra={})


def _answered(row: Row) -> dict[str, Any]:
    """Give the fields of a row with an answer: its own, or any."""
    keys, values = row.keys, dict(row.values)
    for shape in SHAPES:
        if len(shape.needs) == 1 and shape.needs[0] in keys:  # turns
            return values | {shape.needs[0]: _ended(row, shape.needs[0])}
    known = [shape for shape in SHAPES if shape.needs[:-1] and keys.issuperset(shape.needs[:-1]) and _fits(row, shape)]
    if known and not any(shape.needs[-1] in keys for shape in known):
        shape = max(known, key=lambda shape: len(keys.intersection(shape.fields)))  # of equals the first
        values[shape.needs[-1]] = _ANY
    return values


def _fits(row: Row, shape: Shape) -> bool:
    if "prompt" in row.keys and shape.needs[0] != "prompt":
        return False  # whatever else the row has, it says itself what the prompt is
    return not shape.of_turns or isinstance(row.values[shape.needs[0]], list)


def _ended(row: Row, key: str) -> Any:
    turns = row.values[key]
    if turns_of(row, key, turns)[-1].role == "assistant":
        return turns
    return [*turns, {"role": "assistant", "content": _ANY}]
