"""What is built on another device is what is built here, up to rounding; no step waits for it, or for more memory."""

import json

import pytest
import torch

import lorary as lo
from lorary.adapters.packed import InputDropout, Rows
from lorary.building.training import loop as training
from lorary.errors import ModelError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.testing.far_device import FAR
from lorary.testing.pico import random_library

QUICK = "steps=3,batch_size=2,n_evaluations=1,lr=0.01"


def same(one, other):
    found, expected = (read_experts(Library.open(path)) for path in (one, other))
    assert found.keys() == expected.keys()
    for name, sites in expected.items():
        for site, weights in sites.items():
            torch.testing.assert_close(found[name][site].a, weights.a, atol=1e-5, rtol=1e-3)
            torch.testing.assert_close(found[name][site].b, weights.b, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_a_pack_learns_the_same_there(near_and_far, toy, tmp_path):
    for i, base in enumerate(near_and_far):
        options = f"private:{QUICK},rank=2,dropout=0,pack_tokens=100000"
        lo.build(options, toy.only(["copy", "swap"]), base, into=tmp_path / str(i))
    same(tmp_path / "1", tmp_path / "0")
    near, far = (Library.open(tmp_path / str(i))["swap"].provenance.metrics for i in (0, 1))
    assert far == pytest.approx(near, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["poly", "mhr:n_heads=2", "shared", "phatgoose", "switch", "lorahub"])
def test_every_way_to_learn_learns_the_same_there(builder, near_and_far, toy, tmp_path):
    tasks = toy.only(["copy", "swap"])
    source = random_library(tmp_path / "source", near_and_far[0], list(tasks), ranks=2)
    learns = {"phatgoose": QUICK, "switch": QUICK, "lorahub": "steps=3"}.get(builder)
    spec = f"{builder}:{learns}" if learns else f"{builder}{',' if ':' in builder else ':'}{QUICK},rank=2,dropout=0"
    for i, base in enumerate(near_and_far):
        lo.build(spec, tasks, base, source=source if learns else None, into=tmp_path / str(i))
    same(tmp_path / "1", tmp_path / "0")


def waits_of(near_and_far, toy, traffic, monkeypatch, place, spec):
    """Count what a whole step waits for, the third of a run."""
    step, found = training._step, []

    def counted(*args):
        traffic.forget()
        step(*args)
        found.append((dict(traffic.waits), traffic.sent))

    monkeypatch.setattr(training, "_step", counted)
    lo.build(spec, toy.only(["copy", "swap"]), near_and_far[1], into=place)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_a_step_waits_only_for_the_one_before(dropout, near_and_far, toy, traffic, monkeypatch, tmp_path):
    spec = f"private:{QUICK},rank=2,dropout={dropout},pack_tokens=100000"
    first, *others = waits_of(near_and_far, toy, traffic, monkeypatch, tmp_path / "lib", spec)
    assert first == ({}, 0)
    assert others == [({"_to_copy": 2}, 0)] * 2  # losses and norms of the step before
    lines = (Library.open(tmp_path / "lib")["copy"].directory / "metrics.jsonl").read_text().splitlines()
    assert [row["step"] for row in map(json.loads, lines) if "loss" in row] == [1, 2, 3]


def test_masks_of_dropout_are_made_there(traffic):
    drops = []
    for n_rows, n_tokens in ((3, 40), (1, 40), (3, 50)):
        rows = Rows(place=torch.arange(n_rows).to(FAR))
        dropout = InputDropout(0.25, 3, rows)
        dropout.start(7)
        traffic.forget()
        found = [dropout(torch.ones(n_rows, n_tokens, 64, device=FAR)) for _ in range(2)]
        assert not traffic.waits and not traffic.sent
        drops.append([mask.cpu() for mask in found])
    (mask, other), (alone, _), (longer, _) = drops
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (mask == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert (mask != other).float().mean() > 0.3  # each site has its own
    assert torch.equal(alone[0], mask[0]) and torch.equal(longer[:, 10:], mask)


@pytest.fixture
def little_memory(monkeypatch):
    """Let memory hold so many tokens of a pass that learns, and note the passes."""
    losses, passes = training.row_losses, []

    def limited(base, batch):
        if torch.is_grad_enabled():
            passes.append(batch.ids.numel())
            if passes[-1] > limited.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses(base, batch)

    monkeypatch.setattr(training, "row_losses", limited)
    limited.passes = passes
    return limited


@pytest.mark.slow
def test_a_build_goes_on_in_passes_that_memory_holds(base, toy, little_memory, tmp_path):
    tasks, spec = toy.only(["copy"]), f"private:{QUICK},rank=2,dropout=0"
    spec = spec.replace("batch_size=2", "batch_size=4")
    little_memory.most = 10**6
    lo.build(spec, tasks, base, into=tmp_path / "whole")
    widest = max(little_memory.passes)
    little_memory.most = widest - 1
    little_memory.passes.clear()
    with pytest.warns(RuntimeWarning, match=r"^warning\[W-MEMORY\] a pass of .* tokens needs more memory than is free"):
        lo.build(spec, tasks, base, into=tmp_path / "parts")
    assert sum(n > little_memory.most for n in little_memory.passes) == 1  # tried once
    same(tmp_path / "parts", tmp_path / "whole")


def test_a_row_that_memory_does_not_hold_is_refused(base, toy, little_memory, tmp_path):
    little_memory.most = 1
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ModelError, match=r"^error\[E-MEMORY\] a text of \d+ tokens needs"),
    ):
        lo.build(f"private:{QUICK},rank=2", toy.only(["copy"]), base, into=tmp_path / "lib")
