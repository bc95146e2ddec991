"""Answering a file of prompts: to stdout, into a file, or into a file by workers."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lorary.cli.application import resumable
from lorary.cli.models import opened, through_template
from lorary.cli.options.loading import Loading
from lorary.cli.options.workers import Workers
from lorary.cli.printing.console import progress, say
from lorary.cli.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lorary.asking.answers import Prompt, Wish
    from lorary.using.open_model import Choice

STREAM = "-"


def check_place(into: str, workers: Workers) -> None:
    """Refuse a place that no answers can go to, before anything is read. Raises a usage error, E-RUN, E-PERM."""
    from lorary.asking.answers import check_answers

    if into != STREAM:
        return check_answers(into, by_workers=workers.is_given)
    if workers.is_given:
        raise typer.BadParameter("workers need a file: --into FILE.", param_hint="--into")
    return None


def answer_here(
    choice: "Choice", rows: "Sequence[Prompt]", wish: "Wish", into: str, how: Loading, *, chat: bool
) -> None:
    """Answer in this process."""
    from lorary.asking.answers import answer_prompts, answered, to_line

    with (
        opened(choice, how) as model,
        through_template(model) if chat else nullcontext(),
        progress("answering") as bar,
    ):
        if into != STREAM:
            return answer_prompts(model, rows, into=into, wish=wish, progress=bar)
        n = 0
        for group in answered(model, rows, wish):
            sys.stdout.buffer.write(b"".join(map(to_line, group)))
            sys.stdout.buffer.flush()
            n += len(group)
            bar(n, len(rows))
    return None


def answer_by_workers(
    choice: "Choice", rows: "Sequence[Prompt]", wish: "Wish", into: str, how: Loading, workers: Workers
) -> None:
    """Let workers share the rows."""
    place = workers.place()

    from lorary.asking.answers import parts_of
    from lorary.asking.shared_answers import answer_with_workers
    from lorary.grid.survey_runs import survey_runs

    with (
        progress("answering") as bar,
        Work(bar, parts_of(Path(into)), things="groups of rows", verb="answer", survey=survey_runs).watched() as work,
        resumable(),
    ):
        answer_with_workers(
            choice, rows, into=into, wish=wish, backend=place, run=workers.run, loading=how.options,
            report=work.on_step, on_plan=work.on_plan, tell=say,
        )  # fmt: skip
