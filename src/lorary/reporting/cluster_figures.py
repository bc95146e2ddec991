"""How experts group: their tree, and how many groups there are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from lorary.errors import EvaluationError
from lorary.pages.palette import COLOURS, FAINT, INK, OTHER
from lorary.reporting.canvas import WIDTH, Picture, finish, plain_frame, short, short_each
from lorary.reporting.figure import ALIKE, check_map

_LEGIBLE = 80  # names; more than this would be smaller than can be read


def draw_tree(
    names: Sequence[str],
    similarity: NDArray[np.floating[Any]],
    *,
    clusters: Mapping[str, Sequence[str]] | None = None,
    name: str = "tree",
    title: str = "Tree of the experts",
) -> Picture:
    """Draw the tree of E experts by average linkage on 1 - cosine, similarity (E, E); names in their clusters' colour.

    Raises E-REPORT for fewer than two experts, a matrix that doesn't fit the names or holds what is no number, and an
    expert in two clusters.
    """
    if len(names) < 2 or similarity.shape != (len(names), len(names)):
        shape = f"{len(names)} experts, similarity of shape {similarity.shape}"
        raise EvaluationError("E-REPORT", f"no tree of {shape}: expected at least 2, one row and column for each.")
    check_map(names, similarity, clusters or {})
    distance = np.clip(1 - (similarity + similarity.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    joins = linkage(squareform(distance, checks=False), method="average", optimal_ordering=len(names) <= 500)
    figure = Figure(figsize=(WIDTH, min(12, 1.6 + 0.22 * len(names))), layout="constrained")
    axis = figure.subplots()
    drawn = dendrogram(joins, orientation="left", no_plot=True)
    for heights, places in zip(drawn["dcoord"], drawn["icoord"], strict=True):
        axis.plot(heights, [(place - 5) / 10 for place in places], color=FAINT, linewidth=1.1)
    home = {expert: number for number, members in enumerate((clusters or {}).values()) for expert in members}
    order = [names[i] for i in drawn["leaves"]]
    colours = [COLOURS[home[expert] % len(COLOURS)] if expert in home else OTHER for expert in order]
    axis.scatter([0] * len(colours), range(len(colours)), c=colours, s=14, zorder=3, clip_on=False)
    axis.set_ylim(-0.7, len(names) - 0.3)
    farthest = float(joins[:, 2].max())
    axis.set_xlim(left=1.0 if farthest < ALIKE else farthest * 1.03, right=0)
    axis.set_xlabel("1 - cosine at which two branches join", fontsize=8, color=FAINT)
    plain_frame(axis)
    labels = list(enumerate(short_each(order, 40)))
    if len(names) > _LEGIBLE:
        labels = _name_runs([next((c for c in clusters or {} if e in (clusters or {})[c]), "") for e in order])
    axis.yaxis.tick_right()
    axis.set_yticks([place for place, _ in labels], [label for _, label in labels])
    axis.tick_params(axis="y", length=0, labelsize=9 if len(labels) <= 40 else 7)
    for place, label in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True):
        label.set_color(colours[round(place)])
    said = " Colours: clusters." if clusters else ""
    if clusters and len(clusters) > len(COLOURS):
        said = f" Colours: clusters; there are {len(clusters)}, so colours repeat."
    if farthest < ALIKE:
        said = f" All are alike: the last join is at {farthest:.5f}.{said}"
    caption = f"{len(names)} experts, average linkage: the further right two meet, the more alike they are.{said}"
    return finish(figure, name, title, caption)


def _name_runs(homes: Sequence[str]) -> list[tuple[int, str]]:
    """Find the middle of every run of at least three neighbours of one cluster."""
    runs, start = [], 0
    for stop in range(1, len(homes) + 1):
        if stop == len(homes) or homes[stop] != homes[start]:
            if stop - start >= 3 and homes[start]:
                runs.append(((start + stop - 1) // 2, short(homes[start], 40)))
            start = stop
    return runs


def draw_k_curve(
    curve: Sequence[Mapping[str, float]],
    *,
    chosen: int | None = None,
    name: str = "k-curve",
    title: str = "How many clusters",
) -> Picture:
    """Draw silhouette and stability against the number of clusters, rows of k, silhouette, stability; mark `chosen`.

    Raises E-REPORT for an empty curve.
    """
    if not curve:
        raise EvaluationError("E-REPORT", "there is no curve over k to draw.", "Cluster with k=auto.")
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    ks = [row["k"] for row in curve]
    for axis, key, colour, said in zip(
        axes, ("silhouette", "stability"), COLOURS, ("silhouette, 1 - cosine", "agreement of samples, adjusted Rand")
    ):
        values = [row[key] for row in curve]
        axis.plot(ks, values, "o-", color=colour, linewidth=1.8, markersize=4.5)
        if chosen is not None and chosen in ks:
            value = values[ks.index(chosen)]
            axis.plot(
                chosen, value, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4
            )
            axis.annotate(
                f"k={chosen}", (chosen, value), xytext=(9, 5), textcoords="offset points", fontsize=9, color=INK
            )
        axis.set_xscale("log")
        marked = [k for place, k in enumerate(ks) if place == 0 or k >= 1.15 * ks[place - 1] or k % 5 == 0]
        axis.set_xticks(marked, [str(int(k)) for k in marked])
        axis.set_xticks([], minor=True)
        axis.set_title(said, fontsize=10, loc="left", color=INK)
        axis.set_xlabel("clusters", fontsize=8, color=FAINT)
        axis.grid(axis="y", color="#E5E7EB", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.margins(y=0.15)
        plain_frame(axis)
    caption = (
        "Left: how much nearer experts are to their own cluster than to the next. Right: how well k-means on two "
        "random samples of 80 % agrees on what both hold; 1 is the same, 0 is chance."
    )
    return finish(figure, name, title, caption + (" Ring: the number chosen." if chosen is not None else ""))
