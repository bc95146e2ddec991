"""What the paper's code does otherwise: each difference is an option, and one name turns all of them on."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch

from lorary.adapters.contract import Site
from lorary.adapters.lora import LoRA
from lorary.building.build import build
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.phatgoose import Phatgoose
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.clustering.clusters import Clusters
from lorary.building.finetune import FullFineTuning
from lorary.building.paper_settings import as_paper
from lorary.building.training import loop as training
from lorary.building.training.packs import fresh_starts, packed
from lorary.errors import OptionError
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.folder import BUILDERS
from lorary.formats.peft import read_experts
from lorary.model.routed.route import route
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import pad
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks

QUICK = {"steps": 6, "batch_size": 2, "rank": 2, "n_evaluations": 3, "dropout": 0.0, "lr": 1e-2}
UNEVEN = (Example("a b c d e f", "f e d c b a, and so on", "t"), Example("b", "b", "t"), Example("c d", "d c", "t"))


@pytest.fixture
def uneven():
    return Tasks([Task("t", UNEVEN, UNEVEN, UNEVEN)])


def step_of(base, tasks, loss):
    """The loss of one step on all rows, its gradient, and what it is made of: each row's own loss and gradient."""
    builder = Private(**QUICK, loss=loss)
    (job,) = builder.plan(tasks)
    pupil, (_, starts) = job.pupil(base), fresh_starts(builder, 1, base)
    with packed([pupil], base, starts, 0.0, 1e-3, 3) as (trainable, banks):
        for bank in banks.values():
            bank.b.data.fill_(0.1)
        run, grad = training._Run(trainable, builder, 1, None), trainable.stacks["factors"].grad
        rows = trainable.batch(0, range(3))
        counts = [3] if loss == "examples" else [sum(len(row.text.completion) for row in rows)]
        found = training._gradients(run, rows, counts, 0), grad.clone()
        parts = []
        for row in rows:
            grad.zero_()
            with trainable.turn([row]):
                one = row_losses(base, pad([row.text]))
                one.sum().backward()
            parts.append((len(row.text.completion), one.detach(), grad.clone()))
        return found, parts


def test_a_step_s_loss_is_the_mean_of_tokens_or_of_examples(base, uneven):
    for loss in ("tokens", "examples"):
        (value, gradient), parts = step_of(base, uneven, loss)
        n_tokens = sum(n for n, _, _ in parts)
        weights = [1 / n_tokens if loss == "tokens" else 1 / (3 * n) for n, _, _ in parts]
        assert len({n for n, _, _ in parts}) == 3
        for found, place in ((value, 1), (gradient, 2)):
            expected = sum(w * part[place] for w, part in zip(weights, parts, strict=True))
            torch.testing.assert_close(found, expected.view_as(found), atol=1e-5, rtol=1e-4)


def test_validation_by_examples_is_what_evaluation_reports(base, uneven, tmp_path):
    values = {}
    for loss in ("tokens", "examples"):
        library = build(Private(**QUICK, loss=loss), uneven, base, into=tmp_path / loss)
        with route(base, library, "oracle") as model:
            outcomes = Perplexity().evaluate(model, uneven["t"])
        nats, n_tokens = ([one.details[what] for one in outcomes] for what in ("nats", "n_tokens"))
        values[loss] = sum(one.value for one in outcomes) / 3, -sum(nats) / sum(n_tokens)
        told = library["t"].provenance.metrics["valid_loss"]
        assert told == pytest.approx(values[loss][loss == "tokens"], abs=1e-4)
        assert abs(values[loss][0] - values[loss][1]) > 1e-3


def test_a_step_s_rows_are_counted_by_the_measure(base, uneven, tmp_path):
    """Trained and validated on the same three rows at a rate of almost nothing, both losses are one number."""
    for loss in ("tokens", "examples"):
        still = {**QUICK, "steps": 1, "batch_size": 3, "lr": 1e-30, "n_evaluations": 1}
        library = build(Private(**still, loss=loss), uneven, base, into=tmp_path / loss)
        with open(library["t"].directory / "metrics.jsonl", encoding="utf-8") as file:
            row = [json.loads(line) for line in file][-1]
        assert row["loss"] == pytest.approx(row["valid_loss"], abs=1e-4)


# ---- what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "losses", "kept"),
    [
        ("best", [1.0, 5.0, 3.0, 4.0], (3.0, 4)),
        ("best_or_start", [1.0, 5.0, 3.0, 4.0], (1.0, 0)),
        ("best_or_start", [9.0, 5.0, 3.0, 4.0], (3.0, 4)),
        ("last", [1.0, 5.0, 3.0, 4.0], (4.0, 6)),
    ],
)
def test_which_weights_are_kept(keep, losses, kept, base, toy, tmp_path, monkeypatch):
    measured, seen = iter(losses), []

    def measure(run, live):
        seen.append(run.trainable.stacks["factors"].values.detach().clone())
        return [next(measured)]

    monkeypatch.setattr(training, "_valid_losses", measure)
    library = build(Private(**QUICK, keep=keep), toy.only(["copy"]), base, into=tmp_path / "lib")
    assert library["copy"].provenance.metrics == {"valid_loss": kept[0], "best_step": float(kept[1])}
    weights = read_experts(library)["copy"].values()
    found = torch.cat([torch.cat([w.a.flatten(), w.b.T.flatten()]) for w in weights])
    torch.testing.assert_close(found.sort()[0], seen[kept[1] // 2][0].sort()[0])


def test_training_that_keeps_the_last_weights_still_stops_early(base, toy, tmp_path, monkeypatch):
    measured = iter([9.0, 5.0, 6.0, 7.0])
    monkeypatch.setattr(training, "_valid_losses", lambda run, live: [next(measured)])
    options = {**QUICK, "steps": 8, "n_evaluations": 4}
    library = build(Private(**options, keep="last", patience=2), toy.only(["copy"]), base, into=tmp_path / "lib")
    assert library["copy"].provenance.metrics == {"valid_loss": 7.0, "best_step": 6.0}


# ---- the start, the budget, keys ----------------------------------------------------------------


def test_a_starts_within_the_bound_that_was_asked_for(base):
    site = Site("q", 300, 2)
    for init, bound in (("peft", 300**-0.5), ("paper", 900**-0.5)):
        a = LoRA(rank=9).fresh(site, torch.Generator().manual_seed(1), init).a
        assert 0.98 * bound < float(a.abs().max()) <= bound
    plain, paper = (fresh_starts(Private(), 1, base, init)[1][0] for init in ("peft", "paper"))
    for name in plain:
        torch.testing.assert_close(paper[name].a * math.sqrt(3), plain[name].a)


@pytest.mark.parametrize("kind", [Private, Poly])
def test_builders_draw_a_as_they_are_asked(kind, base, toy, tmp_path):
    still = {"steps": 1, "lr": 1e-30, "rank": 2, "batch_size": 1}
    tasks = toy.only(["copy"])
    one, two = (build(kind(**still, init=init), tasks, base, into=tmp_path / init) for init in ("peft", "paper"))
    for name, sites in read_experts(one).items():
        for site, weights in sites.items():
            torch.testing.assert_close(read_experts(two)[name][site].a * math.sqrt(3), weights.a)


def test_steps_for_each_task_make_equal_training_of_clusters(toy):
    tasks = toy.only(["copy", "swap", "upper"])
    groups = {"c0": ("copy", "swap"), "c1": ("upper",)}
    per_task = PerCluster(Clusters(groups), steps_per_task=3)
    assert {job.name: job.n_steps for job in per_task.plan(tasks)} == {"c0": 6, "c1": 3}
    named = {job.name: job.key({}) for job in per_task.plan(tasks)}
    assert named["c1"] == PerCluster(Clusters(groups), steps=3).plan(tasks)[1].key({}), "no other expert"
    dealt = Clusters(dict.fromkeys(("c0", "c1", "c2"), ("copy", "swap", "upper")), dealt=1)
    assert sum(job.n_steps for job in PerCluster(dealt, steps_per_task=3).plan(tasks)) == 9
    with pytest.raises(OptionError, match=r"^error\[E-OPTION\] per_cluster: steps and steps_per_task are given"):
        PerCluster(Clusters(groups), steps=2, steps_per_task=3)


def test_the_whole_budget_is_that_of_one_private_library(toy):
    tasks = toy.only(["copy", "swap", "upper"])
    groups = Clusters({"c0": ("copy", "swap"), "c1": ("upper",)})

    def examples(*builders):
        return sum(job.n_steps * job.n_rows for builder in builders for job in builder.plan(tasks))

    split = {"batch_size": 4}
    parts = as_paper(Private, epochs=2, **split), as_paper(PerCluster, clusters=groups, **split)
    assert examples(*parts) == examples(as_paper(Private, **split)) == 5 * 36


def test_what_is_done_otherwise_is_another_job(toy):
    tasks = toy.only(["copy"])
    same = Private(loss="tokens", keep="best", warmup_from="first", init="peft").plan(tasks)[0].key({})
    assert same == Private().plan(tasks)[0].key({})
    others = [{"loss": "examples"}, {"keep": "last"}, {"warmup_from": "zero"}, {"init": "paper"}]
    keys = {Private(**other).plan(tasks)[0].key({}) for other in others}
    assert len(keys | {same}) == 5


# ---- one name -----------------------------------------------------------------------------------


def test_one_name_gives_the_paper_s_training():
    private = as_paper(Private, rank=8)
    told = (private.batch_size, private.clip, private.loss, private.warmup_from, private.init, private.max_valid)
    assert told == (16, 0.1, "examples", "zero", "paper", 1000)
    assert (private.rank, private.epochs, private.dropout, private.lr, private.warmup) == (8, 5.0, 0.05, 1e-4, 0.06)
    shared = as_paper(Shared)
    assert (shared.epochs, shared.dropout, shared.max_valid, shared.init) == (1.0, 0.0, 5000, "paper")
    gates = as_paper(Phatgoose)
    assert (gates.batch_size, gates.warmup, gates.keep, gates.lr, gates.steps) == (4, 0.1, "last", 1e-3, 100)
    full = as_paper(FullFineTuning)
    assert (full.epochs, full.lr, full.batch_size, full.loss) == (1.0, 3e-5, 16, "examples")


def test_every_builder_that_trains_can_be_made_as_the_paper_s():
    trained = [BUILDERS.load(name) for name in BUILDERS.names()]
    trained = [kind for kind in trained if "warmup" in {field.name for field in dataclasses.fields(kind)}]
    assert len(trained) > 8
    for kind in trained:
        needed = {"clusters": Clusters({"c0": ("copy",)})} if kind is PerCluster else {}
        assert as_paper(kind, **needed).loss == "examples"


def test_what_the_paper_s_training_is_no_part_of_is_refused():
    with pytest.raises(OptionError, match=r"^error\[E-OPTION\] private: unknown option 'rnak'. Did you mean 'rank'"):
        as_paper(Private, rnak=4)
    for wrong in (Private(), BUILDERS.load("ties"), "private"):
        with pytest.raises(OptionError, match=r"^error\[E-OPTION\] as_paper: method=.* expected the class"):
            as_paper(wrong)


@pytest.mark.parametrize("kind", [Private, Shared])
def test_the_page_s_command_is_what_the_one_name_gives(kind):
    page = (Path(__file__).parents[3] / "docs" / "how_to" / "train.md").read_text(encoding="utf-8")
    name = kind.__name__.lower()
    (spec,) = re.findall(rf"--method ({name}:batch_size=16\S*|{name}:epochs=1\S*) ", page)
    assert BUILDERS.parse(spec) == as_paper(kind)
