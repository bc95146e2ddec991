"""What a routed call promises beyond its numbers: little memory, no waiting for the device, gradients, precision."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing.mix import mix_low_rank
from lorary.adapters.mixing.tuning import STRATEGIES
from lorary.model.attached.attachment import RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.routing.contract import Context
from lorary.routing.routers.arrow import Arrow
from lorary.testing.memory import peak_mib

MIXES = ("outputs", "factors")
N, D = 12, 16


def routed(n=N, d=D, *, rank=3, top_k=4, mix="outputs"):
    """Route n random experts over one random linear layer."""
    generator = torch.Generator().manual_seed(0)
    site = Site("layer", d, d)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    experts = {f"e{i:03d}": {"layer": Weights(random(rank, d), random(d, rank), 0.5)} for i in range(n)}
    router = Arrow(top_k=top_k)
    gate = router.gate(site, router.fit(experts, {"layer": site}, None), sorted(experts))
    bank = LowRankBank([experts[name]["layer"] for name in sorted(experts)], site)
    base = nn.Linear(d, d)
    base.weight.data, base.bias.data = random(d, d), random(d)
    return RoutedLinear("layer", base.requires_grad_(False), bank, gate, Slot(mix))


def test_the_measure_of_memory_sees_what_a_dense_output_costs():
    z, b = torch.randn(64, 32), torch.randn(32, 256)
    peak = peak_mib(lambda: (z.unsqueeze(-1) * b).sum(1))
    assert peak == pytest.approx((64 * 32 * 256 + 64 * 256) * 4 / 2**20, rel=0.01)


@pytest.mark.parametrize("strategy", [None, "dense", "dense_in", "chosen"])
def test_a_call_needs_few_megabytes(strategy):
    layer = routed(256, 576, rank=4)
    x = torch.randn(1, 512, 576)

    def run():
        routing = layer.gate(x, Context())
        mix_low_rank(layer.bank, x, x, routing.weights, routing.experts, "outputs", strategy)

    assert 1 < peak_mib(run) < 8


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_tokens", [1, 7])
def test_no_call_waits_for_the_device(strategy, n_tokens, mix):
    layer = routed()
    with FakeTensorMode(allow_non_fake_inputs=True):  # anything that asks for a value raises
        x = torch.randn(2, n_tokens, D)
        routing = layer.gate(x, Context())
        found = mix_low_rank(layer.bank, x, x, routing.weights, routing.experts, mix, strategy)
    assert found.shape == x.shape


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("n_tokens", [1, 7])
def test_a_layer_compiles_into_one_graph(n_tokens, mix):
    layer, x = routed(mix=mix), torch.randn(2, n_tokens, D)
    with torch.inference_mode():
        torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x), atol=1e-4, rtol=1e-4)


def gradients(layer, x, run):
    """Give the gradients of the input, the experts and the prototypes."""
    x = x.clone().requires_grad_(True)
    inputs = [x, *layer.bank.requires_grad_(True).parameters(), layer.gate.vectors.requires_grad_(True)]
    weight = torch.linspace(-1, 1, x.numel()).view(x.shape)
    return torch.autograd.grad((run(x) * weight).sum(), inputs)


def with_strategy(layer, strategy, mix):
    def run(x):
        layer.bank.plan, layer.slot.mix = replace(layer.bank.plan, forced=strategy), mix
        return layer(x)

    return run


def written_out(layer, mix):
    """Compute with the scores of all experts and one dense matrix a token."""

    def run(x):
        scores = (x @ layer.gate.vectors.T).abs()
        least = scores.topk(layer.gate.n_kept)[0][..., -1:]
        w = torch.softmax(scores.masked_fill(scores < least, -torch.inf), -1)
        a, b = layer.bank.a.unflatten(0, (N, -1)), 0.5 * layer.bank.b.unflatten(0, (N, -1))
        if mix == "outputs":
            return layer.base(x) + torch.einsum("bte,ero,eri,bti->bto", w, b, a, x)
        return layer.base(x) + torch.einsum("bte,ero,btf,fri,bti->bto", w, b, w, a, x)

    return run


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_are_those_of_the_written_out_sum(strategy, mix):
    layer, x = routed(), torch.randn(2, 7, D)
    found = gradients(layer, x, with_strategy(layer, strategy, mix))
    for one, other in zip(found, gradients(layer, x, written_out(layer, mix)), strict=True):
        assert other.abs().max() > 0.01
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_a_gradient_has_the_same_bits_every_time():
    layer, x = routed(), torch.randn(2, 50, D)
    first, second = (gradients(layer, x, with_strategy(layer, "chosen", "outputs")) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_experts_get_no_gradient_and_the_input_does():
    layer, x = routed(), torch.randn(1, 5, D, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().max() > 0
    assert layer.bank.a.grad is None and layer.bank.b.grad is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpointing_changes_no_gradient(strategy):
    layer, x = routed(), torch.randn(2, 7, D)
    run = with_strategy(layer, strategy, "outputs")
    plain = gradients(layer, x, run)
    again = gradients(layer, x, lambda h: checkpoint(run, h, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_autocast_changes_the_precision_and_not_the_choice(strategy):
    layer, x = routed(64, 32), torch.randn(2, 50, 32)
    run = with_strategy(layer, strategy, "outputs")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(x)
        ours = gradients(layer, x, run)
    full = run(x)
    assert found.dtype == torch.bfloat16
    assert (found - full).abs().max() < 0.03 * full.abs().max()
    for one, other in zip(ours, gradients(layer, x, run), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 0.05 * other.abs().max()
