"""Scores, similarities and training curves as pictures: PNG for slides, SVG for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lorary.errors import EvaluationError
from lorary.pages.palette import COLOURS, FAINT, INK, OTHER
from lorary.reporting.canvas import WIDTH, Picture, finish, plain_frame, short, short_each
from lorary.reporting.table import Column, Row, Table

_MANY = 8  # more lines than this can't be told apart by colour


_LETTERS = 78  # of a title, beside the longest names of rows

_BOX = "#C04A00"

ALIKE = 1e-3
"""Cosines that differ by less show no structure; colours that are stretched over them would."""


@dataclass(frozen=True)
class Curve:
    """Validation loss of one expert of a library against training steps. Raises E-REPORT if the sizes don't agree."""

    library: str
    expert: str
    steps: Sequence[float]
    losses: Sequence[float]

    def __post_init__(self) -> None:
        """Compare the sizes."""
        if len(self.steps) != len(self.losses):
            sizes = f"{len(self.steps)} steps and {len(self.losses)} losses"
            raise EvaluationError("E-REPORT", f"curve of {self.expert!r}: {sizes}, expected as many of both.")


def draw_scores(table: Table, *, name: str = "scores", title: str = "Scores of all configurations") -> Picture:
    """Draw a table as dots with 95 % whiskers: a panel for each column, by group and metric.

    Raises E-REPORT for a table without scores.
    """
    if not table.columns:
        raise EvaluationError("E-REPORT", "there are no scores to draw.")
    places = _places(table.columns)
    down, across = (max(along) + 1 for along in zip(*places, strict=True))
    figure = Figure(figsize=(WIDTH, down * (0.28 * len(table.rows) + 0.85)), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis in axes.flat:
        axis.set_visible(False)
    named: set[int] = set()
    for index, (column, (row, across_at)) in enumerate(zip(table.columns, places, strict=True)):
        axis = axes[row, across_at]
        axis.set_visible(True)
        _draw_column(axis, column, table.rows, index, max(20, _LETTERS // across))
        axis.tick_params(labelleft=row not in named)
        named.add(row)
    caption = (
        "Dots: macro mean over tasks. Whiskers: 95 % interval, bootstrap over examples. "
        "Hollow: oracles, which know the task. Dotted line: the base. Arrows: which way is better."
    )
    return finish(figure, name, title, caption)


def _places(columns: Sequence[Column]) -> list[tuple[int, int]]:
    """Place a panel for each column: groups down, metrics across; two in a row where no group has several metrics."""
    groups = list(dict.fromkeys(column.group for column in columns))
    metrics = list(dict.fromkeys(column.metric for column in columns))
    if len(metrics) > 1 and len(groups) == len(columns):
        return [divmod(i, 2) for i in range(len(columns))]
    return [(groups.index(column.group), metrics.index(column.metric)) for column in columns]


def _draw_column(axis: Axes, column: Column, rows: Sequence[Row], index: int, room: int) -> None:
    """Draw one panel; `room`: letters that fit above it."""
    libraries = list(dict.fromkeys(row.name.partition("-")[0] for row in rows))
    for y, row in enumerate(rows):
        if y % 2 == 0:
            axis.axhspan(y - 0.5, y + 0.5, color="#F6F8FA", zorder=0, linewidth=0)
        if (cell := row.cells[index]) is None:
            continue
        colour = COLOURS[libraries.index(row.name.partition("-")[0]) % len(COLOURS)]
        face = "white" if row.is_oracle else colour
        low, high = (cell.mean if end is None else end for end in (cell.low, cell.high))
        axis.plot([low, high], [y, y], color=colour, linewidth=1.8, alpha=0.75, solid_capstyle="butt")
        axis.plot(cell.mean, y, "o", markersize=6.5, color=colour, markerfacecolor=face, markeredgewidth=1.6)
        weight = "bold" if cell.best else "normal"
        text = f"{cell.mean:.{column.decimals}f}"
        axis.annotate(
            text,
            (high, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
            fontweight=weight,
        )
        if row.name == "base":
            axis.axvline(cell.mean, color=FAINT, linewidth=1, linestyle=":", zorder=1)
    axis.set_yticks(range(len(rows)), short_each([row.name for row in rows]))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.margins(x=0.14)
    group = short(column.group, max(8, room - len(column.label) - 4))
    axis.set_title(f"{group}: {short(column.label, room - 10)}{column.arrow}", fontsize=10, loc="left", color=INK)
    axis.set_xlabel(short(column.unit), fontsize=8, color=FAINT)
    plain_frame(axis)
    axis.tick_params(axis="y", length=0)


def draw_similarity(
    names: Sequence[str],
    similarity: NDArray[np.floating[Any]],
    *,
    clusters: Mapping[str, Sequence[str]] | None = None,
    name: str = "similarity",
    title: str = "Similarity of the experts",
) -> Picture:
    """Draw a heat map (E, E) of experts in the order of their clusters, with a box around each cluster.

    Raises E-REPORT without experts, if the matrix doesn't fit the names or holds what is no number, and if a cluster
    names an expert that isn't there or stands in another one.
    """
    if not names:
        raise EvaluationError("E-REPORT", "there are no experts to draw.")
    order, spans = _cluster_order(names, clusters or {})
    if similarity.shape != (len(names), len(names)):
        shape = f"similarity has shape {similarity.shape}, expected {(len(names), len(names))}"
        raise EvaluationError("E-REPORT", f"{shape}: one row and column for each expert.")
    check_map(names, similarity, clusters or {})
    values = np.array(similarity, dtype=float)[np.ix_(order, order)]
    others = values[~np.eye(len(names), dtype=bool)]
    low, high = (float(others.min()), float(others.max())) if others.size else (0.0, 1.0)
    alike = high - low < ALIKE
    bottom, top = (min(0.0, low), 1.0) if alike else (low, high)
    figure = Figure(figsize=(WIDTH, min(8.6, 3 + 0.3 * len(names))), layout="compressed")
    axis = figure.subplots()
    np.fill_diagonal(values, np.nan)  # all 1: it would hide the range between the experts
    colours = mpl.colormaps["Blues"].with_extremes(bad="#D0D5DB")
    image = axis.imshow(values, cmap=colours, vmin=bottom, vmax=top, interpolation="nearest")
    bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02, label="cosine")
    bar.outline.set_visible(False)
    for label, start, stop in spans:
        side = stop - start
        axis.add_patch(Rectangle((start - 0.5, start - 0.5), side, side, fill=False, edgecolor=_BOX, linewidth=2))
        middle = (start + stop - 1) / 2
        axis.annotate(
            short(label, 14),
            (len(names) - 0.5, middle),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=_BOX,
            fontsize=9,
            fontweight="bold",
        )
    _name_axes(axis, [names[i] for i in order])
    said = "from the smallest (white) to the largest (dark blue)."
    if alike and others.size:
        said = f"which are all alike: {low:.5f} to {high:.5f}."
    caption = (
        f"Cosine between the parameters of {len(names)} experts, {said} "
        f"Grey: an expert and itself.{' Boxes: clusters.' if spans else ''}"
    )
    return finish(figure, name, title, caption)


def check_map(
    names: Sequence[str], similarity: NDArray[np.floating[Any]], clusters: Mapping[str, Sequence[str]]
) -> None:
    """Refuse what no map or tree can show. Raises E-REPORT for NaN, infinity, and an expert in two clusters."""
    strange = np.argwhere(~np.isfinite(similarity))
    if len(strange):
        one, other = (names[i] for i in strange[0])
        found = f"similarity of {one!r} and {other!r} is {similarity[tuple(strange[0])]}"
        raise EvaluationError("E-REPORT", f"{found}, expected a finite number.")
    home: dict[str, str] = {}
    for label, members in clusters.items():
        for member in members:
            if member in home:
                both = f"expert {member!r} stands in cluster {home[member]!r} and in {label!r}"
                raise EvaluationError("E-REPORT", f"{both}, expected in one, once.")
            home[member] = label


def _cluster_order(
    names: Sequence[str], clusters: Mapping[str, Sequence[str]]
) -> tuple[list[int], list[tuple[str, int, int]]]:
    order: list[int] = []
    spans = []
    for label, members in clusters.items():
        for member in members:
            if member not in names:
                raise EvaluationError("E-REPORT", f"cluster {label!r}: no expert is called {member!r}.")
        spans.append((label, len(order), len(order) + len(members)))
        order += [names.index(member) for member in members]
    return order + [i for i in range(len(names)) if i not in order], spans


def _name_axes(axis: Axes, names: Sequence[str]) -> None:
    size = float(np.clip(330 / len(names), 0, 9))
    legible = size >= 5
    labels = short_each(names, 24) if legible else [""] * len(names)
    axis.set_xticks(range(len(names)), labels, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), labels, fontsize=size)
    axis.tick_params(length=0, colors=INK)
    for spine in axis.spines.values():
        spine.set_visible(False)


def draw_training(
    curves: Sequence[Curve], *, name: str = "training", title: str = "Training of the experts"
) -> Picture:
    """Draw validation loss against steps: a panel for each library, a line for each expert, a dot at its lowest.

    Only finite losses are drawn; a curve without any is left out, as the caption says. Raises E-REPORT if none is left.
    """
    given, curves = len(curves), [curve for curve in map(_finite, curves) if len(curve.losses)]
    libraries = list(dict.fromkeys(curve.library for curve in curves))
    if not libraries:
        raise EvaluationError("E-REPORT", "there are no training curves to draw.")
    across = min(2, len(libraries))
    down = -(-len(libraries) // across)
    figure = Figure(figsize=(WIDTH, 3.4 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis in axes.flat[len(libraries) :]:
        axis.set_visible(False)
    for axis, library in zip(axes.flat, libraries, strict=False):
        _draw_library(axis, library, [curve for curve in curves if curve.library == library])
    for axis in axes.flat[: len(libraries)]:
        axis.tick_params(labelleft=True)
    left_out = f" Left out, without a loss: {given - len(curves)}." if given > len(curves) else ""
    return finish(figure, name, title, f"Validation loss in nats per token. Dots: each expert's lowest loss.{left_out}")


def _finite(curve: Curve) -> Curve:
    points = [(step, loss) for step, loss in zip(curve.steps, curve.losses, strict=True) if np.isfinite(loss)]
    return Curve(curve.library, curve.expert, [step for step, _ in points], [loss for _, loss in points])


def _draw_library(axis: Axes, library: str, curves: Sequence[Curve]) -> None:
    few = len(curves) <= _MANY
    for index, curve in enumerate(curves):
        colour = COLOURS[index] if few else COLOURS[0]
        alpha, width = (1.0, 1.8) if few else (0.35, 1.0)
        axis.plot(curve.steps, curve.losses, color=colour, alpha=alpha, linewidth=width)
        best = int(np.argmin(curve.losses))
        axis.plot(curve.steps[best], curve.losses[best], "o", color=colour, alpha=max(alpha, 0.6), markersize=4)
    axis.set_title(f"{short(library, 40)} ({len(curves)})", fontsize=10, loc="left", color=INK)
    axis.set_xlabel("steps", fontsize=8, color=FAINT)
    axis.set_ylabel("nats per token", fontsize=8, color=FAINT)
    axis.grid(axis="y", color="#E5E7EB", linewidth=0.8)
    axis.set_axisbelow(True)
    plain_frame(axis)
    ends = sorted(range(len(curves)), key=lambda i: curves[i].losses[-1])
    _label_ends(axis, curves, ends if few else [ends[0], ends[len(ends) // 2], ends[-1]])


def _label_ends(axis: Axes, curves: Sequence[Curve], labelled: Sequence[int]) -> None:
    """Write names behind the last points, lowest first, and push them apart where they would overlap."""
    low, high = axis.get_ylim()
    step, free = (high - low) / 17, low
    named = short_each([curve.expert for curve in curves], 20)
    for index in labelled:
        curve = curves[index]
        y = max(curve.losses[-1], free)
        free = y + step
        colour = COLOURS[index] if len(curves) <= _MANY else OTHER
        axis.annotate(
            named[index],
            (curve.steps[-1], curve.losses[-1]),
            xytext=(1.03, (y - low) / (high - low)),
            textcoords="axes fraction",
            fontsize=8,
            color=INK,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )
