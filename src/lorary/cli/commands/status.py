"""`lorary status`: how far the builds in a library are. Looks at the disk alone and imports no torch."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.exit_codes import PARTLY
from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, print_table
from lorary.cli.printing.pace import in_time

if TYPE_CHECKING:
    from lorary.work.survey import JobState, Survey


def status(
    library: Annotated[
        Path,
        typer.Argument(
            metavar="LIBRARY", help="A library that is being built, or a directory of scores or of answers."
        ),
    ],
    json: Json = False,
) -> int | None:
    """Show which jobs of a build are done, or which runs of an evaluation.

    Others are running, stale, failed or waiting; the time left is estimated. A job is stale if its worker is dead or
    has been silent for too long: the next `lorary build` or `eval` takes it over. Exit code 3 means that some failed.
    """
    from lorary.building.survey_library import survey_library
    from lorary.grid.survey_runs import holds_runs, survey_runs

    found = survey_runs(library) if holds_runs(library) else survey_library(library)
    if json:
        print_json(_plain(library, found))
    else:
        unfinished = [job for job in found.jobs if job.state != "done"]
        print_table(
            [("job", "state", "steps", "loss", "worker", "since", ""), *map(_row, unfinished)] if unfinished else []
        )
        print(_in_words(found))
    return PARTLY if found.counts["failed"] else None


def _row(job: "JobState") -> list[str]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.since)) if job.since else ""
    note = f"{job.error} (log: {job.log})" if job.error else ""
    if job.state == "stale" and job.silent_s is not None:
        note = f"last heard of {in_time(job.silent_s)} ago"
    loss = "" if job.loss is None else f"{job.loss:.3f}"
    return [job.name, job.state, f"{job.step}/{job.n_steps}", loss, job.owner, since, note]


def _in_words(found: "Survey") -> str:
    counts = ", ".join(f"{n} {state}" for state, n in found.counts.items() if n or state == "done")
    left = f"; about {in_time(found.seconds_left)} left" if found.seconds_left is not None else ""
    return f"{len(found.jobs)} jobs: {counts}{left}."


def _plain(library: Path, found: "Survey") -> dict[str, Any]:
    jobs = [dataclasses.asdict(job) for job in found.jobs]
    return {"library": str(library), "jobs": jobs, "counts": found.counts, "seconds_left": found.seconds_left}
