"""A plausible made-up study: nine configurations, two groups of tasks, two metrics."""

from collections.abc import Callable

import numpy as np
import pytest

from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores
from lorary.pages.inspector import Told
from lorary.reporting.figure import Curve
from lorary.reporting.table import Table, make_table

LEVELS = {  # Rouge-L on trained and unseen tasks
    "base": (18, 21),
    "shared": (44, 33),
    "private-uniform": (29, 30),
    "private-tp": (52, 31),
    "private-cm": (47, 31.5),
    "private-arrow": (55, 34),
    "private-oracle": (61, None),
    "mbc-uniform": (42, 37),
    "mbc-arrow": (53, 36),
    "mbc-oracle": (64, None),
}
EXPERTS = ("poems", "news", "riddles", "arithmetic", "translate_de", "summaries", "emails", "python", "recipes", "law")


def make_scores(name: str, metric: str, level: float, tasks: list[str], *, n_examples: int = 40) -> Scores:
    rouge = metric == "rouge_l"
    rng = np.random.default_rng(len(name))
    header = {
        "format": 1,
        "name": name,
        "metric": metric,
        "options": {"name": metric},
        "unit": "0-100" if rouge else "nats per token",
        "higher_is_better": rouge,
        "model": {"base": "toy", "router": name},
        "tasks": {task: {"n_examples": n_examples, "hash": "0"} for task in tasks},
    }
    values = rng.normal(level, 22 if rouge else 0.5, size=(len(tasks), n_examples))
    outcomes = [Outcome(t, i, float(v)) for t, row in zip(tasks, values, strict=True) for i, v in enumerate(row)]
    return Scores(header, tuple(outcomes))


def group_of(place: int, tasks: list[str]) -> list[Scores]:
    levels = {name: pair[place] for name, pair in LEVELS.items() if pair[place] is not None}
    return [
        make_scores(name, metric, level if metric == "rouge_l" else 3.1 - level / 28, tasks)
        for metric in ("rouge_l", "perplexity")
        for name, level in levels.items()
    ]


@pytest.fixture(scope="session")
def make_group() -> Callable[[int, list[str]], list[Scores]]:
    return group_of


@pytest.fixture(scope="session")
def table() -> Table:
    trained = [f"trained{i}" for i in range(8)]
    unseen = [f"unseen{i}" for i in range(4)]
    return make_table(
        {"trained tasks": group_of(0, trained), "unseen tasks": group_of(1, unseen)},
        labels={"rouge_l": "Rouge-L", "perplexity": "loss"},
    )


@pytest.fixture(scope="session")
def similarity() -> tuple[list[str], np.ndarray, dict[str, list[str]]]:
    names = [f"task{i:02d}_{kind}" for i, kind in enumerate(EXPERTS * 2)] + ["loner_a", "loner_b"]
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 12))
    vectors = centres[np.arange(22) % 4] + 0.8 * rng.normal(size=(22, 12)) + 0.6
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clusters = {f"c{c}": [names[i] for i in range(20) if i % 4 == c] for c in range(4)}
    return names, vectors @ vectors.T, clusters


@pytest.fixture(scope="session")
def curves() -> list[Curve]:
    rng = np.random.default_rng(0)
    steps = list(range(0, 401, 25))

    def losses() -> list[float]:
        floor, speed, rise = rng.uniform(0.6, 1.6), rng.uniform(60, 120), rng.uniform(0, 0.3)
        return [float(floor + 1.4 * np.exp(-s / speed) + rise * (s / 400) ** 2) for s in steps]

    private = [Curve("private", f"task{i:02d}", steps, losses()) for i in range(20)]
    return private + [Curve("mbc", f"c{i}", steps, losses()) for i in range(5)]


TEXT = (
    "Translate| to| German|:| the| cheque| is| in| the| post|.|\n|Answer|:| Der| Scheck| ist| in| der| Post|.|\n\n|"
    "def| total|(|xs|):|\n\treturn| sum|(|x| *| x| for| x| in| xs|)| |<|b|>|"
)


@pytest.fixture(scope="session")
def trace() -> Told:
    tokens = tuple(TEXT.split("|"))
    rng = np.random.default_rng(0)
    bias = np.zeros((len(tokens), 10))
    bias[:13, 5], bias[13:22, 4], bias[22:, 7], bias[8:12, 0] = 2.5, 4, 3, 2
    logits = bias[None] + rng.normal(size=(6, len(tokens), 10))
    by_site = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    sites = tuple(f"layer {i}" for i in range(6))
    weights = [[list(enumerate(site)) for site in token] for token in by_site.swapaxes(0, 1).round(6).tolist()]
    told = {"experts": list(EXPERTS), "sites": list(sites), "tokens": list(tokens), "weights": weights, "left_out": 0}
    return Told("Two languages and a program", told, 13)
