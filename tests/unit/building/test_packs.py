"""A pack: no expert notices who else is in it, and who stops early costs nothing more."""

import json
import math

import pytest
import torch

from lorary.building.build import build
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.building.training import loop as training
from lorary.building.training.measure import count
from lorary.building.training.packs import fresh_starts, packed
from lorary.building.training.stack import Stack, clip
from lorary.errors import BuildError, ModelError, OptionError
from lorary.folder import BUILDERS
from lorary.formats.peft import read_experts, read_weights
from lorary.library.library import Library
from lorary.model.text.scoring import row_losses
from lorary.tasks.example import Example, Message
from lorary.tasks.task import Task, Tasks
from lorary.testing.contracts import Killed, files_of
from lorary.testing.pico import random_library

QUICK = {"steps": 8, "batch_size": 2, "rank": 2, "n_evaluations": 4, "dropout": 0.3, "lr": 1e-2}


def gradients(base, builder, tasks, counts):
    """Gradients of each expert's mean loss on its first rows, with dropout."""
    jobs = builder.plan(tasks)
    _, starts = fresh_starts(builder, len(jobs), base)
    with packed([job.pupil(base) for job in jobs], base, starts, builder.dropout, builder.lr, 3) as (trainable, banks):
        for bank in banks.values():
            bank.b.data.fill_(0.1)
        rows = [row for i, n in enumerate(counts) for row in trainable.batch(i, range(n))]
        each = [sum(count(row.text, builder.loss) for row in rows if row.owner == i) for i in range(len(counts))]
        losses = training._gradients(training._Run(trainable, builder, 1, None), rows, each, 5)
        return losses, trainable.stacks["factors"].grad


@pytest.mark.parametrize(("counts", "loss"), [([2, 2, 2], "tokens"), ([3, 1, 2], "tokens"), ([3, 1, 2], "examples")])
def test_gradients_are_those_of_training_alone(base, toy, counts, loss):
    tasks, builder = toy.only(["copy", "swap", "upper"]), Private(**QUICK, loss=loss)
    losses, together = gradients(base, builder, tasks, counts)
    for i, name in enumerate(tasks):
        (loss,), (alone,) = gradients(base, builder, tasks.only([name]), [counts[i]])
        assert alone.abs().max() > 0.01
        torch.testing.assert_close(together[i], alone, atol=1e-5 * float(alone.abs().max()), rtol=1e-5)
        torch.testing.assert_close(losses[i], loss)


@pytest.mark.parametrize(("most", "loss"), [(1, "tokens"), (40, "tokens"), (70, "tokens"), (40, "examples")])
def test_a_step_in_several_passes_is_the_same_step(base, toy, monkeypatch, most, loss):
    seen, tasks = [], toy.only(["copy", "swap", "upper"])
    monkeypatch.setattr(training, "row_losses", lambda base, batch: seen.append(batch) or row_losses(base, batch))
    losses, whole = gradients(base, Private(**QUICK, loss=loss), tasks, [3, 1, 2])
    assert len(seen) == 1
    found, parts = gradients(base, Private(**QUICK, loss=loss, pass_tokens=most), tasks, [3, 1, 2])
    assert 1 < len(seen[1:]) <= 6
    assert all(batch.ids.numel() <= most or len(batch.ids) == 1 for batch in seen[1:])
    torch.testing.assert_close(parts, whole, atol=1e-5 * float(whole.abs().max()), rtol=1e-5)
    torch.testing.assert_close(found, losses)


def test_tasks_that_are_mixed_may_come_in_several_passes(base, toy, tmp_path):
    options, tasks = {**QUICK, "steps": 2, "n_skills": 2}, toy.only(["copy", "swap", "upper"])
    whole, parts = (
        build(Poly(**options, pass_tokens=most), tasks, base, into=tmp_path / str(most)) for most in (1000, 1)
    )
    assert {library["k0"].provenance.extra["job"] for library in (whole, parts)} == {
        whole["k0"].provenance.extra["job"]
    }
    for site, weights in read_experts(whole)["k0"].items():
        torch.testing.assert_close(read_experts(parts)["k0"][site].b, weights.b, atol=1e-5, rtol=1e-3)


def test_a_pack_is_as_large_as_a_step_may_have_tokens(base, toy):
    jobs = Private(**QUICK).plan(toy)
    width = {job.name: job.typical_length(base) for job in jobs}
    for limit in (1, 80, 512):
        packs = Private(**QUICK, pack_tokens=limit).packs(jobs, base)
        assert sorted(job.name for pack in packs for job in pack) == sorted(width)
        assert all(len(pack) == 1 or len(pack) * 2 * max(width[j.name] for j in pack) <= limit for pack in packs)
        assert [len(pack) for pack in packs] == [
            len(p) for p in Private(**QUICK, pack_tokens=limit).packs(jobs[::-1], base)
        ]
    assert len(Private(**QUICK, pack_tokens=1).packs(jobs, base)) == len(jobs)
    assert len(Private(**QUICK).packs(jobs, base)) < len(Private(**QUICK, pack_tokens=80).packs(jobs, base)) < len(jobs)


def test_what_shares_a_pack_is_told_and_is_no_other_expert(base, toy, tmp_path):
    tasks = toy.only(["copy", "swap"])
    options = {**QUICK, "steps": 2}
    made = build(Private(**options), tasks, base, into=tmp_path / "lib")
    apart = build(Private(**options, pack_tokens=1), tasks, base, into=tmp_path / "apart")
    told = [library["copy"].provenance for library in (made, apart)]
    assert [facts.builder["pack_tokens"] for facts in told] == [512, 1]
    assert [facts.builder["pass_tokens"] for facts in told] == [1024, 1024]
    assert told[0].extra["job"] == told[1].extra["job"]
    steps = []
    build(Private(**options, pack_tokens=1), tasks, base, into=tmp_path / "lib", report=steps.append)
    assert steps == [], "its experts stand"


def losses_of(scripts):
    """A stand-in for the validation: what each expert's losses are, evaluation by evaluation, the start's first."""
    turn = iter(range(99))

    def measure(run, live):
        now = next(turn)
        return [scripts[run.trainable.pupils[i].name][now] for i in live]

    return measure


def test_who_stops_early_leaves_the_batch_and_the_others_go_on(base, toy, tmp_path, monkeypatch):
    scripts = {"copy": [9, 1, 2, 3, 0], "swap": [9, 4, 3, 2, 1]}
    builder, tasks = Private(**QUICK, patience=2), toy.only(["copy", "swap"])
    widths, step = [], training._step
    monkeypatch.setattr(training, "_step", lambda run, n, live: widths.append(len(live)) or step(run, n, live))
    monkeypatch.setattr(training, "_valid_losses", losses_of(scripts))
    told = []
    library = build(builder, tasks, base, into=tmp_path / "lib", report=told.append)
    assert widths == [2] * 6 + [1] * 2
    assert library["copy"].provenance.metrics == {"valid_loss": 1.0, "best_step": 2.0}
    assert library["swap"].provenance.metrics == {"valid_loss": 1.0, "best_step": 8.0}
    curve = [json.loads(line) for line in (library["copy"].directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve] == list(range(7))
    assert [t.step for t in told if t.job == "copy"] == [1, 2, 3, 4, 5, 8], "bars are full when it has stopped"

    monkeypatch.setattr(training, "_valid_losses", losses_of(scripts))
    alone = build(builder, tasks.only(["swap"]), base, into=tmp_path / "alone")
    for site, weights in read_experts(alone)["swap"].items():
        torch.testing.assert_close(read_experts(library)["swap"][site].b, weights.b, atol=1e-5, rtol=1e-4)


def test_when_all_have_stopped_the_run_ends(base, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_valid_losses", losses_of({"copy": [9, 1, 2, 3, 4]}))
    told = []
    build(Private(**QUICK, patience=1), toy.only(["copy"]), base, into=tmp_path / "lib", report=told.append)
    assert [t.step for t in told] == [1, 2, 3, 8]


@pytest.mark.parametrize("step", [3, 5, 7])
def test_an_early_stop_survives_a_kill(base, toy, tmp_path, monkeypatch, step):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    builder, tasks = (
        Private(**{**QUICK, "lr": 0.3, "steps": 12, "n_evaluations": 6}, patience=1),
        toy.only(["copy", "swap"]),
    )
    whole = build(builder, tasks, base, into=tmp_path / "whole" / "lib")
    lengths = {n: len((whole[n].directory / "metrics.jsonl").read_text().splitlines()) for n in tasks}
    assert min(lengths.values()) < max(lengths.values()), "one stops before the other"

    def die(reached):
        if reached.step == step:
            raise Killed

    with pytest.raises(Killed):
        build(builder, tasks, base, into=tmp_path / "cut" / "lib", report=die)
    resumed = build(builder, tasks, base, into=tmp_path / "cut" / "lib")
    assert files_of(resumed.path) == files_of(whole.path)


# ---- one of a pack fails -------------------------------------------------------------------------


LONG = Example("q", "y" * 600, "bad")
TURNS = Example("", "a", "bad", messages=(Message("user", "hi"),))


BAD = {
    "a long valid row": ((), (LONG,), "E-LENGTH"),
    "a long row among those that are measured": ((LONG,), (), "E-LENGTH"),
    "a long row behind them": ((*(Example("q", "y", "bad") for _ in range(200)), LONG), (), "E-LENGTH"),
    "turns without a template": ((TURNS,), (), "E-CHAT"),
}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        *(("private", why) for why in BAD),
        *((spec, why) for spec in ("phatgoose", "from_expert", "pi_tuning") for why in list(BAD)[1::2]),
    ],
)
def test_data_that_the_base_cannot_be_given_fails_alone(base, toy, tmp_path, spec, why):
    """The others become what they become without it, to the byte."""
    train, valid, code = BAD[why]
    good, own = toy.only(["copy", "swap"]), toy.only(["join"])
    bad = Task("bad", (*toy["copy"].train, *train), valid)
    names = ["copy", "swap", "bad"] if spec == "phatgoose" else ["join"]
    source = random_library(tmp_path / "source", base, names, ranks=2)

    def make(tasks, into, from_library):
        known = own.values() if spec == "pi_tuning" else ()
        builder = BUILDERS.parse(f"{spec}:steps=4,batch_size=2,n_evaluations=2,lr=0.01,pack_tokens=1000000")
        return build(builder, Tasks([*tasks, *known]), base, source=from_library, into=tmp_path / into / "lib")

    with pytest.raises(ModelError, match=rf"^error\[{code}\] expert 'bad': "):
        make([*good.values(), bad], "all", source)
    if spec == "phatgoose":
        source.remove("bad")
    alone = make(good.values(), "alone", source)
    left = Library.open(tmp_path / "all" / "lib")
    assert sorted(left) == ["copy", "swap"] and left.hash == alone.hash


@pytest.fixture
def diverging(monkeypatch):
    """Let the loss of the second of three pupils be no number from its third step on."""
    gradients, steps = training._gradients, []

    def spoil(run, rows, *rest):
        losses = gradients(run, rows, *rest)
        steps.append(sorted({row.owner for row in rows}))
        if len(steps) >= 3 and 1 in steps[-1] and len(run.curves) == 3:
            losses[1] = torch.nan
            for stack in run.trainable.stacks.values():
                stack.grad[1] = torch.nan
        return losses

    monkeypatch.setattr(training, "_gradients", spoil)
    return steps


def test_who_diverges_leaves_the_batch_and_the_others_go_on(base, toy, tmp_path, diverging):
    builder, tasks = Private(**{**QUICK, "pack_tokens": 10**6}), toy.only(["copy", "swap", "upper"])
    (names,) = [[job.name for job in pack] for pack in builder.packs(builder.plan(tasks), base)]
    with pytest.raises(BuildError) as caught:
        build(builder, tasks, base, into=tmp_path / "lib")
    assert str(caught.value) == f"error[E-DIVERGED] expert {names[1]!r}: the loss is nan at step 3. Lower lr=0.01."
    assert diverging == [[0, 1, 2]] * 3 + [[0, 2]] * 5
    found = read_experts(Library.open(tmp_path / "lib"))
    others = tasks.only([names[0], names[2]])
    for name, weights in read_experts(build(Private(**QUICK), others, base, into=tmp_path / "alone")).items():
        for site in weights:
            torch.testing.assert_close(found[name][site].b, weights[site].b, atol=1e-5, rtol=1e-4)
    steps = len(diverging)
    with pytest.raises(BuildError, match="E-DIVERGED"):
        build(builder, tasks, base, into=tmp_path / "lib")
    assert len(diverging) == steps, "what is known isn't tried again"


def test_a_validation_loss_that_is_no_number_is_a_divergence(base, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_valid_losses", losses_of({"copy": [9, math.nan], "swap": [9, 1, 2, 3, 4]}))
    builder = Private(**{**QUICK, "pack_tokens": 10**6})
    with pytest.raises(
        BuildError, match=r"^error\[E-DIVERGED\] expert 'copy': the validation loss is nan at step 2\. "
    ):
        build(builder, toy.only(["copy", "swap"]), base, into=tmp_path / "lib")
    assert sorted(Library.open(tmp_path / "lib")) == ["swap"]


def test_a_stack_s_parameters_are_views_and_their_gradients_arrive():
    p, q = (torch.nn.Parameter(torch.arange(float(n)).view(2, -1)) for n in (6, 4))
    stack = Stack([p, q], 2, lr=1.0)
    assert torch.equal(stack.values, torch.tensor([[0.0, 1, 2, 0, 1], [3, 4, 5, 2, 3]]))
    (p.sum() + 2 * q[1].sum()).backward()
    assert torch.equal(stack.grad, torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 2, 2]]))
    norms = clip([stack], 1.0)
    torch.testing.assert_close(norms, torch.tensor([3.0, 11.0]).sqrt())
    torch.testing.assert_close(stack.grad.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    stack.values.data.zero_()
    assert not p.any()
    stack.keep(1)
    stack.restore()
    assert torch.equal(p, torch.tensor([[0.0, 1, 2], [0, 0, 0]]))


def test_dropout_must_leave_something():
    with pytest.raises(OptionError) as caught:
        Private(dropout=1.0)
    assert str(caught.value) == "error[E-OPTION] private: dropout=1.0, expected 0 or more, below 1."


def test_experts_start_from_one_a_or_each_from_its_own(base, toy, tmp_path):
    """Who trains with whom decides nothing: what it starts from follows from its name."""
    tasks = toy.only(["copy", "swap"])
    options = {"steps": 1, "batch_size": 2, "lr": 1e-9, "dropout": 0.0}
    starts = {}
    for name, builder, some in [
        ("one", Private(**options), tasks),
        ("own", Private(**options, own_start=True), tasks),
        ("alone", Private(**options, own_start=True), tasks.only(["swap"])),
    ]:
        made = build(builder, some, base, into=tmp_path / name)
        starts[name] = {task: next(iter(read_weights(expert).values())).a for task, expert in made.items()}
    assert torch.allclose(starts["one"]["copy"], starts["one"]["swap"], atol=1e-6)
    assert not torch.allclose(starts["own"]["copy"], starts["own"]["swap"], atol=1e-2)
    assert torch.allclose(starts["own"]["swap"], starts["alone"]["swap"], atol=1e-6)
