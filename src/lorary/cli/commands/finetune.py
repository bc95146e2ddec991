"""`lorary finetune`: tasks -> a new base."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.models import check_base, load
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import EMBEDDED, TASKS, BaseToBuildOn, Json, OnlyTasks
from lorary.cli.options.recipe_options import LogTo
from lorary.cli.printing.console import print_json, progress
from lorary.cli.work import following, trackers


def finetune(
    tasks: Annotated[str, typer.Argument(metavar="TASKS", help=TASKS)],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the new base; must not exist yet.")],
    base: BaseToBuildOn = EMBEDDED,
    options: Annotated[str, typer.Option(metavar="KEY=VALUE,...", help="e.g. lr=3e-5,epochs=1,patience=3")] = "",
    only: OnlyTasks = None,
    log: LogTo = None,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Train all weights of a base on all tasks. Interrupted, the same command resumes."""
    from lorary.options import split_spec
    from lorary.tasks.read import read_tasks

    logs = trackers(log)
    name, values = split_spec(f"finetune:{options}")
    data = read_tasks(tasks, only=only or None, **reading.options)

    check_base(base)
    from lorary.building.finetune import FullFineTuning, check_into
    from lorary.building.finetune import finetune as run
    from lorary.options import make

    method = make(FullFineTuning, values, called=name)
    check_into(into)
    loaded = load(base, how)
    with progress("training steps") as bar, resumable():
        made = run(method, data, loaded, into=into, report=lambda s: bar(s.step, s.n_steps, f"loss {s.loss:.3f}"))
    following(into, logs).look()
    if json:
        return print_json({"base": str(made)})
    print(f"{made}: a base; score it with `lorary eval base TASKS --base {made}`")
    return None
