"""Layers that are given one tensor are asked as one: the same answers, in fewer steps, whatever happens to them."""

import inspect

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from lorary.model.attached.kv_cache import cache_in
from lorary.model.attached.same_input import SameInput
from lorary.model.routed.route import route
from lorary.routing.contract import Context, Gate
from lorary.routing.routers.compass import Compass
from lorary.testing.pico import pico_base, random_library

CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
IDS = torch.randint(2, 250, (3, 12), generator=torch.Generator().manual_seed(5))
MASK = torch.ones_like(IDS)
MASK[1, :4] = MASK[2, :11] = 0
FITTED = {"n_texts": 4, "n_tokens": 8}


def step_by_step(model):
    """Read seven tokens, then one at a time."""
    found = model(input_ids=IDS[:, :7], attention_mask=MASK[:, :7], use_cache=True)
    logits = [found.logits]
    for i in range(7, 12):
        cache = {CACHE: cache_in(found)}
        found = model(input_ids=IDS[:, i : i + 1], attention_mask=MASK[:, : i + 1], use_cache=True, **cache)
        logits.append(found.logits)
    return torch.cat(logits, 1)[MASK.bool()]


def gate_calls(model, run):
    """Give what a run answers, and how many gates were called for it, one by one."""
    calls, forward = [], type(next(iter(model._attachment.layers.values())).gate).forward

    def counted(gate, h, context):
        calls.append(gate)
        return forward(gate, h, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(next(iter(model._attachment.layers.values())).gate), "forward", counted)
        return run(model), len(calls)


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": None}, {"top_k": 1}, {"along": 0.5, "recent": 0}, {"normalise": False, "skip_first": False}],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_asked_as_one_or_one_by_one_gates_answer_the_same(architecture, options, tmp_path):
    base = pico_base(architecture, seed=3)
    library = random_library(tmp_path / "lib", base, 6)
    with route(base, library, Compass(**options, **FITTED)) as model:
        with torch.no_grad():
            step_by_step(model)  # learns who is asked with whom
            found, n = gate_calls(model, step_by_step)
        with torch.enable_grad():
            expected, n_apart = gate_calls(model, step_by_step)
        torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)
        assert n_apart == 6 * len(model._attachment.layers)
        assert n < n_apart if architecture == "llama" else n == n_apart


def test_what_is_asked_as_one_lies_in_one_memory_and_is_not_there_twice(tmp_path):
    base = pico_base(seed=3)
    with route(base, random_library(tmp_path / "lib", base, 6), Compass(**FITTED)) as model, torch.inference_mode():
        model(IDS)
        model(IDS)
        layers = model._attachment.layers
        q, k, v, o = (layers[f"model.layers.0.self_attn.{name}_proj"].gate for name in "qkvo")
        for name in ("vectors", "sketches"):
            parts = [getattr(gate, name) for gate in (q, k, v)]
            assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
            assert parts[0].untyped_storage().nbytes() == 4 * sum(part.numel() for part in parts)
            assert not any(part.is_inference() for part in parts)
        assert o.vectors.untyped_storage().data_ptr() != q.vectors.untyped_storage().data_ptr()
        with model.twin() as twin:
            twin(IDS)
            torch.testing.assert_close(twin(IDS).logits, model(IDS).logits, atol=1e-5, rtol=1e-5)
            there = twin._attachment.layers["model.layers.0.self_attn.k_proj"].gate
            assert there.vectors.data_ptr() == k.vectors.data_ptr()


@pytest.mark.parametrize(
    "change",
    [
        lambda model, more: model.add(more["new"]),
        lambda model, _: model.remove("e0"),
        lambda model, _: model._attachment.model.double(),
    ],
)
def test_after_a_change_the_answers_are_those_of_a_model_that_was_asked_one_by_one(change, tmp_path):
    base = pico_base(seed=3)
    library, more = random_library(tmp_path / "lib", base, 4), random_library(tmp_path / "more", base, ["new"], seed=1)
    with route(base, library, Compass(**FITTED)) as model:
        with torch.no_grad():
            step_by_step(model)
        change(model, more)
        with torch.no_grad():
            found, n = gate_calls(model, step_by_step)
        assert n < 6 * len(model._attachment.layers)
        with torch.enable_grad():
            torch.testing.assert_close(found, step_by_step(model).detach(), atol=1e-5, rtol=1e-5)


def test_experts_that_are_missing_at_a_site_keep_its_gate_apart(tmp_path):
    base = pico_base(seed=3)
    library = random_library(tmp_path / "lib", base, 3)
    with route(base, library, Compass(**FITTED)) as model, torch.no_grad():
        layers = model._attachment.layers
        for name in ("model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.q_proj"):
            layers[name].gate.everybody_listens = False
        step_by_step(model)
        _, n = gate_calls(model, step_by_step)
        assert n == 6 * len(layers)


def test_a_gate_with_a_hook_is_called(tmp_path):
    base, heard = pico_base(seed=3), []
    with route(base, random_library(tmp_path / "lib", base, 3), Compass(**FITTED)) as model, torch.no_grad():
        model(IDS)
        for layer in model._attachment.layers.values():
            layer.gate.register_forward_hook(lambda gate, _args, _found: heard.append(gate))
        model(IDS)
        assert len(heard) == len(model._attachment.layers)


class Named(Gate):
    """Answers with its name, and counts how often it is asked apart."""

    def __init__(self, name):
        super().__init__()
        self.name, self.n_apart = name, 0

    def as_one(self, others):
        return lambda _h, _context: [gate.name for gate in (self, *others)]

    def forward(self, h, context):
        self.n_apart += 1
        return self.name


class Layer(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.gate = Named(name)


def asked(same, layers, h):
    with torch.no_grad():
        found = [same.route(layer, h, Context()) for layer in layers]
    same.rest()
    assert found == [layer.gate.name for layer in layers]
    counts = [layer.gate.n_apart for layer in layers]
    for layer in layers:
        layer.gate.n_apart = 0
    return counts


def test_layers_that_come_otherwise_than_before_are_asked_one_by_one():
    same, (q, k, v, o), h = SameInput(), map(Layer, "qkvo"), torch.zeros(1)
    assert asked(same, [q, k, v], h) == [1, 1, 1]
    assert asked(same, [q, k, v], h) == [0, 0, 0]
    assert asked(same, [q, k, v, q, k, v], h) == [0] * 6  # a block that is called twice
    same.expect({q, k, v})
    assert asked(same, [q, k, v], h) == [0, 0, 0]
    same.expect({q, v})
    assert asked(same, [q, v], h) == [0, 0]
    same.expect({q, k, v})
    assert asked(same, [q, k, v], h) == [1, 1, 1]
    assert asked(same, [q, k, v, o], h) == [0, 0, 0, 1]
    assert asked(same, [q, k, v, o], h) == [1] * 4
    same, h = SameInput(), torch.zeros(1)
    assert asked(same, [q, k], h) == [1, 1]
    assert asked(same, [q], h) == [0]
    assert asked(same, [q, k], h) == [1, 1]


def test_another_tensor_is_another_question():
    same, q, k = SameInput(), Layer("q"), Layer("k")
    with torch.no_grad():
        for _ in range(2):
            assert [same.route(layer, torch.zeros(1), Context()) for layer in (q, k)] == ["q", "k"]
    assert (q.gate.n_apart, k.gate.n_apart) == (2, 2)
