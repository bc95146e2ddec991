"""A whole Hugging Face model with experts in it does what transformers and torch do with any other model."""

import copy
import inspect
import pickle
import warnings
import weakref
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache, LlamaForCausalLM, StaticCache

from lorary.errors import AdapterError, RoutingError
from lorary.model.base.base_model import load_base
from lorary.model.routed.load import load
from lorary.model.routed.route import route
from lorary.routing.routers.compass import Compass
from lorary.testing.pico import pico_base, random_library

IDS = torch.arange(2, 26).view(3, 8)
ROUTERS = ["arrow:top_k=2", "compass:top_k=2,n_texts=4,n_tokens=8"]
CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("whole") / "lib", pico_base(), 6)


@pytest.fixture(params=ROUTERS)
def routed(request, library):
    with route(pico_base(), library, request.param, mix="outputs") as model:
        yield model
    torch._dynamo.reset()


@torch.no_grad()
def whole(model):
    return model(input_ids=IDS).logits


@torch.no_grad()
def in_steps(model, cache):
    """Read six tokens, then two one by one, with a cache."""
    pieces = [model(input_ids=ids, use_cache=True, **{CACHE: cache}).logits for ids in IDS.split([6, 1, 1], dim=1)]
    return torch.cat(pieces, dim=1)


def assert_same(found, expected, model):
    """To the bit, save for the compass, of which a graph adds up in another order what mixtures lose."""
    if isinstance(model.router, Compass):
        return torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    return torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.slow
def test_it_compiles_into_one_graph(routed):
    hf = routed.base.hf
    expected = whole(hf)
    assert_same(whole(torch.compile(hf, fullgraph=True, backend="eager")), expected, routed)
    assert torch.equal(whole(hf), expected)


@pytest.mark.slow
def test_its_forward_compiles_while_the_context_is_set_outside(library):
    with route(pico_base(), library, "oracle") as model:
        expected = model(IDS, tasks=["e0", "e3", "e0"]).logits
        other = model(IDS, tasks=["e1", "e0", "e5"]).logits
        hf = model.base.hf
        hf.forward = torch.compile(hf.forward, fullgraph=True, backend="eager")
        try:
            assert torch.equal(model(IDS, tasks=["e0", "e3", "e0"]).logits, expected)
            assert torch.equal(model(IDS, tasks=["e1", "e0", "e5"]).logits, other)
        finally:
            del hf.forward
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_steps_with_a_cache_compile_into_one_graph_each(kind, routed):
    hf = routed.base.hf
    options = {"max_cache_len": 16} if kind is StaticCache else {}
    expected = in_steps(hf, kind(config=hf.config, **options))
    compiled = torch.compile(hf, fullgraph=True, backend="eager")
    assert_same(in_steps(compiled, kind(config=hf.config, **options)), expected, routed)


@pytest.mark.slow
def test_the_compiled_graph_of_aot_autograd_gives_the_same(routed):
    hf = routed.base.hf
    found = whole(torch.compile(hf, fullgraph=True, backend="aot_eager"))
    torch.testing.assert_close(found, whole(hf), atol=1e-4, rtol=1e-4)


def test_no_call_waits_for_the_device(routed):
    hf = routed.base.hf
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:  # anything that asks for a value raises
        found = hf(input_ids=mode.from_tensor(IDS), use_cache=False).logits
    assert found.shape == (*IDS.shape, hf.config.vocab_size)


def gradients(model, *, tasks=None):
    """Give the gradients of all experts' factors for the losses of two calls over the whole model."""
    banks = [layer.bank for layer in model._attachment.layers.values()]
    factors = [f.requires_grad_(True) for bank in banks for f in bank.parameters()]
    calls = [(IDS, tasks), (IDS[:2].flip(1), tasks and tasks[1:])]
    loss = sum(model(ids, labels=ids, use_cache=False, tasks=names).loss for ids, names in calls)
    loss.backward()  # reentrant checkpointing knows no other way
    found = [factor.grad for factor in factors]
    for factor in factors:
        factor.requires_grad_(False).grad = None
    return found


@contextmanager
def checkpointing(hf, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the name that all supported transformers have
        hf.gradient_checkpointing_enable(options)
        hf.enable_input_require_grads()
        hf.train()
        layer = hf.model.layers[0]
        passes = []
        hook = layer.self_attn.register_forward_hook(lambda *_: passes.append(1))
        try:
            yield passes
        finally:
            hook.remove()
            hf.eval()
            hf.gradient_checkpointing_disable()
            hf.disable_input_require_grads()


@pytest.mark.parametrize("router", [*ROUTERS, "compass:top_k=2,along=1,n_texts=4,n_tokens=8", "oracle"])
def test_checkpointing_changes_no_gradient(router, library):
    tasks = ["e0", "e3", "e0"] if router == "oracle" else None
    with route(pico_base(), library, router, mix="outputs") as model:
        hf = model.base.hf
        plain = gradients(model, tasks=tasks)
        assert max(float(g.abs().max()) for g in plain) > 0.01
        with checkpointing(hf, use_reentrant=False) as passes:
            found = gradients(model, tasks=tasks)
            assert len(passes) == 4  # each call twice
            function = hf.model.layers[0]._gradient_checkpointing_func
            with model.twin() as twin:
                assert twin.base.hf.model.layers[0]._gradient_checkpointing_func is not function
            model.detach()
            assert hf.model.layers[0]._gradient_checkpointing_func is function.inner
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_context_function_of_one_s_own_is_called_too(library):
    seen = []

    @contextmanager
    def noted(word):
        seen.append(word)
        yield

    with route(pico_base(), library, ROUTERS[1], mix="outputs") as model:
        plain = gradients(model)
        with checkpointing(model.base.hf, use_reentrant=False, context_fn=lambda: (noted("first"), noted("again"))):
            found = gradients(model)
    assert seen.count("first") == seen.count("again") == 2 * len(model.base.hf.model.layers)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_reentrant_checkpointing_works_without_context_and_is_refused_with_one(library):
    with route(pico_base(), library, ROUTERS[0], mix="outputs") as model:
        plain = gradients(model)
        with checkpointing(model.base.hf, use_reentrant=True):
            found = gradients(model)
            model.set_router(ROUTERS[1])
            with pytest.raises(RoutingError) as caught:
                gradients(model)
        assert str(caught.value) == (
            "error[E-CHECKPOINT] with reentrant gradient checkpointing these gates would not see their context again. "
            'Enable it with {"use_reentrant": False}.'
        )
        assert whole(model.base.hf).isfinite().all()  # nobody is busy
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("router", [ROUTERS[0], "compass:top_k=6,n_texts=4,n_tokens=8"])  # all: none to be swapped
def test_autocast_gives_close_gradients_in_float32(router, library):
    with route(pico_base(), library, router, mix="outputs") as model:
        plain = gradients(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradients(model)
    assert all(g.dtype == torch.float32 for g in found)
    close = [float((a - b).norm() / b.norm()) for a, b in zip(found, plain, strict=True)]
    assert sum(close) / len(close) < 0.1, close


# ---- moved, copied, trained ---------------------------------------------------------------------


@pytest.mark.parametrize("memory", [None, "1MiB"])
@pytest.mark.parametrize("router", [ROUTERS[0], "compass:top_k=2,calibrate=false", "spectr", "uniform", "oracle"])
def test_in_another_precision_it_is_the_model_of_a_base_of_that(router, memory, library):
    options = {"tasks": ["e0", "e3", "e0"]} if router == "oracle" else {}
    found = []
    for moves_first in (True, False):
        base = pico_base()
        if moves_first:
            base.hf.to(torch.bfloat16)
        with route(base, library, router, memory=memory) as model, torch.no_grad():
            base.hf.to(torch.bfloat16)
            found.append(model(IDS, **options).logits)
            gates = [gate for _, gate in model._attachment.parts.values()]
            numbers = [t for g in gates for t in (*g.buffers(), *g.parameters()) if t.is_floating_point()]
            assert {t.dtype for t in numbers} == {torch.float32}
    assert torch.equal(*found)


def test_what_is_moved_lets_go_of_where_it_lay(library, tmp_path):
    base = pico_base()
    with route(base, library, "uniform") as model:
        bank = next(iter(model._attachment.parts.values()))[0]
        lay = weakref.ref(bank.rooms[0])
        base.hf.to(torch.bfloat16)
        assert lay() is None
        model.add(random_library(tmp_path / "more", base, ["new"], seed=1)["new"])  # room is made anew
        assert next(iter(model._attachment.parts.values()))[0].rooms[0] is not None


def test_a_gate_follows_to_another_device(library):
    with route(pico_base(), library, "arrow") as model:
        gate = next(iter(model._attachment.parts.values()))[1]
        gate.to("meta", torch.bfloat16)
        assert (gate.vectors.device.type, gate.vectors.dtype) == ("meta", torch.float32)
        assert gate.members.device.type == "meta"


@pytest.mark.parametrize("make", [copy.deepcopy, pickle.dumps])
def test_what_can_t_be_copied_says_what_can(make, library):
    base = pico_base()
    with route(base, library, "arrow") as model:
        for what in (model, base.hf, base):
            with pytest.raises(AdapterError) as caught:
                make(what)
            assert str(caught.value).startswith("error[E-ATTACHED] this base carries a library: ")
    assert make(base.hf)


@pytest.mark.parametrize("router", ROUTERS)
def test_what_was_made_in_inference_mode_can_be_trained(router, library, tmp_path):
    pico_base().write(tmp_path / "base")
    with torch.inference_mode():
        model = route(load_base(str(tmp_path / "base"), dtype="float32"), library, router)
        model.save(tmp_path / "model")
        again = load(tmp_path / "model")
    for made in (model, again):
        bank, _ = next(iter(made._attachment.parts.values()))
        bank.a.requires_grad_()
        made(IDS, labels=IDS, use_cache=False).loss.backward()
        assert bank.a.grad.any()
