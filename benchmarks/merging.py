"""What merging keeps: the losses of merged experts on the tasks they are made of and on tasks nobody trained.

    make demo                                                   # makes runs/quickstart/libs/private
    python benchmarks/merging.py runs/quickstart/libs/private

Loss: nats per token of the right answer, mean over tasks, the first test examples of each built-in task; embedded base,
bfloat16. LoraHub is given the first 5 training examples of each unseen task, neighbours the first 32; each makes one
expert for each of these tasks. weighted: the same weight for each expert.
"""

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lorary.building.build import build
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.routed.route import route
from lorary.tasks.builtin import builtin_heldout, builtin_tasks
from lorary.tasks.task import Task, Tasks

MERGES = (
    "uniform", "uniform:rank=16", "uniform:rank=4",
    "weighted:weights=0.15", "weighted:weights=0.25", "weighted:weights=0.5", "weighted:weights=1",
    "ties:density=0.2,rank=16", "ties:density=0.2,rank=64", "ties:density=1,rank=64",
    "dare:density=0.5,rank=64", "dare:density=0.1,rank=64", "ties:density=0.2,strength=0.3,rank=64",
)  # fmt: skip
SEARCHES = ("lorahub", "lorahub:search=nevergrad", "lorahub:mix=outputs", "lorahub:steps=120", "neighbours")


def loss(model: object, task: Task, n: int) -> float:
    found = model.log_likelihood(task.test[:n])  # type: ignore[attr-defined]
    return -sum(f.nats for f in found) / sum(f.n_tokens for f in found)


def mean_loss(base: BaseModel, library: Library, tasks: Tasks, n: int, router: str, mix: str) -> float:
    with route(base, library, router, mix=mix) as model:  # type: ignore[arg-type]
        return statistics.mean(loss(model, task, n) for task in tasks.values())


def row(name: str, *cells: float | str) -> None:
    print(f"| {name} | " + " | ".join(c if isinstance(c, str) else f"{c:.3f}" for c in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--only", default="", help="Methods whose spec contains this.")
    given = parser.parse_args()
    source, base, n = Library.open(given.library), load_base(), given.examples
    owned = {task for expert in source.values() for task in expert.provenance.tasks}
    trained, unseen = builtin_tasks().only(sorted(owned)), builtin_heldout()
    row("method", "trained tasks", "unseen tasks", "rank", "relative error", "seconds")
    row(":--", *["--:"] * 5)
    groups = (trained, unseen)
    row("base", *(statistics.mean(loss(base, task, n) for task in tasks.values()) for tasks in groups), "", "", "")
    for mix in ("factors", "outputs"):
        losses = [mean_loss(base, source, tasks, n, "uniform", mix) for tasks in groups]
        row(f'routed: uniform, mix="{mix}"', *losses, "", "", "")
    with tempfile.TemporaryDirectory() as scratch:
        for number, spec in enumerate(spec for spec in MERGES if given.only in spec):
            started = time.perf_counter()
            each = re.sub(r"(?<=weights=).*", lambda weight: f"[{','.join([weight[0]] * len(source))}]", spec)
            made = build(each, Tasks([]), base, source=source, into=Path(scratch) / str(number))
            spent, expert = time.perf_counter() - started, made["merged"]
            losses = [mean_loss(base, made, tasks, n, "uniform", "outputs") for tasks in groups]
            row(spec, *losses, str(expert.rank), expert.provenance.metrics["relative_error"], f"{spent:.1f}")
        for number, spec in enumerate(spec for spec in SEARCHES if given.only in spec):
            given_tasks = Tasks([*trained.values(), *unseen.values()]) if spec == "neighbours" else unseen
            started = time.perf_counter()
            made = build(spec, given_tasks, base, source=source, into=Path(scratch) / f"s{number}")
            spent = time.perf_counter() - started
            found, rank = mean_loss(base, made, unseen, n, "oracle", "outputs"), max(e.rank for e in made.values())
            row(spec, "", found, str(rank), "", f"{spent:.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
