"""Adaptation: what each method starts from, what it changes, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lorary.adapters.contract import Site, Weights
from lorary.adapters.lora import LoRA
from lorary.building.build import build
from lorary.building.builders.from_expert import FromExpert
from lorary.building.builders.lib_mu import LibMu
from lorary.building.builders.lib_poly import LibPoly
from lorary.building.builders.lib_polyz import LibPolyZ
from lorary.building.training.adaptation import form_of, mean_factors
from lorary.errors import AdapterError, BuildError, LibraryError, ModelError, OptionError
from lorary.formats.peft import read_experts
from lorary.hashing import hash_file
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.tasks.example import Example
from lorary.testing.pico import add_expert, pico_base, random_library, random_weights

QUICK = {"steps": 8, "batch_size": 4, "n_evaluations": 2, "dropout": 0.0, "lr": 3e-3}
SITE = Site("q", 2, 2)


@pytest.fixture(scope="module")
def source(_pico, tmp_path_factory):
    """Three experts of one rank; small ones, so that their mean is a start worth having."""
    library = Library.create(tmp_path_factory.mktemp("source") / "lib", base=_pico.fingerprint)
    for i, (name, alpha) in enumerate((("one", 4.0), ("two", 4.0), ("three", 8.0))):
        kind = LoRA(rank=2, alpha=alpha)
        add_expert(library, name, _pico, kind, random_weights(kind, _pico.target_sites(["attention"]), seed=i))
    return library


def first_loss(library, name):
    path = library[name].directory / "metrics.jsonl"
    return json.loads(path.read_text().splitlines()[0])["valid_loss"]


def loss(base, library, router, task, name=""):
    examples = [Example(e.prompt, e.completion, name or task.name) for e in task.valid]
    with route(base, library, router, mix="factors") as model:
        scores = model.log_likelihood(examples)
    return -sum(s.nats for s in scores) / sum(s.n_tokens for s in scores)


# ---- starts -------------------------------------------------------------------------------------


def test_the_mean_by_hand():
    """A: (1, 2) and (5, -2) give (3, 0). B: s = 1 and (1, 3), s = 2 and (-1, 1): (1 - 2, 3 + 2) / 2 = (-1/2, 5/2).

    A third expert, absent here, makes them (2, 0) and (-1/3, 5/3): it counts and adds nothing.
    """
    one = Weights(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]]), scale=1.0)
    two = Weights(torch.tensor([[5.0, -2.0]]), torch.tensor([[-1.0], [1.0]]), scale=2.0)
    mean = mean_factors({"one": {"q": one}, "two": {"q": two}})["q"]
    assert mean.a.tolist() == [[3.0, 0.0]] and (mean.scale * mean.b).tolist() == [[-0.5], [2.5]]
    mean = mean_factors({"one": {"q": one}, "three": {}, "two": {"q": two}})["q"]
    assert mean.a.tolist() == [[2.0, 0.0]]
    torch.testing.assert_close(mean.scale * mean.b, torch.tensor([[-1.0], [5.0]]) / 3)


def test_one_expert_is_its_own_mean():
    weights = {"q": random_weights(LoRA(rank=3), [SITE], seed=1)["q"]}
    mean = mean_factors({"one": weights})["q"]
    assert torch.equal(mean.a, weights["q"].a) and torch.equal(mean.b, weights["q"].b)


def test_lib_mu_starts_where_uniform_stands(base, toy, source, tmp_path):
    tasks = toy.only(["copy", "swap"])
    library = build(LibMu(**QUICK), tasks, base, into=tmp_path / "lib", source=source)
    assert list(library) == ["copy", "swap"] and library["copy"].rank == 2
    for name in tasks:
        assert first_loss(library, name) == pytest.approx(loss(base, source, "uniform", tasks[name]), rel=1e-4)
        assert library[name].provenance.metrics["valid_loss"] < first_loss(library, name)


def test_from_expert_starts_where_that_expert_stands(base, toy, source, tmp_path):
    library = build(FromExpert(**QUICK, expert="two"), toy.only(["copy"]), base, into=tmp_path / "lib", source=source)
    alone = Library.create(tmp_path / "alone", base=base.fingerprint)
    alone.add(source["two"].directory, "two")
    assert first_loss(library, "copy") == pytest.approx(loss(base, alone, "uniform", toy["copy"]), rel=1e-4)
    assert library["copy"].provenance.parents == (f"two@{source['two'].hash[:12]}",)
    assert library["copy"].provenance.builder["expert"] == "two"


def test_the_only_expert_needs_no_name(base, toy, tmp_path):
    source = random_library(tmp_path / "source", base, ["shared"])
    (job,) = FromExpert(**QUICK).plan(toy.only(["copy"]), source)
    assert job.start == ("shared",)


@pytest.mark.slow
def test_lib_poly_starts_at_the_mean_and_changes_everything(base, toy, source, tmp_path):
    tasks = toy.only(["copy", "swap"])
    library = build(LibPoly(**QUICK), tasks, base, into=tmp_path / "lib", source=source)
    before, after = read_experts(source), read_experts(library)
    assert list(library) == list(source)
    assert all(not torch.equal(before[n][s].b, after[n][s].b) for n in before for s in before[n])
    assert library["three"].scales == source["three"].scales
    found = [loss(base, library, "poly", tasks[name]) for name in tasks]
    assert sum(found) / 2 < first_loss(library, "one")
    # Logits start within 1e-3, so shares within 1e-3 of 1/3.
    mean = [loss(base, source, "uniform", tasks[name]) for name in tasks]
    assert min(mean) * 0.98 < first_loss(library, "one") < max(mean) * 1.02


@pytest.mark.slow
def test_lib_polyz_learns_to_mix_and_leaves_the_experts(base, toy, source, tmp_path):
    tasks = toy.only(["copy"])
    library = build(LibPolyZ(**{**QUICK, "steps": 40}), tasks, base, into=tmp_path / "lib", source=source)
    for name in source:
        assert hash_file(library[name].weights_path) == hash_file(source[name].weights_path)
        assert library[name].provenance.tasks == ("copy",)
        assert library[name].provenance.parents == tuple(f"{n}@{source[n].hash[:12]}" for n in source)
    assert loss(base, library, "poly", tasks["copy"]) == pytest.approx(
        library["one"].provenance.metrics["valid_loss"], rel=1e-4
    )
    assert loss(base, library, "poly", tasks["copy"]) < loss(base, source, "uniform", tasks["copy"])


def test_the_source_decides_the_job(toy, source, base, tmp_path):
    other = random_library(tmp_path / "other", base, ["one", "two"], ranks=2)
    keys = {LibMu().plan(toy.only(["copy"]), library)[0].key({}) for library in (source, other)}
    assert len(keys) == 2


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("builder", [LibPoly, LibPolyZ])
@pytest.mark.parametrize("more", [{"raw": True}, {"n_heads": 4}])
def test_raw_weights_and_blocks_are_those_that_the_router_reads(builder, more, base, toy, source, tmp_path):
    tasks = toy.only(["copy"])
    options = {**QUICK, "steps": 6, "routing_lr": 0.05, **more}
    library = build(builder(**options), tasks, base, into=tmp_path / "lib", source=source)
    router, (path,) = "mhr" if "n_heads" in more else "poly", (library.path / "learned").iterdir()
    assert path.name.startswith(f"{router}-")
    found = loss(base, library, router, tasks["copy"])
    assert found == pytest.approx(library["one"].provenance.metrics["valid_loss"], rel=1e-4)
    weights = {k: t for k, t in load_file(path).items() if k != "tasks"}
    assert {tuple(t.shape) for t in weights.values()} == {(1, more.get("n_heads", 1), 3)}
    assert {k.rpartition(".")[2] for k in weights} == {"weights" if "raw" in more else "logits"}


def test_raw_weights_mix_as_they_are(base, toy, source, tmp_path):
    """(sum w s B)(sum w A) at every site, added to a fresh base."""
    options = {**QUICK, "steps": 20, "routing_lr": 0.3, "raw": True}
    library = build(LibPolyZ(**options), toy.only(["copy"]), base, into=tmp_path / "lib", source=source)
    (path,) = (library.path / "learned").iterdir()
    weights, experts, fresh = load_file(path), read_experts(library), pico_base()
    ids = torch.tensor([[5, 6, 7]])
    with route(base, library, "poly", mix="factors") as model, torch.inference_mode():
        found = model(ids, tasks=["copy"]).logits
        plain = fresh.hf(ids).logits
    for site in experts["one"]:
        w = weights[f"{site}.weights"].flatten()
        pairs = [experts[name][site].factors() for name in sorted(experts)]
        a, b = (sum(x * side for x, side in zip(w, sides, strict=True)) for sides in zip(*pairs, strict=True))
        fresh.hf.get_submodule(site).weight.data.add_(b @ a)
    with torch.inference_mode():
        torch.testing.assert_close(found, fresh.hf(ids).logits, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("builder", [LibMu, FromExpert, LibPoly, LibPolyZ])
def test_a_source_is_needed(builder, toy, base, tmp_path):
    name = builder.__module__.rpartition(".")[2]
    with pytest.raises(BuildError) as caught:
        builder().plan(toy)
    assert str(caught.value) == f"error[E-SOURCE] {name} starts from a library. Pass source=..., or --from LIBRARY."
    empty = Library.create(tmp_path / "empty", base=base.fingerprint)
    with pytest.raises(LibraryError, match=rf"^error\[E-EMPTY\] {name}: library '.*empty' holds no experts\."):
        builder().plan(toy, empty)


def test_several_experts_need_a_name(toy, source):
    with pytest.raises(OptionError) as caught:
        FromExpert().plan(toy, source)
    assert str(caught.value) == (
        "error[E-OPTION] from_expert: the library holds 3 experts. Write from_expert:expert=NAME."
    )
    with pytest.raises(OptionError, match=r"^error\[E-NAME\] unknown expert \"?'?fuor"):
        FromExpert(expert="fuor").plan(toy, source)


@pytest.mark.parametrize("builder", [LibMu, LibPoly, LibPolyZ])
def test_unequal_ranks_are_refused(builder, base, toy, tmp_path):
    source = random_library(tmp_path / "source", base, 2, ranks=(2, 3))
    with pytest.raises(AdapterError, match=r"^error\[E-RANK\] expert 'e1': rank 3 at "):
        build(builder(**QUICK), toy.only(["copy"]), base, into=tmp_path / "lib", source=source)


def test_patterns_are_refused():
    weights = {"a": Weights(torch.zeros(2, 3), torch.zeros(3, 2), 1.0)}
    weights["b"] = Weights(torch.zeros(1, 3), torch.zeros(3, 1), 4.0)
    with pytest.raises(AdapterError) as caught:
        form_of("expert 'x'", weights)
    assert str(caught.value) == (
        "error[E-RANK] expert 'x' has ranks and scales [(1, 4.0), (2, 1.0)] at its sites, expected one of each. "
        "Start from experts without rank or alpha patterns."
    )


def test_a_source_of_another_base_is_refused(base, toy, tmp_path):
    source = Library.create(tmp_path / "source", base={**base.fingerprint, "weights": "other"})
    kind = LoRA(rank=2)
    with source.stage("one") as stage:
        from lorary.formats.peft import write_weights

        write_weights(stage, kind, random_weights(kind, base.target_sites(["attention"]), seed=1), base_name="b")
    with pytest.raises(ModelError, match=r"^error\[E-BASE\] "):
        build(LibMu(**QUICK), toy.only(["copy"]), base, into=tmp_path / "lib", source=source)
