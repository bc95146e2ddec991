"""What computes does it where its base is: nothing lies elsewhere, and decoding waits for nothing but the token.

On a device of `lorary.testing.far_device`, which has real numbers. torch's fake tensors have none, refuse to be moved
to a GPU in a build of torch without one, and abort the process in a backward pass.
"""

import copy
from dataclasses import replace

import pytest
import torch

import lorary as lo
from lorary.adapters.low_rank import LowRankBank
from lorary.folder import ROUTERS
from lorary.model.attached.attachment import RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import load_base
from lorary.model.decoding.decoder import Decoder, Request
from lorary.tasks.example import Example
from lorary.testing.fakes import SITES, FakeProbe, fake_context, fake_experts
from lorary.testing.far_device import FAR, FarTensor
from lorary.testing.pico import random_library

COMPASS = "compass:top_k=2,n_texts=2,n_tokens=4"
IDS = torch.arange(2, 26).view(3, 8)
PROMPTS = [Example("swap: red fox", "fox red", "copy"), Example("x", "y", "swap")]


@pytest.fixture(scope="module")
def library(near_and_far, tmp_path_factory):
    place = tmp_path_factory.mktemp("far") / "lib"
    return random_library(place, near_and_far[0], ["copy", "swap", "upper"], targets=["q_proj", "down_proj"])


def close(found, expected):
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-4)


# ---- the device itself --------------------------------------------------------------------------


def test_the_device_refuses_what_lies_elsewhere_and_counts(traffic):
    x = torch.ones(2, 3).to(FAR)
    for other in (torch.ones(2, 3), torch.ones(2, 3, device=f"{FAR}:1"), torch.tensor([0])):
        with pytest.raises(RuntimeError, match="same device"):
            x[other] if other.dtype == torch.long else x + other
    traffic.forget()
    assert float(x.sum()) == 6 and bool(x[0, 0]) and x.tolist() == [[1.0] * 3] * 2
    assert torch.equal(x, x) and len(x.nonzero()) == 6 and len(x[x > 0]) == 6
    assert traffic.waits == {"_local_scalar_dense": 2, "_to_copy": 1, "equal": 1, "nonzero": 1, "index": 1}
    assert traffic.sent == 0 and traffic.launched["sum"] == 1
    assert (x + torch.tensor(1.0)).device == torch.device(FAR, 0)  # a single number may come from anywhere
    torch.tensor([1, 2], device=FAR)
    assert traffic.sent == 1


def test_the_device_learns(traffic):
    layer = torch.nn.Linear(3, 2)
    far = copy.deepcopy(layer).to(FAR)
    before = list(far.parameters())
    for one in (layer, far):
        step = torch.optim.AdamW(one.parameters(), lr=0.1, fused=True)
        one(torch.ones(4, 3).to(one.weight.device)).square().sum().backward()
        step.step()
    assert all(a is b and isinstance(a, FarTensor) for a, b in zip(far.parameters(), before, strict=True))
    close(far.weight.detach(), layer.weight.detach())


# ---- one layer, every router --------------------------------------------------------------------


def layers(name, *devices):
    """Make the routed layer of five experts on each device."""
    seeds = {name: i for i, name in enumerate("abcde")}
    site, experts, router = SITES["layers.0.q"], fake_experts(seeds), ROUTERS.load(name)()
    state = router.fit(experts, SITES, FakeProbe(seeds))
    for device in devices:
        bank = LowRankBank([weights[site.name] for weights in experts.values()], site)
        linear = torch.nn.Linear(site.d_in, site.d_out)
        with torch.no_grad():
            linear.weight.copy_(torch.linspace(-1, 1, linear.weight.numel()).view(linear.weight.shape))
            linear.bias.zero_()
        gate = router.gate(site, state, sorted(experts))
        yield RoutedLinear(site.name, *(part.to(device) for part in (linear, bank, gate)), Slot("factors"))


def told(device, n_rows=3):
    """Say what a gate may know, there."""
    context = fake_context(n_rows, [0, 3, 4])
    context.experts, context.features = context.experts.to(device), context.features.to(device)
    return context


@torch.no_grad()
def spoken(layer, x, mix):
    """Read seven tokens, then one: what each call gives."""
    layer.slot.mix, layer.slot.context = mix, told(x.device)
    found = [layer(x[:, :7])]
    layer.slot.context.evidence.start_call()
    return [*found, layer(x[:, 7:])]


@pytest.mark.parametrize("mix", ["factors", "outputs"])
@pytest.mark.parametrize("name", ROUTERS.names())
def test_a_routed_layer_gives_the_same_there_and_waits_for_nothing(name, mix, traffic):
    if mix == "outputs" and name == "mhr":
        pytest.skip("blocks are mixed by their factors")
    near, far = layers(name, "cpu", FAR)
    x = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(1))
    expected, there = spoken(near, x, mix), x.to(FAR)
    context = told(FAR)
    traffic.forget()
    found = spoken(far, there, mix)
    assert not traffic.waits
    assert traffic.sent == 2  # what `told` says, before the calls
    for one, other in zip(found, expected, strict=True):
        close(one, other)
    assert context.experts.device.type == FAR


@pytest.mark.parametrize("name", ROUTERS.names())
def test_a_routed_layer_without_numbers_knows_its_shapes(name):
    (layer,) = layers(name, "meta")
    found = spoken(layer, torch.empty(3, 8, 12, device="meta"), "factors")
    assert [tuple(part.shape) for part in found] == [(3, 7, 10), (3, 1, 10)]


# ---- whole models -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("router", ["arrow:top_k=2", COMPASS, "oracle"])
def test_a_model_says_the_same_there(router, near_and_far, library, tmp_path):
    near, far = near_and_far
    with lo.route(near, library, router) as model:
        names = ["copy", "swap", "swap"] if router == "oracle" else None
        expected, answers = model(IDS, tasks=names).logits.detach(), model.generate_text(PROMPTS, max_new_tokens=3)
        scores, beams = model.log_likelihood(PROMPTS), model.generate(IDS, tasks=names, num_beams=2, max_new_tokens=2)
    with lo.route(far, library, router) as model:
        close(model(IDS.to(FAR), tasks=names).logits.detach(), expected)
        assert model.generate_text(PROMPTS, max_new_tokens=3) == answers
        for one, other in zip(model.log_likelihood(PROMPTS), scores, strict=True):
            assert one.nats == pytest.approx(other.nats, rel=1e-4)
        found = model.generate(IDS.to(FAR), tasks=names, num_beams=2, max_new_tokens=2)
        assert torch.equal(found.cpu(), beams)
        assert model.explain(PROMPTS[0], max_new_tokens=2).weights.device.type == "cpu"
        model.save(tmp_path / "far")
    for base in near_and_far:
        with lo.load(tmp_path / "far", base=base) as model:
            close(model(IDS.to(base.device), tasks=names).logits.detach(), expected)


@pytest.mark.slow
def test_edits_there_give_what_they_give_here(near_and_far, library, tmp_path):
    near, far = near_and_far
    more = random_library(tmp_path / "more", near, ["copy", "new"], targets=["q_proj", "down_proj"], seed=1)
    found = []
    for base in (near, far):
        with lo.route(base, library, "arrow") as model:
            model.add(more["new"])
            model.replace(more["copy"])
            model.remove("upper")
            model.set_router("spectr:top_k=2")
            model.set_mix("outputs")
            found.append(model(IDS.to(base.device)).logits.detach().cpu())
    close(found[1], found[0])


@pytest.mark.slow
@pytest.mark.parametrize("router", ["arrow:top_k=2", COMPASS, "oracle"])
def test_a_token_is_waited_for_once(router, near_and_far, library, traffic):
    """A step of decoding fetches the numbers of its tokens, and sends them back: no router adds to that."""
    far = near_and_far[1]
    with lo.route(far, library, router) as model, torch.inference_mode():
        decoder = Decoder(model.caller, far.device)
        texts = [far.tokenizer(example.prompt)["input_ids"] for example in PROMPTS]
        requests = [Request(e, t, 4, lambda _: True) for e, t in zip(PROMPTS, texts, strict=True)]
        arriving = decoder.arriving(requests)
        arriving.read()
        decoder.join(arriving)
        decoder.step()
        traffic.forget()
        decoder.step()
        assert traffic.waits == {"_to_copy": 1}
        assert traffic.sent == 1


@pytest.mark.parametrize(("mix", "most"), [("outputs", 16), ("factors", 19)])
def test_a_routed_layer_launches_few_kernels(mix, most, traffic):
    """For a token that is decoded, in bfloat16, besides the base's own: docs/gpu.md has the table."""
    (layer,) = layers("arrow", FAR)
    layer.base.bfloat16(), layer.bank.cast(torch.bfloat16)
    layer.slot.mix, layer.bank.plan = mix, replace(layer.bank.plan, forced="chosen")
    x = torch.ones(1, 1, 12, dtype=torch.bfloat16).to(FAR)
    with torch.inference_mode():
        traffic.forget()
        layer.base(x)
        alone = traffic.launched.total()
        layer(x)
    assert 0 < traffic.launched.total() - 2 * alone <= most


def test_a_call_with_ids_fetches_none_of_them(near_and_far, library, traffic):
    far = near_and_far[1]
    with lo.route(far, library, "uniform") as model, torch.no_grad():
        ids = IDS.to(FAR)
        traffic.forget()
        model(ids)
        assert not traffic.waits


@pytest.mark.slow
def test_an_evaluation_gives_the_same_there(near_and_far, library, toy, tmp_path):
    found = []
    for i, base in enumerate(near_and_far):
        with lo.route(base, library, "uniform") as model:
            found.append(lo.evaluate(lo.Perplexity(), model, toy.only(["copy"]), into=tmp_path / f"{i}.jsonl").mean)
    assert found[1] == pytest.approx(found[0], rel=1e-5)


# ---- a base spread over two devices -------------------------------------------------------------

SECOND = {"model.layers.1": f"{FAR}:1", "model.norm": f"{FAR}:1", "lm_head": f"{FAR}:1"}
SPREAD = {"model.embed_tokens": FAR, "model.rotary_emb": FAR, "model.layers.0": FAR, **SECOND}


@pytest.fixture(scope="module")
def spread(near_and_far, tmp_path_factory):
    place = tmp_path_factory.mktemp("far") / "spread"
    near_and_far[0].write(place)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # the device is known in this thread alone
        return load_base(str(place), device_map=SPREAD, dtype="float32", attention="eager")


@pytest.mark.slow
@pytest.mark.parametrize("router", ["arrow:top_k=2", COMPASS, "oracle"])
def test_experts_and_gates_are_where_their_layer_is(router, spread, near_and_far, library):
    names = ["copy", "swap", "swap"] if router == "oracle" else None
    with lo.route(near_and_far[0], library, router) as model:
        expected, scores = model(IDS, tasks=names).logits.detach(), model.log_likelihood(PROMPTS)
        answers = model.generate_text(PROMPTS, max_new_tokens=3)
    with lo.route(spread, library, router) as model:
        for site, (bank, gate) in model._attachment.parts.items():
            device = torch.device(FAR, 1 if ".layers.1." in site else 0)
            assert {t.device for t in (bank.a, bank.b, bank.layout.rows, *gate.buffers())} == {device}
        close(model(IDS.to(FAR), tasks=names).logits.detach(), expected)
        assert model.generate_text(PROMPTS, max_new_tokens=3) == answers
        for one, other in zip(model.log_likelihood(PROMPTS), scores, strict=True):
            assert one.nats == pytest.approx(other.nats, rel=1e-4)
