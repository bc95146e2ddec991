"""Solved examples in the prompt of others, which themselves are never scored."""

from collections.abc import Sequence

from lorary.errors import EvaluationError
from lorary.tasks.rows.fields import Row


def take_shots(name: str, rows: Sequence[Row], train: Sequence[Row], n: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Choose the rows to show and those to score: n rows to train on, else the first n of all, which aren't scored.

    Raises E-EVAL where these are too few.
    """
    if train and n:
        if len(train) < n:
            raise _too_few(name, rows, n, f"{len(train)} rows to train on")
        return train[:n], rows
    if len(rows) <= n:
        raise _too_few(name, rows, n, f"{len(rows)} rows in all, and those shown aren't scored")
    return rows[:n], rows[n:]


def prefix_of(solved: Sequence[str]) -> str:
    """Join solved examples by blank lines, one more before what follows."""
    return "".join(f"{text}\n\n" for text in solved)


def _too_few(name: str, rows: Sequence[Row], n: int, found: str) -> EvaluationError:
    where = f"{rows[0].place}: " if rows else ""
    hint = "Ask for fewer shots, or give more rows."
    return EvaluationError("E-EVAL", f"{where}{name}: shots={n}, but there are {found}.", hint)
