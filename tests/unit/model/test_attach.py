"""Routed layers go in and come out again; one thread at a time; no gradients but the experts'; no host sync."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.errors import AdapterError, RoutingError, TaskError
from lorary.folder import ROUTERS
from lorary.hashing import hash_json
from lorary.model.attached.attachment import Attachment, RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.model.routed.route import route
from lorary.routing.contract import Context, Gate, Routing
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.uniform import Uniform
from lorary.testing.fakes import SITES, FakeProbe, dense, fake_context, fake_experts
from lorary.testing.pico import pico_base, random_weights

IDS = torch.arange(2, 22).view(2, 10)


def state_of(base):
    """Everything that makes a base: names, bytes, objects, hooks of its layers."""
    hf = base.hf
    return (
        hash_json({name: t.numpy().tobytes().hex() for name, t in hf.state_dict().items()}),
        [(name, id(module)) for name, module in hf.named_modules()],
        [(name, id(p), p.requires_grad) for name, p in hf.named_parameters()],
        len(hf._forward_hooks), len(hf._forward_pre_hooks), hf.training,
    )  # fmt: skip


def make_parts(base, targets=("q_proj", "down_proj")):
    sites = base.target_sites(targets)
    weights = random_weights(LoRA(), sites, seed=1)
    return {s.name: (LowRankBank([weights[s.name]], s), Uniform().gate(s, {}, ["x"])) for s in sites}


def logits(base):
    with torch.inference_mode():
        return base.hf(input_ids=IDS).logits


def test_detach_puts_the_very_same_layers_back(base, toy_library):
    before, said = state_of(base), logits(base)
    for router in ("uniform", "arrow"):
        model = route(base, toy_library, router, mix="outputs")
        assert not torch.equal(logits(base), said)
        assert base.hf.get_submodule("model.layers.0.self_attn.q_proj").weight.shape == (32, 32)
        model.detach()
        model.detach()
        assert state_of(base) == before
        assert torch.equal(logits(base), said)


def test_an_error_inside_the_with_block_detaches_too(base, toy_library):
    before = state_of(base)
    with pytest.raises(ZeroDivisionError), route(base, toy_library, "uniform"):
        1 / 0  # noqa: B018
    assert state_of(base) == before


def test_a_failed_attach_leaves_the_base_as_it_was(base):
    before = state_of(base)
    parts = make_parts(base)
    parts["model.layers.9.nowhere"] = next(iter(parts.values()))
    with pytest.raises(AttributeError):
        Attachment(base.hf, parts, Slot("outputs"))
    assert state_of(base) == before


def test_a_base_carries_one_library_at_a_time(base, toy_library):
    with route(base, toy_library, "uniform"):
        inside = state_of(base)
        with pytest.raises(AdapterError) as caught:
            route(base, toy_library, "arrow")
        assert str(caught.value) == (
            "error[E-ATTACHED] this base already carries a library. Detach the other routed model first."
        )
        assert state_of(base) == inside


BUSY = "error[E-BUSY] this routed model is busy in another thread. Give each thread a model of its own."


def in_another_thread(work):
    caught = []

    def run():
        try:
            work()
        except RoutingError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return caught


def test_a_second_thread_is_refused_and_disturbs_nothing(base, toy_library):
    with route(base, toy_library, "oracle") as model:
        owners = torch.tensor([0, 3])
        attachment = model._attachment
        expected = model(IDS, tasks=["copy", "join"]).logits
        with attachment.turn(Context(experts=owners)):
            assert in_another_thread(lambda: model(IDS, tasks=["first", "first"])) == [BUSY]
            assert in_another_thread(lambda: base.hf(input_ids=IDS)) == [BUSY]
            assert in_another_thread(lambda: attachment.bypassed().__enter__()) == [BUSY]
            assert torch.equal(attachment.slot.context.experts, owners)
            assert torch.equal(base.hf(input_ids=IDS).logits, expected)
        assert in_another_thread(lambda: model(IDS, tasks=["copy", "join"])) == []
        assert torch.equal(model(IDS, tasks=["copy", "join"]).logits, expected)


def test_a_call_that_fails_gives_the_slot_back(base, toy_library):
    with route(base, toy_library, "oracle") as model:
        with pytest.raises(IndexError):
            model(torch.full((2, 4), 10**6), tasks=["copy", "join"])
        with pytest.raises(TaskError, match="E-TASK"):
            base.hf(input_ids=IDS)
        assert in_another_thread(lambda: model(IDS, tasks=["copy", "join"])) == []
        assert model._attachment.slot.context.experts is None


def test_the_base_speaks_alone_when_bypassed(base, toy_library):
    said = logits(base)
    with route(base, toy_library, "uniform") as model:
        with model._attachment.bypassed():
            assert torch.equal(logits(base), said)
        assert not torch.equal(logits(base), said)


def test_gradients_reach_the_experts_and_not_the_base(base):
    parts = make_parts(base)
    for bank, _ in parts.values():
        bank.requires_grad_(True)
    attachment = Attachment(base.hf, parts, Slot("outputs"))
    try:
        base.hf(input_ids=IDS).logits.pow(2).mean().backward()
    finally:
        attachment.detach()
    assert all(p.grad is None for p in base.hf.parameters())
    assert all(bank.a.grad.abs().sum() > 0 and bank.b.grad.abs().sum() > 0 for bank, _ in parts.values())


def test_a_layer_may_be_given_flat_tokens(base):
    site = base.target_sites(["q_proj"])[0]
    bank, gate = make_parts(base)[site.name]
    layer = RoutedLinear(site.name, base.hf.get_submodule(site.name), bank, gate, Slot("outputs"))
    x = torch.randn(2, 5, site.d_in)
    torch.testing.assert_close(layer(x.flatten(0, 1)), layer(x).flatten(0, 1))


@pytest.mark.parametrize("mix", ["outputs", "factors"])
def test_the_strength_of_a_mixture_multiplies_its_answer(mix):
    class Fixed(Gate):
        def __init__(self, strength):
            super().__init__()
            self.strength = strength

        def forward(self, h, context):
            return Routing(torch.tensor([0.7, 0.3]).view(1, 1, 1, 2), strength=self.strength)

    site = SITES["layers.0.q"]
    experts = fake_experts(["ant", "bee"])
    bank = LowRankBank([experts[name][site.name] for name in experts], site)
    x, base = torch.randn(2, 5, site.d_in, generator=torch.Generator().manual_seed(0)), torch.nn.Linear(12, 10)
    slot, strength = Slot(mix), torch.arange(1.0, 6.0).view(1, 5, 1, 1)
    loud, plain = (
        RoutedLinear(site.name, base, bank, gate, slot)(x) - base(x) for gate in (Fixed(strength), Fixed(None))
    )
    torch.testing.assert_close(loud, plain * strength.squeeze(-1))


@pytest.mark.parametrize("name", ROUTERS.names())
def test_autocast_chooses_the_same(name):
    router, site = ROUTERS.load(name)(), next(iter(SITES.values()))
    seeds = {name: i for i, name in enumerate("abcde")}
    experts = fake_experts(seeds)
    bank = LowRankBank([weights[site.name] for weights in experts.values()], site)
    gate = router.gate(site, router.fit(experts, SITES, FakeProbe(seeds)), sorted(experts))
    layer = RoutedLinear(site.name, torch.nn.Linear(site.d_in, site.d_out), bank, gate, Slot("outputs"))
    found = []
    for enabled in (False, True):
        layer.slot.context, layer.slot.records = fake_context(3, [0, 3, 4]), {}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            layer(torch.randn(3, 7, site.d_in, generator=torch.Generator().manual_seed(1)))
        found.append(dense(layer.slot.records[site.name][0], 5))
    assert torch.equal(*found)


@pytest.mark.parametrize("mix", ["outputs", "factors"])
@pytest.mark.parametrize("n_tokens", [3, 40])
def test_routing_never_waits_for_the_device(n_tokens, mix):
    """Fake tensors have no numbers: a layer that reads one on the host (.item(), if, nonzero) fails here."""
    base = pico_base()
    sites = base.target_sites(["q_proj"])
    experts = {f"e{i:02}": random_weights(LoRA(), sites, seed=i) for i in range(40)}
    site, router = sites[0], Arrow(top_k=4)
    state = router.fit(experts, {s.name: s for s in sites}, None)
    layer = RoutedLinear(
        site.name, base.hf.get_submodule(site.name), LowRankBank([e[site.name] for e in experts.values()], site),
        router.gate(site, state, sorted(experts)), Slot(mix),
    )  # fmt: skip
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.inference_mode():
        found = layer(fake.from_tensor(torch.randn(1, n_tokens, site.d_in)))
        assert found.shape == (1, n_tokens, site.d_out)
        with pytest.raises(DataDependentOutputException):
            found.sum().item()
