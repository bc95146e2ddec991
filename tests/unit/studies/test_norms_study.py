"""The study of norms, on a pico base: against norms that are computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lorary.adapters.lora import LoRA
from lorary.errors import TaskError
from lorary.formats.peft import open_experts
from lorary.model.sites import input_hooks
from lorary.model.text.tokens import pad
from lorary.studies.contract import GIVEN, Results, Subject
from lorary.studies.measuring.norms import Norms, compare_norms
from lorary.studies.questions.norms import NormStudy
from lorary.studies.run_study import run_study
from lorary.testing.pico import random_library, random_weights


@pytest.fixture
def weights(base):
    """An expert at all layers of attention."""
    return random_weights(LoRA(rank=2), base.target_sites(("attention",)), seed=1)


def louder(weights, times):
    return {site: replace(w, b=w.b * times) for site, w in weights.items()}


def test_an_expert_that_answers_twice_as_loud_is_twice_as_large(base, weights, toy):
    examples = toy["copy"].test
    experts = {"one": weights, "two": louder(weights, 2)}
    quiet = compare_norms(base, experts, "one", "copy", examples, seed=0)
    loud = compare_norms(base, experts, "two", "copy", examples, seed=0)
    assert quiet.adapter == pytest.approx([0.5] * len(examples), rel=1e-5)
    assert loud.adapter == pytest.approx([2.0] * len(examples), rel=1e-5)
    assert loud.adapter_log == pytest.approx([np.log(2)] * len(examples), rel=1e-5)
    assert all(0.5 < ratio < 2 and ratio != 1 for ratio in (*quiet.layer, *loud.layer))


def test_ratios_are_those_computed_by_hand(base, toy):
    site = base.target_sites(("q_proj",))[0]  # its input hangs on no adapter
    one, two = (random_weights(LoRA(rank=2), [site], seed=seed) for seed in (1, 2))
    (example,) = examples = toy["swap"].test[:1]
    found = compare_norms(base, {"a": one, "b": two}, "a", "swap", examples, seed=0)
    heard = []
    batch = pad(base.encode(examples))
    with input_hooks(base.hf, {site.name: lambda _, args: heard.append(args[0])}), torch.no_grad():
        base.hf(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions)
    h = heard[0][0]
    layer = base.hf.get_submodule(site.name)(h).detach()
    added = [h @ w[site.name].delta().T for w in (one, two)]

    def size(y):
        return y.norm(dim=1).mean().item()

    assert found.adapter == pytest.approx([size(added[0]) / size(added[1])], rel=1e-4)
    assert found.layer == pytest.approx([size(layer + added[0]) / size(layer + added[1])], rel=1e-4)
    assert example.task == "swap"


def test_padding_and_company_change_nothing(base, weights, toy):
    examples = [*toy["copy"].test[:2], *toy["swap"].test[:1]]
    experts = {"a": weights, "b": random_weights(LoRA(rank=2), base.target_sites(("attention",)), seed=2)}
    together = compare_norms(base, experts, "a", "t", examples, seed=0)
    (alone,) = compare_norms(base, experts, "a", "t", examples[:1], seed=0).adapter
    assert together.adapter[0] == pytest.approx(alone, rel=1e-5)


def test_another_expert_is_drawn_at_each_layer_and_example(base, weights, toy):
    experts = {"own": weights, **{f"x{i}": louder(weights, times) for i, times in enumerate((1, 3, 9))}}
    found = compare_norms(base, experts, "own", "copy", toy["copy"].test, seed=0)
    assert len(set(found.adapter)) == len(found.adapter)
    assert all(1 / 9 < ratio < 1 for ratio in found.adapter)
    assert found == compare_norms(base, experts, "own", "copy", toy["copy"].test, seed=0)
    assert found != compare_norms(base, experts, "own", "copy", toy["copy"].test, seed=1)


def norms(task, logs):
    ratios = tuple(np.exp(logs).tolist())
    return Norms(task, ratios, ratios, tuple(logs), tuple(logs))


@pytest.mark.parametrize(("shift", "holds"), [(0.4, True), (-0.4, False), (0.0, None)])
def test_it_judges_by_the_geometric_mean(shift, holds):
    """Where ratios are drawn alike, their mean is above 1 by far: that would be no finding."""
    logs = [shift + value for value in np.linspace(-1.5, 1.5, 40)]
    results = Results({}, [{"measures/norms000.json": norms("a", logs), "measures/norms001.json": norms("b", logs)}])
    study = NormStudy()
    verdicts = study.judge(results)
    assert [verdict.holds for verdict in verdicts] == [holds, holds]
    assert [verdict.only_in_sign for verdict in verdicts] == [bool(holds)] * 2, "two tasks say nothing of others"
    assert [verdict.claim.partition(":")[0] for verdict in verdicts] == ["C2", "C2 (adapter)"]
    assert verdicts[0].interval[0] == pytest.approx(np.expm1(shift))
    whole, each = study.tables(results, "x")
    mean, geometric, share = whole.rows[0].cells
    assert mean.mean == pytest.approx(100 * (np.mean(np.exp(logs)) - 1))
    assert geometric.mean == pytest.approx(100 * np.expm1(shift))
    assert share.mean == pytest.approx(100 * np.mean(np.array(logs) > 0))
    assert [row.name for row in each.rows] == ["a", "b"]


def test_what_lies_above_1_by_a_thousandth_is_told():
    """As of a layer with its adapter it does: 1.000 [1.000, 1.000] would say nothing."""
    results = Results({}, [{"measures/norms000.json": norms("a", [4.1e-4, 4.3e-4] * 20)}])
    (layer, _) = NormStudy().judge(results)
    assert "ratio beside 1: +0.042 % [+0.0417, +0.0423] (geometric mean), +0.042 % (mean)" in layer.numbers
    assert "0.042 [0.042, 0.042]" in NormStudy().tables(results, "x")[0].to_markdown()


@pytest.mark.slow
def test_it_takes_the_library_that_it_is_given(base, toy, tmp_path):
    own = ["copy", "swap"]
    library = random_library(tmp_path / "lib", base, own, ranks=2)
    subject = Subject(toy.only(own), toy.only([]), library)
    assert not NormStudy().plan(subject).builds
    assert {path for one in NormStudy().plan(subject).measures for path in one.libraries} == {GIVEN}
    done = run_study(NormStudy(limit=2), subject, base, into=tmp_path / "run")
    experts = open_experts(library)
    expected = compare_norms(base, experts, "copy", "copy", toy["copy"].test[:2], seed=42)
    assert done.tables[1].rows[0].cells[0].mean == pytest.approx(100 * np.expm1(np.mean(expected.adapter_log)))


def test_one_expert_is_too_few(toy):
    with pytest.raises(TaskError) as caught:
        NormStudy().plan(Subject(toy.only(["copy"]), toy.only([])))
    assert caught.value.code == "E-TASK"
