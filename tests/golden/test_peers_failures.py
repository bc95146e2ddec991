"""What fails or goes silently wrong under PEFT's Arrow (0.21.2), one test each; what other files prove is named there.

Elsewhere: a lone expert is itself under every option of PEFT (test_lone_expert), prototypes are exact
(test_arrow_golden), changes equal a model built anew (unit/model/test_edit), saved models come back to the bit
(unit/model/test_saved), routing changes no expert (unit/model/test_routed_model).
"""

import pytest
import torch
from golden_peft import answer, assert_same, ids, library_of, make_adapter, peft_answer, routed_answer

import lorary
from lorary.errors import AdapterError
from lorary.formats.peft import read_experts
from lorary.model.routed.route import route
from lorary.routing.directions import right_singular
from lorary.testing.pico import pico_base


def said(model):
    with torch.inference_mode():
        return model(ids()).logits


@pytest.fixture
def adapters(tmp_path):
    """Three plain adapters, made by PEFT."""
    for i, name in enumerate(("ant", "bee", "cat")):
        make_adapter(tmp_path / name, seed=i)
    return {name: tmp_path / name for name in ("ant", "bee", "cat")}


@pytest.fixture
def library(base, adapters, tmp_path):
    return library_of(tmp_path / "lib", base, adapters)


@pytest.mark.parametrize("after_a_forward", [False, True])
def test_an_expert_is_deleted_before_or_after_a_forward(after_a_forward, base, library, adapters, tmp_path):
    # PEFT: KeyError at the next forward.
    with route(base, library, "arrow:top_k=2") as model:
        if after_a_forward:
            said(model)
        model.remove("bee")
        found = said(model)
    two = library_of(tmp_path / "two", base, {name: adapters[name] for name in ("ant", "cat")})
    assert torch.equal(found, routed_answer(base, two, "arrow:top_k=2", mix="factors"))


def test_a_saved_routed_model_is_loaded_again(base, library, tmp_path):
    # PEFT: AttributeError, task_adapter_names is filtered out.
    with route(base, library, "arrow:top_k=2") as model:
        expected = said(model)
        model.save(tmp_path / "saved")
    with lorary.load(tmp_path / "saved", base=base) as model:
        assert torch.equal(said(model), expected)


def test_top_k_may_be_larger_than_the_library(base, adapters, tmp_path):
    # PEFT: its default of 3 fails with two experts.
    two = library_of(tmp_path / "two", base, {name: adapters[name] for name in ("ant", "bee")})
    assert torch.equal(routed_answer(base, two, "arrow:top_k=3"), routed_answer(base, two, "arrow:top_k=2"))


@pytest.mark.parametrize("mix", ["factors", "outputs"])
def test_gradients_go_through_the_router(mix, base, library):
    # PEFT: backward raises, the trainable part isn't in the graph.
    with route(base, library, "arrow:top_k=2", mix=mix) as model:
        banks = [layer.bank.requires_grad_(True) for layer in model._attachment.layers.values()]
        factors = [p for bank in banks for p in bank.parameters()]
        losses = []
        for _ in range(5):
            logits = model(ids()).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids()[:, 1:].flatten())
            loss.backward()
            losses.append(loss.item())
            assert all(p.grad is not None and p.grad.isfinite().all() for p in factors)
            with torch.no_grad():
                for p in factors:
                    p -= 0.1 * p.grad / (1 + p.grad.norm())
                    p.grad = None
        assert losses[-1] < losses[0] - 0.05
        assert not any(p.requires_grad for p in base.hf.parameters() if not any(p is f for f in factors))


@pytest.mark.slow
def test_prototypes_can_t_be_stale(base, library, tmp_path):
    # PEFT: logits off by 0.42 after an expert changed.
    make_adapter(tmp_path / "other", seed=9)
    with route(base, library, "arrow:top_k=2") as model:
        said(model)
        library.replace(tmp_path / "other", "bee")
        model.replace("bee")
        experts = read_experts(library)
        for site, layer in model._attachment.layers.items():
            expected = torch.stack([right_singular(experts[name][site])[0][0] for name in sorted(experts)])
            assert torch.equal(layer.gate.vectors, expected)
        found = said(model)
    assert torch.equal(found, routed_answer(base, library, "arrow:top_k=2", mix="factors"))


@pytest.mark.slow
def test_an_expert_of_another_rank_comes_later(base, library, tmp_path):
    # PEFT: accepted, then a crash at the next forward.
    make_adapter(tmp_path / "wide", seed=5, r=7)
    library.add(tmp_path / "wide", "wide")
    with route(base, library_without(library, "wide", tmp_path, base), "arrow:top_k=2", mix="outputs") as model:
        said(model)
        model.add(library["wide"])
        assert torch.equal(said(model), anew(library, "arrow:top_k=2", "outputs"))
    with route(base, library_without(library, "wide", tmp_path / "b", base), "arrow:top_k=2") as model:
        with pytest.raises(AdapterError, match=r"^error\[E-RANK\] expert 'wide': rank 7"):
            model.add(library["wide"])
        said(model)


def library_without(library, name, path, base):
    return library_of(path / "without", base, {other: library[other].directory for other in library if other != name})


def anew(library, router, mix):
    return routed_answer(pico_base(), library, router, mix=mix)


def test_an_extra_target_module_is_routed(base, library, tmp_path):
    # PEFT: accepted, the extra module silently isn't routed.
    make_adapter(tmp_path / "more", seed=5, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"])
    site = "model.layers.0.mlp.down_proj"
    with route(base, library, "uniform", mix="outputs") as model:
        before = said(model)
        library.add(tmp_path / "more", "more")
        model.add(library["more"])
        assert site in model._attachment.layers
        x = torch.randn(1, 3, 64)
        layer = model._attachment.layers[site]
        delta = read_experts(library)["more"][site].delta() / 4
        torch.testing.assert_close(layer(x) - layer.base(x), x @ delta.T, atol=1e-5, rtol=1e-5)
        assert not torch.equal(said(model), before)


def test_a_mixture_does_not_become_a_routed_expert(base, library, tmp_path):
    # PEFT: what add_weighted_adapter makes is silently routed to.
    with route(base, library, "arrow:top_k=2") as model:
        expected = said(model)
        lorary.export(model.experts, {"ant": 0.5, "cat": 0.5}, into=tmp_path / "mixture", mix="outputs")
        assert model.names == ("ant", "bee", "cat")
        assert torch.equal(said(model), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"q_proj": 5}},
        {"layers_to_transform": [1]},
        {"target_modules": ["v_proj"]},
        {"use_rslora": True, "lora_alpha": 3},
    ],
    ids=["rank_pattern", "few_layers", "few_targets", "rslora"],
)
def test_an_expert_of_another_make_among_plain_ones_speaks_as_under_peft(options, base, adapters, tmp_path):
    # PEFT: rank_pattern passes the check and crashes; few layers crash where fewer than top_k experts sit.
    make_adapter(tmp_path / "odd", seed=8, **options)
    library = library_of(tmp_path / "lib", base, {**adapters, "odd": tmp_path / "odd"})
    with route(base, library, "arrow:top_k=3", mix="outputs") as model:
        assert said(model).isfinite().all()
        lorary.export(model.experts, {"odd": 1}, into=tmp_path / "alone")
    expected = peft_answer("llama", tmp_path / "odd")
    assert_same(peft_answer("llama", tmp_path / "alone"), expected)
    with route(base, library, "uniform", mix="outputs") as model:
        for name in adapters:
            model.remove(name)
        assert_same(said(model), expected)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora (DoRA)"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias='all'"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "LoRA on an embedding"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save (whole trained modules)"),
    ],
    ids=["dora", "lora_bias", "bias", "embedding", "modules_to_save"],
)
def test_what_can_t_be_mixed_is_refused_by_name(options, named, base, tmp_path):
    # PEFT: no error; the feature is dropped.
    make_adapter(tmp_path / "odd", **options)
    with pytest.raises(AdapterError) as caught:
        library_of(tmp_path / "lib", base, {"odd": tmp_path / "odd"})
    assert caught.value.code == "E-FEATURE"
    assert named in str(caught.value)
    assert "'odd'" in str(caught.value)


def test_two_builds_are_equal_to_the_bit(base, library, adapters, tmp_path):
    # PEFT: 0.53 apart on flat spectra, for its prototypes start at random.
    again = library_of(tmp_path / "again", base, dict(reversed(adapters.items())))
    for mix in ("factors", "outputs"):
        first, second = (routed_answer(base, lib, "arrow:top_k=2", mix=mix) for lib in (library, again))
        assert torch.equal(first, second)


@pytest.mark.parametrize("mix", ["factors", "outputs"])
def test_the_input_need_not_be_contiguous(mix, base, library):
    # PEFT: view() raises.
    site = "model.layers.0.self_attn.q_proj"
    with route(base, library, "arrow:top_k=2", mix=mix) as model, torch.inference_mode():
        layer = model._attachment.layers[site]
        for n in (3, 40):
            x = torch.randn(32, n, 2).permute(2, 1, 0)
            assert not x.is_contiguous()
            torch.testing.assert_close(layer(x), layer(x.contiguous()), atol=1e-5, rtol=1e-5)
            wide = torch.randn(2, n, 64)
            torch.testing.assert_close(layer(wide[..., ::2]), layer(wide[..., ::2].contiguous()), atol=1e-5, rtol=1e-5)


def test_a_base_without_experts_is_the_base(base, library):
    expected = answer(base.hf)
    with route(base, library, "arrow"):
        pass
    assert torch.equal(answer(base.hf), expected)
