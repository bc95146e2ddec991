"""Tree, choice of k, and the page of clusters."""

import numpy as np
import pytest

from lorary.errors import EvaluationError
from lorary.reporting.cluster_figures import _name_runs, draw_k_curve, draw_tree
from lorary.reporting.cluster_page import report_clusters

CURVE = [{"k": k, "silhouette": 0.1 * k, "stability": 0.5} for k in (2, 3, 4)]
NAMES = [f"e{i}" for i in range(6)]


def similarity(n):
    rows = np.random.default_rng(0).normal(size=(n, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def test_a_tree_names_every_expert_and_is_the_same_again():
    one, two = (draw_tree(NAMES, similarity(6), clusters={"c0": NAMES[:2], "c1": NAMES[2:]}) for _ in range(2))
    assert one == two
    assert one.png[:4] == b"\x89PNG"
    assert all(f"<!-- {name} -->".encode() in one.svg for name in NAMES)


def test_a_large_tree_names_clusters():
    names = [f"e{i}" for i in range(90)]
    groups = np.kron(np.eye(3), np.ones((30, 30)))
    picture = draw_tree(names, groups, clusters={f"c{i}": names[30 * i : 30 * i + 30] for i in range(3)})
    assert all(f"<!-- c{i} -->".encode() in picture.svg for i in range(3))
    assert b"<!-- e5 -->" not in picture.svg
    assert _name_runs(["a", "a", "a", "b", "b", "", "", "", "", "c", "c", "c", "c"]) == [(1, "a"), (10, "c")]


@pytest.mark.slow
def test_the_number_chosen_is_marked():
    assert b"<!-- k=3 -->" in draw_k_curve(CURVE, chosen=3).svg
    assert b"<!-- k=" not in draw_k_curve(CURVE).svg


@pytest.mark.slow
def test_the_page_shows_all_three(tmp_path):
    clusters = {"c0": NAMES[:2], "c1": NAMES[2:]}
    path = report_clusters(
        clusters, NAMES, similarity(6).tolist(), tmp_path / "page.html", curve=CURVE, png_dir=tmp_path / "png"
    )
    assert sorted(p.name for p in (tmp_path / "png").iterdir()) == ["k-curve.png", "similarity.png", "tree.png"]
    assert "6 experts in 2 clusters (c0: 2, c1: 4)." in path.read_text()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: draw_tree(["a"], np.ones((1, 1))),
            "error[E-REPORT] no tree of 1 experts, similarity of shape (1, 1): expected at least 2, "
            "one row and column for each.",
        ),
        (
            lambda: draw_tree(["a", "b"], np.full((2, 2), np.nan)),
            "error[E-REPORT] similarity of 'a' and 'a' is nan, expected a finite number.",
        ),
        (
            lambda: draw_tree(["a", "b"], np.eye(2), clusters={"c": ["a", "a"]}),
            "error[E-REPORT] expert 'a' stands in cluster 'c' and in 'c', expected in one, once.",
        ),
        (lambda: draw_k_curve([]), "error[E-REPORT] there is no curve over k to draw. Cluster with k=auto."),
        (
            lambda: report_clusters({"c0": ["a"]}, (), (), "nowhere.html"),
            "error[E-REPORT] these clusters come without a map of similarities. Use mbc or embeddings.",
        ),
    ],
)
def test_what_can_not_be_drawn_says_why(draw, message):
    with pytest.raises(EvaluationError) as caught:
        draw()
    assert str(caught.value) == message
