"""Weights found without gradients: the search alone, and on a library."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lorary.building.build import build
from lorary.building.builders.lorahub import LoraHub, merge_weights
from lorary.building.merging.search import Evolution, Nevergrad, replay
from lorary.errors import LoraryError
from lorary.formats.peft import read_experts, read_weights
from lorary.model.decoding.answer import Answering, answer, bare
from lorary.model.routed.route import route
from lorary.routing.routers.uniform import Uniform
from lorary.tasks.example import Example
from lorary.tasks.overlap import overlaps
from lorary.tasks.task import Task, Tasks
from lorary.testing.pico import random_library

# Nevergrad hands small problems to COBYLA, in a thread of its own, which talks about what it was given.
pytestmark = [
    pytest.mark.filterwarnings("ignore:COBYLA:UserWarning"),
    pytest.mark.filterwarnings("ignore:Underlying optimizer has already converged"),
]
TARGET = np.array([1.2, -0.7, 0.3])


def bowl(point):
    return float(((np.asarray(point) - TARGET) ** 2).sum())


def run(search, n):
    losses = []
    for _ in range(n):
        losses.append(bowl(search.ask()))
        search.tell(losses[-1])
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Evolution, Nevergrad])
def test_a_search_gets_near_the_lowest_point_in_its_box(kind):
    losses = run(kind(3, 150, 1.5, 0), 150)
    assert losses[0] == pytest.approx(bowl([0, 0, 0]))
    assert min(losses) < 0.05


@pytest.mark.parametrize("kind", [Evolution, Nevergrad])
def test_a_search_that_is_replayed_goes_on_as_if_it_had_not_stopped(kind):
    whole = kind(3, 30, 1.5, 1)
    losses = run(whole, 30)
    again = kind(3, 30, 1.5, 1)
    points = replay(again, losses[:17])
    assert [bowl(point) for point in points] == losses[:17]
    assert run(again, 13) == losses[17:]


def test_another_seed_is_another_search():
    assert run(Evolution(3, 30, 1.5, 1), 30) != run(Evolution(3, 30, 1.5, 2), 30)


def test_evolution_tries_nothing_the_mean_and_each_alone_and_stays_in_its_box():
    search = Evolution(3, 40, 1.5, 0)
    points = []
    for _ in range(40):
        points.append(search.ask())
        search.tell(-sum(points[-1]))
    assert points[:5] == [(0, 0, 0), (1 / 3, 1 / 3, 1 / 3), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert max(map(max, points)) == 1.5
    few = Evolution(3, 8, 1.5, 0)
    assert [few.ask(), few.ask()] == [(0, 0, 0), (1 / 3, 1 / 3, 1 / 3)]


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, ["ant", "bee", "cat"], ranks=3)


def test_the_loss_it_reports_is_that_of_the_expert_it_writes(library, base, toy, tmp_path):
    only = toy.only(["copy"])
    made = build("lorahub:steps=12,n_examples=3", only, base, source=library, into=tmp_path / "hub")["copy"]
    weights = made.provenance.builder["weights"]
    assert list(weights) == ["ant", "bee", "cat"]
    with route(
        base, build("svd:rank=3", only, base, source=_alone(made, base, tmp_path), into=tmp_path / "x"), Uniform()
    ) as model:
        found = model.log_likelihood(only["copy"].train[:3])
    nats = -sum(f.nats for f in found) / sum(f.n_tokens for f in found)
    penalty = 0.05 * sum(map(abs, weights.values())) / 3
    assert made.provenance.metrics["loss"] == pytest.approx(nats + penalty, abs=1e-4)
    rows = [json.loads(line) for line in (made.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert min(row["loss"] for row in rows) == made.provenance.metrics["loss"] < rows[0]["loss"]
    assert made.rank == 3


def _alone(expert, base, tmp_path):
    from lorary.library.library import Library

    library = Library.create(tmp_path / "alone", base=base.fingerprint)
    library.add(expert.directory, "copy")
    return library


def rows_of(expert):
    return [json.loads(line) for line in (expert.directory / "metrics.jsonl").read_text().splitlines()]


def test_the_authors_divide_the_loss_by_the_examples_and_not_the_penalty(library, base, toy, tmp_path):
    only = toy.only(["copy"])
    ours, theirs = (
        rows_of(build(f"lorahub:steps=2,n_examples=4{more}", only, base, source=library, into=tmp_path / name)["copy"])
        for name, more in (("ours", ""), ("theirs", ",objective=authors"))
    )
    for one, other, size in zip(ours, theirs, (0.0, 1 / 3), strict=True):
        assert other["loss"] == pytest.approx((one["loss"] - 0.05 * size) / 4 + 0.05 * size)


@pytest.mark.slow
def test_rouge_l_is_that_of_greedy_answers(library, base, tmp_path):
    """Of tasks whose answers are the base's own, nothing (all 0) has 100; the mean has what the routed library has."""
    prompts = [Example(f"{letter} and", "") for letter in "abc"]
    asked = zip(prompts, answer(base, prompts, bare(base.hf), Answering(64)), strict=True)
    examples = tuple(replace(prompt, completion=text, task="own") for prompt, text in asked)
    tasks = Tasks([Task("own", train=examples)])
    assert overlaps(examples, [e.completion for e in examples]) == [100.0] * 3
    spec = "lorahub:steps=2,n_examples=3,objective=rouge_l"
    rows = rows_of(build(spec, tasks, base, source=library, into=tmp_path / "hub")["own"])
    assert rows[0]["loss"] == -100
    with route(base, library, Uniform(), mix="factors") as model:
        values = overlaps(examples, model.generate_text(examples, max_new_tokens=64))
    assert rows[1]["loss"] == pytest.approx(-sum(values) / 3 + 0.05 * 0.05 / 3)


def test_both_mixes_are_what_they_say(library):
    experts = read_experts(library)
    point = (0.5, -1.0, 1.5)
    for site, weights in merge_weights(experts, point, "outputs").items():
        expected = sum(w * experts[name][site].delta() for w, name in zip(point, sorted(experts), strict=True))
        torch.testing.assert_close(weights.delta(), expected, atol=1e-5, rtol=1e-5)
    for site, weights in merge_weights(experts, point, "factors").items():
        sides = [experts[name][site].factors() for name in sorted(experts)]
        a = sum(w * a for w, (a, _) in zip(point, sides, strict=True))
        b = sum(w * b for w, (_, b) in zip(point, sides, strict=True))
        torch.testing.assert_close(weights.delta(), b @ a, atol=1e-5, rtol=1e-5)


def test_experts_of_unequal_ranks_need_outputs(base, toy, tmp_path):
    library = random_library(tmp_path / "mixed", base, ["ant", "bee"], ranks=[2, 3])
    only = toy.only(["copy"])
    with pytest.raises(LoraryError, match="E-RANK"):
        build("lorahub:steps=2", only, base, source=library, into=tmp_path / "hub")
    made = build("lorahub:steps=3,mix=outputs", only, base, source=library, into=tmp_path / "hub2")["copy"]
    assert read_weights(made)


def test_nevergrad_finds_weights_as_well(library, base, toy, tmp_path):
    made = build("lorahub:steps=6,search=nevergrad", toy.only(["copy"]), base, source=library, into=tmp_path / "hub")
    rows = [json.loads(line) for line in (made["copy"].directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["weights"] == [0, 0, 0]


def test_without_nevergrad_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nevergrad", None)
    with pytest.raises(LoraryError) as caught:
        Nevergrad(2, 3, 1.5, 0)
    assert str(caught.value) == (
        'error[E-EXTRA] search=nevergrad needs nevergrad>=1.0.12, found none. Run: pip install "nevergrad>=1.0.12".'
    )


def test_a_task_without_examples_is_refused(library, toy):
    with pytest.raises(LoraryError, match=r"E-DATA\] task 'copy' has no training examples"):
        LoraHub().plan(type(toy)([toy["copy"].first(train=0)]), library)
