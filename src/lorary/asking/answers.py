"""Files of prompts -> files of the same rows with an answer each, so that a killed run goes on with the same bytes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import IOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from lorary.asking.stream import Model, as_turn
from lorary.disk.growing import GrowingFile, part_of
from lorary.disk.reading import as_path
from lorary.disk.writing import check_writable
from lorary.errors import EvaluationError, TaskError
from lorary.evaluation.header import check_same
from lorary.evaluation.sampling import GREEDY, Sampling
from lorary.evaluation.scores import to_line, whole_lines
from lorary.hashing import hash_json
from lorary.options import require, require_count
from lorary.progress import Progress, unheard
from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row, json_value, row_error
from lorary.tasks.rows.files import Source, rows_of
from lorary.tasks.rows.json_rows import json_line_rows
from lorary.tasks.rows.question import read_question

FORMAT = "lorary-answers-1"
_AT_ONCE = 64
"""Rows that are answered together, and that a kill can lose. Which these are follows from the file alone, since what
is in a batch decides how sums are rounded: so a run that was resumed ends in the same bytes."""


@dataclass(frozen=True)
class Prompt:
    """A row as it was found, and what it asks."""

    values: Mapping[str, Any]
    example: Example


@dataclass(frozen=True)
class Wish:
    """How prompts are answered. sampling: its seed and the row's number make each row's; field: where answers go."""

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    sampling: Sampling = GREEDY
    field: str = "answer"

    def __post_init__(self) -> None:
        """Refuse what can't be wanted. Raises E-OPTION."""
        require_count("max_new_tokens", self.max_new_tokens)
        require("stop", self.stop, tuple, "a tuple of texts", 'Write ("\\n\\n",).')
        require("sampling", self.sampling, Sampling, "a way of sampling", "Write Sampling(0.7, seed=0).")
        require("field", self.field, str, "the name of a field")


def read_prompts(source: "Source | BinaryIO", *, field: str = "answer", chat: bool = False) -> list[Prompt]:
    """Read rows that ask something: of any shape that `read_tasks` knows, with or without an answer.

    source: as for `read_tasks`, or a stream of JSON lines. field: where the answers are to go. chat: make plain prompts
    turns of a user. No row is skipped: raises E-DATA, with file and line, for one that asks nothing, that has the field
    already, or that no line of JSON can hold.
    """
    prompts = []
    for row in _streamed(source) if isinstance(source, IOBase) else rows_of(cast(Source, source)):
        if field in row.values:
            what = f"the row has a field {field!r}, where the answer is to go."
            raise row_error(row, what, "Name another: field='prediction', --field prediction.")
        for key, value in row.values.items():
            json_value(row, key, value)
        example = read_question(row)
        prompts.append(Prompt(row.values, as_turn(example) if chat else example))
    return prompts


def _streamed(file: Any) -> Iterator[Row]:
    place = ""
    for place, values in json_line_rows(file, Path("stdin")):
        yield Row(values, place, "stdin", None)
    if not place:
        raise TaskError("E-DATA", "stdin: there are no rows.", "Send one JSON object a line.")


def answered(model: Model, prompts: Sequence[Prompt], wish: Wish, *, done: int = 0) -> Iterator[list[dict[str, Any]]]:
    """Answer prompts, and give the rows with their answers, as many together as a kill may lose.

    done: how many are left out at the beginning, a multiple of the rows that are answered together.
    """
    for group in groups(len(prompts), done=done):
        yield answer_group(model, prompts, wish, group)


def groups(n_prompts: int, *, done: int = 0) -> list[range]:
    """List which rows are answered together."""
    return [range(start, min(start + _AT_ONCE, n_prompts)) for start in range(done, n_prompts, _AT_ONCE)]


def answer_group(model: Model, prompts: Sequence[Prompt], wish: Wish, group: range) -> list[dict[str, Any]]:
    """Answer the prompts that belong together, and give their rows with their answers."""
    asked = prompts[group.start : group.stop]
    texts = model.generate_text(
        [prompt.example for prompt in asked], max_new_tokens=wish.max_new_tokens, stop=wish.stop,
        sampling=[wish.sampling.of_row(row) for row in group],
    )  # fmt: skip
    return [{**prompt.values, wish.field: text} for prompt, text in zip(asked, texts, strict=True)]


def answer_prompts(
    model: Model, prompts: Sequence[Prompt], *, into: str | Path, wish: Wish | None = None,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write a file of JSON lines: each prompt's row, in their order, with its answer.

    An unfinished file (`<into>.part`) is continued, if it is of the same prompts, model and wish, and then holds the
    bytes that an undisturbed run writes; for that, sampling needs a seed. `progress(done, total)` is called before the
    first batch and after each. Raises E-RUN if `into` is there already or is another run's, E-DISK, E-PERM.
    """
    path, wish, tell = as_path(into), wish or Wish(), progress or unheard
    head = to_line(header_of(model.identity, prompts, wish))
    known = _known(path, head, len(prompts))
    done = known.count(b"\n") - 1 if known else 0
    file = GrowingFile(path)
    file.begin(known, head)
    tell(done, len(prompts))
    for rows in answered(model, prompts, wish, done=done):
        file.append(b"".join(map(to_line, rows)))
        done += len(rows)
        tell(done, len(prompts))
    file.finish(n_head=len(head))


def parts_of(into: Path) -> Path:
    """Name the directory where workers put their parts of a file."""
    return into.with_name(into.name + ".parts")


def check_answers(into: str | Path, *, by_workers: bool = False) -> None:
    """Refuse a file that no answers can be written to, before any long work. Raises E-RUN, E-PATH, E-PERM."""
    path = as_path(into)
    begun, others = (parts_of(path), part_of(path)) if by_workers else (part_of(path), parts_of(path))
    if path.exists() and not begun.exists():
        raise EvaluationError("E-RUN", f"{path} is there already.", "Write to another file, or delete this one.")
    if others.exists():
        what = "one process has begun it" if by_workers else "workers have begun it"
        hint = "without --workers and --backend" if by_workers else "with --workers N"
        raise EvaluationError("E-RUN", f"{others}: {what}.", f"Go on {hint}, or delete that and start again.")
    check_writable(path)


def header_of(model: Mapping[str, object], prompts: Sequence[Prompt], wish: Wish) -> dict[str, Any]:
    """Say of what run answers are, as JSON holds it; model: its identity."""
    asked = hash_json([[dict(prompt.values), prompt.example] for prompt in prompts])[:16]
    header = {"format": FORMAT, "model": dict(model), "n_prompts": len(prompts), "prompts": asked}
    plain: dict[str, Any] = json.loads(to_line(header | asdict(wish)))
    return plain


def _known(path: Path, head: bytes, n_prompts: int) -> bytes:
    """Read what an unfinished file of this run holds, up to the last rows that were answered together."""
    check_answers(path)
    part = part_of(path)
    lines = whole_lines(part).splitlines(keepends=True)
    if not lines:
        return b""
    try:
        found = json.loads(lines[0])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise EvaluationError("E-RUN", f"{part}: no unfinished file of answers.", "Write to another file.")
    check_same(part, found, json.loads(head))
    n_done = len(lines) - 1 if len(lines) - 1 == n_prompts else (len(lines) - 1) // _AT_ONCE * _AT_ONCE
    if n_done < n_prompts and path.exists():
        raise EvaluationError("E-RUN", f"{path} is there already.", "Write to another file, or delete this one.")
    return b"".join(lines[: 1 + n_done])
