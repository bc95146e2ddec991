"""Figures can be read whatever the names: nothing is cut off, nothing shown that isn't there."""

import numpy as np
import pytest
from matplotlib.text import Text

from lorary.reporting import cluster_figures
from lorary.reporting import figure as figures
from lorary.reporting.canvas import short_each
from lorary.reporting.cluster_figures import draw_k_curve, draw_tree
from lorary.reporting.figure import Curve, draw_scores, draw_similarity, draw_training
from lorary.reporting.table import Cell, Column, Row, Table

LONG = [f"super_natural_instructions_task{i:04d}_politifact_text_generation" for i in range(30)]
GROUPS = {"a_cluster_with_a_long_name": LONG[:9], "c": LONG[9:]}


@pytest.mark.slow
def test_experts_that_are_alike_are_said_to_be_and_not_coloured_apart():
    near, names = 0.99999 + 1e-6 * np.arange(16).reshape(4, 4) / 16, ["a", "b", "c", "d"]
    shown = draw_similarity(names, near)
    assert "which are all alike: 0.99999 to 0.99999." in shown.caption
    assert b"<!-- 0.0 -->" in shown.svg and b"<!-- 1.0 -->" in shown.svg, "the bar spans what means something"
    tree = draw_tree(names, near)
    assert "All are alike: the last join is at 0.00001." in tree.caption
    assert b"<!-- 1.0 -->" in tree.svg
    apart = np.arange(16).reshape(4, 4) / 16
    assert "alike:" not in draw_similarity(names, apart).caption
    assert "All are alike" not in draw_tree(names, apart).caption


def test_names_that_are_cut_stay_told_apart():
    assert short_each(LONG[:3], 24) == [f"…ctions_task000{i}_politi…" for i in range(3)]
    assert short_each(["poems", "news"], 24) == ["poems", "news"]
    assert len(set(short_each(["x" * 30] * 2, 11))) == 1
    assert short_each([], 11) == []


def long_table():
    columns = [
        Column(group, metric, metric, "nats per token", True, 1, 3)
        for group in ("a group of tasks with a very long name, of which nothing is known", "g")
        for metric in ("perplexity:normalise=byte", "rouge_l")
    ]
    names = ("a_library_with_a_long_name_of_its_own-task_predictor", "x" * 60, "base")
    return Table(tuple(columns), tuple(Row(name, (Cell(123.456, 100, 150),) * 4) for name in names))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_scores(long_table()),
        lambda: draw_similarity(LONG, np.eye(30), clusters=GROUPS),
        lambda: draw_tree(LONG, np.eye(30), clusters=GROUPS),
        lambda: draw_training([Curve(LONG[k], name, [0, 9], [3, 1]) for k in range(3) for name in LONG[:6]]),
        lambda: draw_k_curve([{"k": k, "silhouette": 0.1, "stability": 1.0} for k in (2, 3, 400)], chosen=400),
    ],
)
def test_no_text_is_cut_off_or_runs_into_another_panel(draw, monkeypatch):
    drawn = []
    for module in (figures, cluster_figures):
        monkeypatch.setattr(module, "finish", lambda figure, *_: drawn.append(figure))
    draw()
    (figure,) = drawn
    figure.draw_without_rendering()
    axes = [axis for axis in figure.axes if axis.get_visible()]
    texts = [text for axis in axes for text in axis.findobj(Text) if text.get_visible() and text.get_text()]
    edge = figure.bbox.padded(2)
    named = [
        text for text in texts if not text.get_text().lstrip("−").replace(".", "").isdigit()
    ]  # ticks may be clipped
    boxes = [(text.get_text(), text.get_window_extent()) for text in named]
    assert [name for name, box in boxes if not (edge.x0 < box.x0 and box.x1 < edge.x1)] == []
    titles = [axis.get_title(loc="left") and axis._left_title.get_window_extent() for axis in axes]
    wide = [box for box in titles if box]
    assert not any(a.overlaps(b) for i, a in enumerate(wide) for b in wide[i + 1 :])
