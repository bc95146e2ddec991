"""What studies measure beside scores, as pictures: points with a fitted line, histograms, lines over a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorary.errors import EvaluationError
from lorary.pages.palette import COLOURS, FAINT, INK
from lorary.reporting.canvas import WIDTH, Picture, finish, plain_frame, short

_GRID = "#E5E7EB"
_ACROSS = 3  # panels beside each other


@dataclass(frozen=True)
class Fit:
    """A fitted line with its band, (G,) numbers each; the band's ends are nan where there is none."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Points:
    """Points of one panel, with the line that was fitted to them and what it says; `names`: of each point, if shown."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    fit: Fit | None = None
    said: str = ""
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Amounts:
    """Values of one panel of histograms."""

    title: str
    values: Sequence[float]
    said: str = ""


@dataclass(frozen=True)
class Line:
    """Values over a number, with their intervals; `marked` is the place of the one that stands out, if one does."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    marked: int | None = None
    said: str = ""


def draw_points(
    panels: Sequence[Points], *, x_label: str, y_label: str, caption: str, name: str, title: str,
    level: float | None = None,
) -> Picture:  # fmt: skip
    """Draw panels of points; `level`: a line across. Raises E-REPORT without points."""
    _require(panels, [panel.x for panel in panels], name)
    figure, axes = _panels(len(panels), 3.9)
    for axis, panel in zip(axes, panels, strict=True):
        if level is not None:
            axis.axhline(level, color=FAINT, linewidth=1, linestyle=":", zorder=1)
        if panel.fit is not None:
            axis.fill_between(panel.fit.x, panel.fit.low, panel.fit.high, color=COLOURS[0], alpha=0.15, linewidth=0)
            axis.plot(panel.fit.x, panel.fit.y, color=COLOURS[0], linewidth=1.8)
        axis.plot(panel.x, panel.y, "o", color=COLOURS[4], markersize=5, alpha=0.75, markeredgewidth=0)
        _name_points(axis, panel)
        _finish_panel(axis, panel.title, panel.said, x_label)
    axes[0].set_ylabel(y_label, fontsize=8, color=FAINT)
    return finish(figure, name, title, caption)


def draw_histograms(panels: Sequence[Amounts], *, x_label: str, caption: str, name: str, title: str) -> Picture:
    """Draw a histogram for each of several measures, with lines at 1 and at the mean. Raises E-REPORT without values.

    Values beyond the 99.5th percentile are drawn in the last bar.
    """
    _require(panels, [panel.values for panel in panels], name)
    figure, axes = _panels(len(panels), 3.6)
    for axis, panel in zip(axes, panels, strict=True):
        values = np.asarray(panel.values, dtype=float)
        low, high = min(1.0, float(values.min())), max(float(np.quantile(values, 0.995)), 1.0)
        room = 0.02 * (high - low) or 1e-3
        bins = min(40, max(8, round(2 * len(values) ** 0.5)))
        axis.hist(
            np.clip(values, low, high), bins=np.linspace(low - room, high + room, bins + 1).tolist(), color=COLOURS[0]
        )
        axis.axvline(1, color=INK, linewidth=1.2, linestyle=":")
        axis.axvline(float(values.mean()), color=COLOURS[4], linewidth=1.8)
        _finish_panel(axis, panel.title, panel.said, x_label)
    axes[0].set_ylabel("examples", fontsize=8, color=FAINT)
    return finish(figure, name, title, caption)


def draw_lines(
    panels: Sequence[Line], *, x_label: str, y_label: str, caption: str, name: str, title: str,
    level: float | None = None,
) -> Picture:  # fmt: skip
    """Draw values against a number on a logarithmic axis, with whiskers; `level`: a line across.

    Raises E-REPORT without values.
    """
    _require(panels, [panel.x for panel in panels], name)
    figure, axes = _panels(len(panels), 3.9)
    for axis, panel in zip(axes, panels, strict=True):
        if level is not None:
            axis.axhline(level, color=FAINT, linewidth=1, linestyle=":", zorder=1)
        axis.vlines(panel.x, panel.low, panel.high, color=COLOURS[0], linewidth=1.8, alpha=0.5)
        axis.plot(panel.x, panel.y, "o-", color=COLOURS[0], linewidth=1.8, markersize=5)
        if panel.marked is not None:
            place = panel.x[panel.marked], panel.y[panel.marked]
            axis.plot(*place, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4)
        axis.set_xscale("log")
        _name_numbers(axis, panel.x)
        _finish_panel(axis, panel.title, panel.said, x_label)
    axes[0].set_ylabel(y_label, fontsize=8, color=FAINT)
    return finish(figure, name, title, caption)


def _name_points(axis: Axes, panel: Points) -> None:
    """Write names beside points, on the side where there is room."""
    middle = (min(panel.x) + max(panel.x)) / 2
    for name, x, y in zip(panel.names, panel.x, panel.y, strict=False):
        side, place = (1, "left") if x <= middle else (-1, "right")
        axis.annotate(
            short(name, 24), (x, y), xytext=(7 * side, 0), textcoords="offset points", fontsize=8, color=INK,
            ha=place, va="center",
        )  # fmt: skip
    if panel.names:
        axis.margins(x=0.12)


def _require(panels: Sequence[Any], values: Sequence[Sequence[float]], name: str) -> None:
    if not panels or not all(map(len, values)):
        raise EvaluationError("E-REPORT", f"figure {name!r}: there is nothing to draw.")


def _panels(n: int, height: float) -> tuple[Figure, list[Axes]]:
    across = min(n, _ACROSS)
    down = -(-n // across)
    figure = Figure(figsize=(WIDTH, height * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, axes[:n]


def _finish_panel(axis: Axes, title: str, said: str, x_label: str) -> None:
    axis.set_title(short(title, 48), fontsize=10, loc="left", color=INK, pad=22 if said else 6)
    if said:
        axis.annotate(
            said, (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=8.5, color=FAINT
        )
    axis.set_xlabel(x_label, fontsize=8, color=FAINT)
    axis.grid(axis="y", color=_GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(y=0.12)
    plain_frame(axis)


def _name_numbers(axis: Axes, values: Sequence[float]) -> None:
    """Write the numbers that were tried below the axis, but those that would touch their neighbour."""
    marked: list[float] = []
    span = np.log(max(values) / min(values)) or 1.0
    for value in values:
        if not marked or np.log(value / marked[-1]) > 0.07 * span:
            marked.append(value)
    axis.set_xticks(marked, [f"{value:,g}" for value in marked])
    axis.set_xticks([], minor=True)
