"""The whole road on the embedded base and the built-in tasks, or on the user's own; ends in a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorary import __version__
from lorary.adapters.mixing.tuning import nothing_measured
from lorary.building.clustering.clusters import Clusters
from lorary.building.clustering.k_means import k_curve
from lorary.building.training.job import expert_name
from lorary.evaluation.scores import Scores
from lorary.library.adapter.provenance import read_metrics
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.routed.route import route
from lorary.model.routed.trace import Trace
from lorary.model.text.batching import tokens_at_once
from lorary.pages.inspector import Told
from lorary.progress import Progress, Tell, unheard
from lorary.reporting.cluster_page import draw_clusters
from lorary.reporting.figure import Curve, draw_scores, draw_training
from lorary.reporting.html import write_report
from lorary.reporting.table import Table
from lorary.studies.road import TRAINED, UNSEEN, Road, Show, Walked, method_of, walk
from lorary.studies.subject import choose_tasks
from lorary.tasks.example import Example
from lorary.tasks.task import Tasks


@dataclass(frozen=True)
class Finished:
    """What a quickstart leaves: the table of scores and the page that shows everything."""

    table: Table
    report: Path


def run_quickstart(
    *,
    into: Path,
    progress: Progress = unheard,
    tell: Tell = unheard,
    show: Show = unheard,
    road: Road | None = None,
    base: str = EMBEDDED,
    tasks: str | None = None,
    heldout: Sequence[str] = (),
    only: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
) -> Finished:
    """Build, cluster, route, evaluate and report; a second call resumes.

    On one machine, with as many threads, another into another directory makes the same files to the byte: nothing that
    was timed or is free just now decides how anything is computed.
    tasks: a directory or file of the user's own, None for the built-in ones. heldout: names of the tasks to keep out
    of training; without any, every fifth of the user's tasks. only: names of the tasks to take at all, held-outs
    included. reading: how the user's own are read, as `read_tasks` is told it. loading: as `load_base`. progress, tell,
    show: hear how far it is, as in `walk`.
    """
    road = road or Road()
    to_train, unseen = choose_tasks(tasks, heldout, only, reading)
    tell(f"loading {base}")
    model = load_base(base, **(loading or {}))
    model.batch_tokens = model.batch_tokens or tokens_at_once(model, steady=True)
    with nothing_measured():
        walked = walk(road, model, to_train, unseen, into, progress=progress, tell=tell, show=show)
        page = _write_page(road, model, to_train, unseen, walked, into, tell)
    return Finished(walked.table, page)


def _write_page(
    road: Road, base: BaseModel, tasks: Tasks, heldout: Tasks, walked: Walked, into: Path, tell: Tell
) -> Path:
    traces = []
    for example in _shown(tasks, heldout):
        tell(f"the report: routing of a text of {example.task}")
        traces.append(_trace(base, walked.libraries["private"], example, road))
    tell("the report: its figures")
    clusters = {name: [expert_name(t) for t in members] for name, members in walked.clusters.items()}
    similarity = np.asarray(walked.clusters.similarity)
    curve = k_curve(similarity, similarity, int(walked.clusters.method.get("seed", 0))) if len(similarity) >= 3 else []
    pictures = [draw_scores(walked.table), *draw_clusters(clusters, walked.clusters.names, similarity, curve)]
    if losses := [curve for curve in _curves(walked.libraries) if curve.losses]:  # none without a valid part
        pictures.append(draw_training(losses))
    tell("the report: its page")
    return write_report(
        into / "report.html",
        title="A library of LoRA experts, built and reused",
        summary=summarise(walked, road),
        tables=[walked.table],
        pictures=pictures,
        traces=traces,
        provenance=_facts(road, base, tasks, heldout, walked.clusters),
        png_dir=into / "pictures",
    )


def summarise(walked: Walked, road: Road) -> list[str]:
    """Say in sentences what the table shows, whoever won."""
    losses = {group: _means(walked.runs[group], "perplexity") for group in (TRAINED, UNSEEN)}
    answers = {group: _means(walked.runs[group], "rouge_l") for group in (TRAINED, UNSEEN)}
    n = {group: len(runs[0].per_task()) for group, runs in walked.runs.items()}
    lines = [
        f"{n[TRAINED]} trained tasks, scored on unseen examples; {n[UNSEEN]} unseen tasks, never trained on.",
        f'Experts are combined with mix="{road.mix}". Loss: nats per token of the right answer, lower is better.',
    ]
    for library in ("private", "mbc"):
        loss = losses[TRAINED]
        gap = loss[f"{library}-uniform"] - loss[f"{library}-oracle"]
        if gap > 0:
            closed = {r: (loss[f"{library}-uniform"] - loss[f"{library}-{r}"]) / gap for r in ("arrow", "compass")}
            ends = f"{loss[f'{library}-uniform']:.2f} to {loss[f'{library}-oracle']:.2f}"
            lines.append(
                f"On trained tasks, of the gap in loss between uniform and oracle ({ends}) on the {library} library, "
                f"Arrow closes {closed['arrow']:.0%} and the compass {closed['compass']:.0%}; neither needs data."
            )
    for group, scores in answers.items():
        known = {name: value for name, value in scores.items() if not name.endswith("oracle")}
        best = max(known, key=lambda name: known[name])
        lines.append(f"Best Rouge-L on {group}: {best}, {known[best]:.1f} (base: {known['base']:.1f}).")
    return lines


def _means(runs: Sequence[Scores], metric: str) -> dict[str, float]:
    return {scores.name: scores.mean for scores in runs if method_of(scores.metric) == metric}


def _curves(libraries: Mapping[str, Library]) -> list[Curve]:
    curves = []
    for name, library in libraries.items():
        for expert in library.values():
            rows = [row for row in read_metrics(expert.directory) if row.get("valid_loss") is not None]
            curves.append(Curve(name, expert.name, [r["step"] for r in rows], [r["valid_loss"] for r in rows]))
    return curves


def _shown(tasks: Tasks, heldout: Tasks) -> list[Example]:
    """Choose one test example of a trained and one of an unseen task, long enough to show something."""
    return [max(next(iter(group.values())).test[:10], key=lambda e: len(e.prompt)) for group in (tasks, heldout)]


def _trace(base: BaseModel, library: Library, example: Example, road: Road) -> Told:
    with route(base, library, "arrow", mix=road.mix) as model:
        trace: Trace = model.explain(example, max_new_tokens=road.max_new_tokens)
    title = f"Arrow on the private library, a text of {example.task}"
    return Told(title, trace.told(), trace.n_prompt)


def _facts(road: Road, base: BaseModel, tasks: Tasks, heldout: Tasks, clusters: Clusters) -> dict[str, object]:
    return {
        "lorary": __version__,
        "base": {"name": base.name, **base.identity},
        "road": {name: getattr(road, name) for name in road.__dataclass_fields__},
        "trained tasks": ", ".join(tasks),
        "tasks never trained on": ", ".join(heldout),
        "clusters": {name: ", ".join(members) for name, members in clusters.items()},
    }
