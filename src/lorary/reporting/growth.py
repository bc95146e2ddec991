"""Weights as they grow over the tokens of a text and up the layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lorary.errors import EvaluationError
from lorary.pages.palette import COLOURS, OTHER
from lorary.reporting.canvas import Picture, finish, short
from lorary.reporting.token_trace import TokenTrace

_NAMED = 4  # experts with a colour and a name
_UPPER = 4  # the upper quarter of the sites is averaged


def draw_growth(traces: Sequence[TokenTrace], *, name: str = "growth", title: str = "Weights as they grow") -> Picture:
    """Draw a column for each trace: above, weights from token to token; below, the last token's from site to site.

    Every trace needs its weights by site. Raises E-REPORT without them, and without traces.
    """
    if not traces:
        raise EvaluationError("E-REPORT", "there are no traces to draw.")
    figure = Figure(figsize=(5.5 * len(traces), 8.5), layout="constrained")
    axes = figure.subplots(2, len(traces), squeeze=False)
    for column, trace in enumerate(traces):
        if trace.by_site is None or not trace.sites:
            raise EvaluationError("E-REPORT", f"trace {trace.title!r} has no weights by site.")
        over_tokens = trace.by_site[-max(1, len(trace.sites) // _UPPER) :].mean(0)  # (T, E)
        over_sites = trace.by_site[:, -1]  # (L, E)
        leaders = np.argsort(-over_sites.mean(0))[:_NAMED].tolist()
        _draw_lines(axes[0][column], over_tokens, trace.names, leaders, "token of the prompt")
        _draw_lines(axes[1][column], over_sites, trace.names, leaders, "site, from the first layer up")
        axes[0][column].set_title(short(trace.title, 60), fontsize=11, pad=38)
        axes[0][column].legend(  # above the curves, for both panels
            fontsize=7.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
        )
    caption = (
        "Above: mean weight in the upper quarter of the sites. Below: weight at the last token. Grey: other experts."
    )
    return finish(figure, name, title, caption)


def _draw_lines(
    axis: Axes, weights: NDArray[np.floating[Any]], names: Sequence[str], leaders: Sequence[int], what: str
) -> None:
    for expert in range(len(names)):
        if expert not in leaders:
            axis.plot(weights[:, expert], color=OTHER, linewidth=0.7)
    for place, expert in enumerate(leaders):
        axis.plot(weights[:, expert], color=COLOURS[place], linewidth=1.8, label=short(names[expert], 34))
    axis.set_ylim(0, 1)
    axis.set_xlabel(what)
    axis.set_ylabel("weight")
