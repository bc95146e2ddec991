"""Bases that call their layers in ways of their own: heard as they are, or refused with a way out."""

import pytest
import torch
from torch import nn

from lorary.adapters.contract import Site
from lorary.adapters.low_rank import LowRankBank
from lorary.building.trained_layers import require_trainable
from lorary.errors import LoraryError
from lorary.formats.peft import read_experts
from lorary.model.attached.attachment import RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.model.probes.probe import DataProbe
from lorary.model.routed.route import route
from lorary.routing.contract import Context, Gate, Routing
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.fakes import fake_experts
from lorary.testing.families import pico_family, pico_family_hf
from lorary.testing.pico import pico_tokenizer, random_library

IDS = torch.randint(10, 250, (2, 12), generator=torch.Generator().manual_seed(3))


# ---- which layers are sites ---------------------------------------------------------------------


def test_a_router_of_a_mixture_is_no_site_though_its_class_is_a_linear_layer():
    base = pico_family("llama4")
    router = next(m for name, m in base.hf.named_modules() if name.endswith("router"))
    assert isinstance(router, nn.Linear)
    assert not [name for name in base.sites if name.endswith("router")]
    assert len(base.target_sites(["all-linear"])) == len(base.sites)


def test_only_the_text_model_of_a_base_with_eyes_has_sites():
    base = pico_family("gemma3")
    assert {name.rpartition(".layers.")[0] for name in base.sites} == {"model.language_model"}
    assert (base.max_tokens, base.fingerprint["hidden_size"], base.fingerprint["n_layers"]) == (256, 32, 2)


def test_all_linear_is_everything_but_the_head(base):
    named = {name.rpartition(".")[2] for name in base.sites}
    assert named == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert [site.name for site in base.target_sites(["all-linear"])] == list(base.sites)


# ---- layers that are never called ---------------------------------------------------------------


@pytest.fixture(scope="module")
def mamba():
    return pico_family("mamba")


def test_a_layer_that_is_never_called_is_no_target(mamba):
    assert {site.name.rpartition(".")[2] for site in mamba.target_sites(["all-linear"])} == {
        "in_proj", "x_proj", "out_proj",
    }  # fmt: skip
    require_trainable(mamba, ["all-linear"])
    with pytest.raises(LoraryError) as caught:
        require_trainable(mamba, ["in_proj", "dt_proj"])
    assert str(caught.value) == (
        "error[E-TARGET] 'dt_proj' names 'backbone.layers.0.mixer.dt_proj', which this base never calls: it reads its "
        "weight, past any adapter. Did you mean 'out_proj'? Known: all-linear, in_proj, out_proj, x_proj."
    )


def test_experts_there_are_told_of_and_the_others_speak(mamba, tmp_path):
    library = random_library(tmp_path / "lib", mamba, 3, targets=["in_proj", "dt_proj"])
    live = random_library(tmp_path / "live", mamba, 3, targets=["in_proj"])
    with pytest.warns(
        RuntimeWarning, match=r"^warning\[W-IDLE\] an expert adapts 'backbone.layers.0.mixer.dt_proj' and 1"
    ):
        model = route(mamba, library, "arrow")
    with model, torch.inference_mode():
        assert set(model._attachment.parts) == {site.name for site in mamba.target_sites(["in_proj"])}
        assert model(IDS).logits.isfinite().all()
    with route(mamba, live, "uniform") as model, torch.inference_mode():
        model.remove("e0")
        with pytest.warns(RuntimeWarning, match="W-IDLE"):
            model.add(library["e0"])
        assert set(model._attachment.parts) == {site.name for site in mamba.target_sites(["in_proj"])}


def test_experts_that_are_only_there_are_refused(mamba, tmp_path):
    library = random_library(tmp_path / "lib", mamba, 1, targets=["dt_proj"])
    with pytest.raises(LoraryError, match=r"E-TARGET\] no expert would change anything: each adapts 'backbone"):
        route(mamba, library, "uniform")


# ---- layers that are given other tokens than the call -------------------------------------------


def test_a_layer_behind_the_last_block_has_no_part_in_evidence(tmp_path):
    base = pico_family("bert_lm_head")
    assert base.calls.partial == {"cls.predictions.transform.dense"}
    library = random_library(tmp_path / "lib", base, 3, targets=["query", "transform.dense"])
    for router in ("compass", "compass:calibrate=False"):
        with pytest.raises(LoraryError) as caught:
            route(base, library, router)
        assert str(caught.value) == (
            "error[E-ROWS] site 'cls.predictions.transform.dense' is given some of a text's tokens only: this router "
            "needs all of them. Use a router that looks at each token alone, such as arrow."
        )
    with route(base, library, "arrow:top_k=2") as model:
        model.generate(IDS, max_new_tokens=3, do_sample=False)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["arrow:top_k=2", "compass"])
@pytest.mark.parametrize("family", ["deepseek_v3", "mamba", "qwen3_next"])
def test_generation_is_the_same_with_a_cache_and_without_one(family, router, tmp_path):
    """Deepseek's cache keeps what keys and values are made of; Mamba's counts no tokens; Qwen3-Next has both kinds."""
    base = pico_family(family)
    library = random_library(tmp_path / "lib", base, 3, targets=["in_proj"] if family == "mamba" else ["attention"])
    with route(base, library, router) as model:
        for options in ({}, {"num_beams": 3}):
            found = [
                model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=use, **options)
                for use in (True, False)
            ]
            assert torch.equal(*found), options


class _Loud(Gate):
    """Says of each token what evidence knows of it: a tenth of how many tokens came before."""

    keeps_evidence = True

    def forward(self, h, context):
        seen = context.evidence.along_tokens("layer", h[..., :1] * 0 + 1, context.mask)
        return Routing((seen + h[..., :1]).unsqueeze(2))


def loud_layer(shape):
    expert = fake_experts(["ant"])["ant"]["layers.0.q"]
    site = Site("layer", 12, 10)
    slot = Slot("outputs")
    slot.shape, slot.context = shape, Context()
    torch.manual_seed(0)
    return RoutedLinear("layer", nn.Linear(12, 10), LowRankBank([expert], site), _Loud(), slot)


def test_tokens_that_are_given_again_are_routed_as_they_were():
    x = torch.randn(2, 1, 7, 12, generator=torch.Generator().manual_seed(0))
    whole = loud_layer((2, 7))(x)
    layer = loud_layer((2, 4))
    first = layer(x[:, :, :4])
    layer.slot.context.evidence.start_call()
    layer.slot.shape = (2, 3)
    again = layer(x)
    torch.testing.assert_close(first, whole[:, :, :4])
    torch.testing.assert_close(again[:, :, :4], first)
    rows = torch.tensor([1, 0, 1])
    layer.slot.context.evidence.select_rows(rows)
    assert layer.slot.context.evidence.routings["layer"].weights.shape == (3, 7, 1, 1)


@pytest.mark.parametrize("shape", [(2, 1, 12), (3, 7, 12), (2, 7, 4, 12), (2, 1, 5, 12)])
def test_a_gate_that_keeps_evidence_refuses_tokens_it_can_t_place(shape):
    with pytest.raises(LoraryError, match=r"E-ROWS\] site 'layer' is given \d+ tokens of \(2, 7\)"):
        loud_layer((2, 7))(torch.randn(shape))


def test_means_of_inputs_are_of_the_last_token_whatever_axes_a_block_hands_over(tmp_path):
    base = pico_family("deepseek_v3")
    site = next(name for name in base.sites if name.endswith("kv_b_proj"))
    heard = []
    example = Example("one two", "x", "e0")
    library = random_library(tmp_path / "lib", base, ["e0"], targets=["kv_b_proj"])
    tasks = Tasks([Task("e0", (example, Example("a", "y", "e0")), (), ())])
    probe = DataProbe(base, read_experts(library), {site: base.sites[site]}, {"e0": ["e0"]}, tasks)
    hook = base.hf.get_submodule(site).register_forward_pre_hook(lambda _, args: heard.append(args[0]))
    try:
        found = probe.mean_inputs("e0", n_examples=2)[site]
    finally:
        hook.remove()
    assert heard and heard[0].dim() == 4
    torch.testing.assert_close(found, torch.cat([h[:, 0, -1] for h in heard]).mean(0))


# ---- padding ------------------------------------------------------------------------------------


def test_a_base_that_takes_no_mask_is_never_padded(tmp_path):
    base = pico_family("rwkv")
    assert not base.calls.hides_padding
    examples = [Example("a", "xy"), Example("q" * 23, "w"), Example("b", "yx"), Example("zz", "w")]
    together = [found.nats for found in base.log_likelihood(examples)]
    assert together == pytest.approx([base.log_likelihood([e])[0].nats for e in examples], abs=1e-4)
    texts = base.generate_text(examples, max_new_tokens=4)
    assert texts == [base.generate_text([e], max_new_tokens=4)[0] for e in examples]
    rows = base.encode(examples)
    assert [sorted(group) for group in base.in_groups(rows)] == [[0, 2, 3], [1]]


def test_a_base_that_hides_padding_is_asked_once_at_most(base):
    assert [len(group) for group in base.in_groups(base.encode([Example("a", "b"), Example("long one", "b")]))] == [2]
    assert base.calls is base.calls


# ---- weights that aren't there ------------------------------------------------------------------


def test_an_offloaded_base_is_told_well():
    hf = pico_family_hf("llama")
    hf.model.layers[1].to("meta")
    with pytest.raises(
        LoraryError, match=r"E-BASE\] the weight 'model.layers.1.self_attn.q_proj.weight' of the base is"
    ):
        BaseModel(hf, pico_tokenizer(), "x").fingerprint  # noqa: B018
