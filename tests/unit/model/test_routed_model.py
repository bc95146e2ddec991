"""A library on a base: who may speak, what is refused, what is kept, what is told."""

import shutil

import pytest
import torch

from lorary.errors import LibraryError, OptionError, RoutingError
from lorary.library.library import Library
from lorary.model.route import route
from lorary.routing.routers.arrow import Arrow
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base, random_library

IDS = torch.arange(2, 26).view(3, 8)


def logits(model, **options):
    with torch.inference_mode():
        return model(IDS, **options).logits


def alone(base, library, name, path):
    lone = Library.create(path / name, base=base.fingerprint)
    lone.add(library[name].directory, name)
    with route(base, lone, "uniform") as model:
        return logits(model)


# ---- the oracle ---------------------------------------------------------------------------------


def test_the_oracle_lets_each_row_s_own_expert_speak(base, toy_library, tmp_path):
    expected = {name: alone(base, toy_library, name, tmp_path) for name in toy_library}
    tasks = ["last", "copy", "first"]
    with route(base, toy_library, "oracle") as model:
        found = logits(model, tasks=tasks)
    for row, task in enumerate(tasks):
        torch.testing.assert_close(found[row], expected[task][row], atol=1e-5, rtol=1e-5)


def test_the_oracle_follows_a_beam_search(base, toy_library):
    tasks = ["last", "copy", "first"]
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False}
    with route(base, toy_library, "oracle") as model:
        together = model.generate(IDS, tasks=tasks, **options)
        for row, task in enumerate(tasks):
            found = model.generate(IDS[row : row + 1], tasks=[task], **options)[0]
            assert together[row].tolist()[: len(found)] == found.tolist()


def test_an_unknown_task_has_no_oracle(base, toy_library):
    with route(base, toy_library, "oracle") as model:
        with pytest.raises(RoutingError) as caught:
            model.log_likelihood([Example("x", "y", "poems")])
        assert str(caught.value) == (
            "error[E-TASK] no expert was trained on task 'poems', so 'oracle' can't choose one. "
            "Use a router that doesn't need the task."
        )
        with pytest.raises(RoutingError) as caught:
            model(IDS)
        assert str(caught.value) == (
            "error[E-TASK] the oracle needs the task of every row. Pass tasks=[...], or examples."
        )


# ---- refusals -----------------------------------------------------------------------------------


def test_an_empty_library_is_refused(base, tmp_path):
    with pytest.raises(LibraryError) as caught:
        route(base, Library.create(tmp_path / "lib"), "arrow")
    assert str(caught.value) == (
        f"error[E-EMPTY] library '{tmp_path / 'lib'}' holds no experts. Add or build some first."
    )


def test_a_library_of_another_base_is_refused(toy_library):
    with pytest.raises(LibraryError) as caught:
        route(pico_base(seed=1), toy_library, "arrow")
    assert str(caught.value) == (
        f"error[E-BASE] library '{toy_library.path}' was made on another base: weights, embedding_signs differ. "
        "Load the base it was made on; `lorary show` names it."
    )


def test_unequal_ranks_are_refused_by_name_for_mixed_factors(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ants", "poems"], ranks=[4, 8])
    with pytest.raises(RoutingError) as caught:
        route(base, library, "arrow", mix="factors")
    assert str(caught.value) == (
        "error[E-RANK] expert 'poems': rank 8 at 'model.layers.0.self_attn.k_proj', but mix=\"factors\" needs one rank "
        "for all ('ants': 4). Use mix=\"outputs\" (--mix outputs), or bring all to one rank: "
        "`lorary build --method svd:rank=4 --from LIBRARY --into NEW`."
    )
    with route(base, library, "arrow", mix="outputs") as model:
        assert logits(model).isfinite().all()


def test_unknown_mixes_and_routers_are_refused(base, toy_library):
    with pytest.raises(OptionError) as caught:
        route(base, toy_library, "arrow", mix="output")
    assert str(caught.value) == (
        "error[E-OPTION] unknown mix 'output'. Did you mean 'outputs'? Known: factors, outputs."
    )
    with pytest.raises(
        OptionError, match=r"^error\[E-NAME\] unknown router 'arow'\. Did you mean 'arrow'\? Known: arrow,"
    ):
        route(base, toy_library, "arow")


@pytest.mark.parametrize("router", ["centroid", "task_predictor"])
def test_routers_that_need_data_say_so(router, base, toy_library, toy):
    with pytest.raises(RoutingError) as caught:
        route(base, toy_library, router)
    assert str(caught.value) == (
        f"error[E-PROBE] router '{router}' needs the tasks that the library was built from. "
        "Pass tasks=..., or on the command line --tasks DIR."
    )
    with pytest.raises(RoutingError) as caught:
        route(base, toy_library, router, tasks=toy.only(["upper", "copy"]))
    assert str(caught.value) == (
        "error[E-PROBE] expert 'double': no training examples of its tasks ['double'] were given. "
        "Pass the tasks that the library was built from."
    )


# ---- routers that read data ---------------------------------------------------------------------


def test_centroids_are_mean_inputs_of_the_last_prompt_token_with_the_expert_at_work(base, toy_library, toy, tmp_path):
    name, site = "double", "model.layers.1.mlp.down_proj"
    library = random_library(tmp_path / "lib", base, ["copy", "double"], targets=["attention", "down_proj"])
    lone = Library.create(tmp_path / "one", base=base.fingerprint)
    lone.add(library[name].directory, name)
    seen = []
    with route(base, lone, "uniform") as model, torch.inference_mode():
        hook = base.hf.get_submodule(site).register_forward_pre_hook(lambda m, args: seen.append(args[0][0, -1]))
        for example in toy[name].train[:5]:
            model(base.tokenizer(example.prompt, return_tensors="pt")["input_ids"])
        hook.remove()
    with route(base, library, "centroid:n_examples=5", tasks=toy) as model:
        gate = base.hf.get_submodule(site).gate
        torch.testing.assert_close(gate.vectors[1], torch.nn.functional.normalize(sum(seen), dim=0))
        assert logits(model).isfinite().all()


def test_the_task_predictor_knows_its_training_prompts(base, toy_library, toy):
    with route(base, toy_library, "task_predictor", tasks=toy) as model:
        found = [model.explain(toy[name].train[0], max_new_tokens=2).total() for name in toy_library]
    assert [max(shares, key=shares.get) for shares in found] == list(toy_library)


def test_the_task_predictor_reads_prompts_and_not_their_padding(base, toy_library, toy):
    prompts = [toy["copy"].test[0].prompt, toy["reverse"].test[0].prompt + " and something longer"]
    with route(base, toy_library, "task_predictor", tasks=toy) as model, torch.inference_mode():
        batch = base.tokenizer(prompts, return_tensors="pt", padding=True)
        together = model(**batch).logits[:, -1]
        alone = [model(base.tokenizer(p, return_tensors="pt")["input_ids"]).logits[0, -1] for p in prompts]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


# ---- what is kept -------------------------------------------------------------------------------


def test_the_state_is_kept_under_its_origins_and_used_again(base, toy_library, tmp_path, monkeypatch):
    library = Library.open(shutil.copytree(toy_library.path, tmp_path / "lib"))
    shutil.rmtree(library.path / "derived", ignore_errors=True)
    with route(base, library, "arrow") as model:
        first = logits(model)
    (kept,) = (library.path / "derived").iterdir()
    assert kept.name.startswith("arrow-") and kept.suffix == ".safetensors"
    with route(base, library, "arrow:top_k=2"):
        assert len(list((library.path / "derived").iterdir())) == 2
    monkeypatch.setattr(Arrow, "fit", lambda *_: pytest.fail("fitted again"))
    with route(base, library, "arrow") as model:
        assert torch.equal(logits(model), first)


def test_routing_changes_no_expert(base, toy_library, toy):
    before = {name: toy_library[name].weights_path.read_bytes() for name in toy_library}
    for router in ("arrow", "centroid", "task_predictor", "uniform", "oracle"):
        with route(base, toy_library, router, tasks=toy) as model:
            model.log_likelihood(toy["copy"].test)
    assert {name: Library.open(toy_library.path)[name].weights_path.read_bytes() for name in toy_library} == before


def test_the_identity_names_base_library_router_and_mix(base, toy_library):
    with route(base, toy_library, "arrow:top_k=2") as model:
        assert model.identity == {
            **base.identity, "library": toy_library.hash, "router": "arrow:top_k=2",
            "mix": "factors",
        }  # fmt: skip
        assert model.names == tuple(sorted(toy_library))


# ---- explain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["arrow:top_k=2", "uniform", "oracle"])
def test_a_trace_tells_every_share_of_every_token(router, base, toy_library):
    with route(base, toy_library, router) as model:
        trace = model.explain(Example("copy: a b", "", "copy"), max_new_tokens=4)
        new = model.generate_text([Example("copy: a b", "", "copy")], max_new_tokens=4)
    text = "".join(trace.tokens)
    assert text.startswith("copy: a b")
    assert text.removeprefix("copy: a b").removesuffix("<eos>").strip() == new[0]
    assert trace.sites == tuple(s.name for s in base.target_sites(["attention"]))
    assert trace.weights.shape == (len(trace.sites), len(trace.tokens), len(toy_library))
    torch.testing.assert_close(trace.weights.sum(-1), torch.ones(trace.weights.shape[:2]))
    torch.testing.assert_close(trace.shares, trace.weights.mean(0))
    assert sum(trace.total().values()) == pytest.approx(1)
    assert list(trace.total().values()) == sorted(trace.total().values(), reverse=True)
    if router == "oracle":
        assert set(trace.loudest) == {"copy"}
        assert str(trace).splitlines()[0].split() == ["'c'", "copy", "1.00"]
    if router.startswith("arrow"):
        assert ((trace.weights > 0).sum(-1) == 2).all()


def test_nothing_is_recorded_unasked(base, toy_library):
    with route(base, toy_library, "arrow") as model:
        model.explain("copy: a b", max_new_tokens=1)
        logits(model)
        assert model._attachment.slot.records is None
        assert "".join(model.explain("", max_new_tokens=1).tokens).startswith("<eos>")


def test_opening_tells_how_far_it_is(base, toy_library):
    heard = []
    with route(base, toy_library, "arrow", report=lambda done, total: heard.append((done, total))):
        n = len(toy_library) + 8  # q, k, v and o of two layers
    assert heard == [(done, n) for done in range(1, n + 1)]
