"""Options of commands whose work any number of processes can share."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from lorary.cli.options.groups import Group
from lorary.cli.options.parameters import count_option, method_option
from lorary.cli.options.recipe_options import check_backend, choose_backend


@dataclass(frozen=True)
class Workers(Group):
    """Who shares the work."""

    backend: Annotated[
        str | None,
        method_option("--backend", "BACKENDS", "Where workers run, e.g. ray:gpus=0.25 (`list` shows all)."),
    ] = None
    workers: Annotated[
        int | None, count_option("Worker processes on this machine; by default as cores and memory allow.")
    ] = None
    threads: Annotated[
        int | None,
        count_option("Threads of each worker; by default the cores are shared out among all there is to do."),
    ] = None
    run: Annotated[
        str | None,
        typer.Option(
            metavar="ID", envvar="SLURM_ARRAY_JOB_ID", help="Name of workers that try each piece of work only once."
        ),
    ] = None

    @property
    def is_given(self) -> bool:
        """Whether somebody asked for workers. Every command of a Slurm array has a run."""
        return bool(self.backend or self.workers or self.threads)

    def place(self) -> Any:
        """Say where workers are. Raises a usage error, and E-EXTRA before anything slow is imported."""
        spec = self.backend or "local"
        check_backend(spec)
        return choose_backend(spec, workers=self.workers, threads=self.threads)
