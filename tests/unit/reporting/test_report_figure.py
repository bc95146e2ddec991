import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import lorary.reporting
from lorary.errors import EvaluationError
from lorary.reporting import canvas
from lorary.reporting.figure import (
    Curve,
    _cluster_order,
    _draw_library,
    _places,
    draw_scores,
    draw_similarity,
    draw_training,
)
from lorary.reporting.growth import draw_growth
from lorary.reporting.table import Cell, Column, Row, Table
from lorary.reporting.token_trace import TokenTrace


def size_of(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def tiny_table():
    column = Column("g", "m", "m", "0-100", True, 1, 3)
    return Table((column,), (Row("base", (Cell(1, 0, 2),)), Row("x-oracle", (Cell(3, 2, 4),), True), Row("y", (None,))))


def test_the_same_scores_give_the_same_bytes():
    one, two = draw_scores(tiny_table()), draw_scores(tiny_table())
    assert one == two
    assert size_of(one.png)[0] == 1600
    assert one.svg.startswith(b"<?xml")
    assert b"<script" not in one.svg


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        ("a-loss a-rouge b-loss b-rouge", [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ("a-loss b-loss", [(0, 0), (1, 0)]),
        ("a-loss b-rouge c-loss", [(0, 0), (0, 1), (1, 0)]),  # as in a grid they would stand on a diagonal
    ],
)
def test_panels_stand_by_group_and_metric_or_two_in_a_row(columns, places):
    pairs = [one.split("-") for one in columns.split()]
    assert _places([Column(group, metric, metric, "", True, 1, 3) for group, metric in pairs]) == places


def test_no_global_state_of_pyplot_is_touched():
    folder = Path(lorary.reporting.__file__).parent
    assert not [path.name for path in folder.glob("*.py") if "pyplot" in path.read_text()]


def test_strange_names_are_drawn_as_they_are():
    names = ["$x^2$ and \\alpha", "a" * 90, "<b>", ""]
    picture = draw_similarity(names, np.eye(4), clusters={"$\\frac{$": names[:2]})
    assert size_of(picture.png)[0] == 1600


def test_a_title_that_looks_like_mathematics_is_drawn_as_it_is():
    weights = np.ones((1, 1))
    assert draw_growth([TokenTrace(("a",), ("$e_{",), weights, "$x_{$", ("s",), weights[None])]).png


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_curves_are_drawn_as_far_as_they_go():
    curves = [
        Curve("l", "whole", np.arange(3), np.array([3.0, 2.0, 1.0])),
        Curve("l", "the same", np.arange(3), np.array([3.0, 2.0, 1.0])),
        Curve("l", "diverged", [0, 1, 2], [3.0, np.nan, np.inf]),
        Curve("l", "none", [0, 1], [np.nan, np.nan]),
        Curve("l", "empty", [], []),
    ]
    picture = draw_training(curves)
    assert picture.caption.endswith(" Left out, without a loss: 2.")
    assert b"<!-- diverged -->" in picture.svg
    assert b"<!-- none -->" not in picture.svg


@pytest.fixture
def _no_further_fonts():
    canvas._installed.cache_clear()
    yield
    canvas._installed.cache_clear()


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("_no_further_fonts")
def test_letters_that_the_first_font_lacks_come_from_those_installed(monkeypatch):
    names, map_of = ["\u1d81"], np.ones((1, 1))  # of matplotlib's own fonts, STIXGeneral has it
    monkeypatch.setattr(canvas, "_FURTHER", ("No Such Font",))
    boxes = draw_similarity(names, map_of)
    canvas._installed.cache_clear()
    monkeypatch.setattr(canvas, "_FURTHER", ("No Such Font", "STIXGeneral"))
    assert draw_similarity(names, map_of).svg != boxes.svg


def test_clusters_lead_the_order_and_loners_follow():
    assert _cluster_order(["a", "b", "c"], {"k": ["c", "a"]}) == ([2, 0, 1], [("k", 0, 2)])


def test_a_lone_expert_has_a_map():
    assert draw_similarity(["only"], np.ones((1, 1))).name == "similarity"


def test_labels_at_line_ends_keep_apart():
    axis = Figure(figsize=(5, 3.4)).subplots()
    _draw_library(axis, "private", [Curve("private", f"e{i}", [0, 1], [2.0, 1.0 + i / 1000]) for i in range(8)])
    heights = sorted(text.xyann[1] for text in axis.texts)
    assert len(heights) == 8
    assert min(np.diff(heights)) > 0.05


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: draw_similarity(["a"], np.eye(2)),
            "error[E-REPORT] similarity has shape (2, 2), expected (1, 1): one row and column for each expert.",
        ),
        (
            lambda: draw_similarity(["a"], np.eye(1), clusters={"c0": ["b"]}),
            "error[E-REPORT] cluster 'c0': no expert is called 'b'.",
        ),
        (lambda: draw_scores(Table((), ())), "error[E-REPORT] there are no scores to draw."),
        (lambda: draw_training([]), "error[E-REPORT] there are no training curves to draw."),
        (
            lambda: draw_training([Curve("l", "e", [], [])]),
            "error[E-REPORT] there are no training curves to draw.",
        ),
        (
            lambda: Curve("l", "e", [1, 2], [0.5]),
            "error[E-REPORT] curve of 'e': 2 steps and 1 losses, expected as many of both.",
        ),
        (lambda: draw_similarity([], np.ones((0, 0))), "error[E-REPORT] there are no experts to draw."),
        (
            lambda: draw_similarity(["a", "b"], np.array([[1, np.nan], [0, 1]])),
            "error[E-REPORT] similarity of 'a' and 'b' is nan, expected a finite number.",
        ),
        (
            lambda: draw_similarity(["a", "b"], np.eye(2), clusters={"c": ["a"], "d": ["a", "b"]}),
            "error[E-REPORT] expert 'a' stands in cluster 'c' and in 'd', expected in one, once.",
        ),
        (lambda: draw_growth([]), "error[E-REPORT] there are no traces to draw."),
        (
            lambda: draw_growth([TokenTrace(("a",), ("x",), np.ones((1, 1)), "T")]),
            "error[E-REPORT] trace 'T' has no weights by site.",
        ),
    ],
)
def test_what_can_not_be_drawn_says_why(draw, message):
    with pytest.raises(EvaluationError) as caught:
        draw()
    assert str(caught.value) == message


@pytest.mark.slow
def test_growth_has_two_panels_for_each_text():
    weights = np.random.default_rng(0).dirichlet(np.ones(6), size=(8, 5))  # (L, T, E)
    traces = [
        TokenTrace(tuple("abcde"), tuple("uvwxyz"), weights.mean(0), f"text {i}", tuple("12345678"), weights)
        for i in (1, 2)
    ]
    picture = draw_growth(traces)
    assert picture.png.startswith(b"\x89PNG")
    for text in ("text 1", "text 2", "token of the prompt", "site, from the first layer up"):
        assert text.encode() in picture.svg
    assert picture.svg == draw_growth(traces).svg
