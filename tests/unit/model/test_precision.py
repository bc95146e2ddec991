"""Which experts are chosen doesn't depend on the precision of the model, nor on how a GPU rounds products."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import lorary as lo
from lorary.adapters.low_rank import LowRankBank
from lorary.folder import ROUTERS
from lorary.model.attached.gate_calls import ask, exact_products
from lorary.routing.contract import Context, Gate, Routing
from lorary.testing.fakes import SITES, FakeProbe, fake_context, fake_experts
from lorary.testing.pico import pico_base, random_library

PRODUCTS = torch.backends.cuda.matmul


@pytest.fixture
def settings():
    """Put torch's settings back."""
    yield
    torch.set_float32_matmul_precision("highest")


class Asked(Gate):
    """Notes how products are made when it is asked."""

    def __init__(self):
        super().__init__()
        self.found = []

    def forward(self, h, context):
        self.found.append(PRODUCTS.fp32_precision)
        return Routing(h.new_ones(1, 1, 1, 1))


@pytest.mark.parametrize("how", ["high", "medium", "newer", "older"])
def test_no_score_is_made_in_tf32(how, settings):
    if how == "newer":
        PRODUCTS.fp32_precision = "tf32"
    elif how == "older":
        PRODUCTS.allow_tf32 = True
    else:
        torch.set_float32_matmul_precision(how)
    cpu = torch.backends.mkldnn.matmul.fp32_precision
    gate = Asked()
    with FakeTensorMode() as fake:
        ask(gate, FakeTensor(fake, torch.empty(1, 2, 4, device="meta"), torch.device("cuda")), Context())
    ask(gate, torch.ones(1, 2, 4), Context())
    assert gate.found == ["ieee", "tf32"]
    assert PRODUCTS.fp32_precision == "tf32"
    assert torch.backends.mkldnn.matmul.fp32_precision == cpu
    if how in ("high", "medium"):
        assert torch.get_float32_matmul_precision() == how


def test_threads_that_ask_at_once_leave_it_as_it_was(settings):
    torch.set_float32_matmul_precision("high")
    inside, leave, found = threading.Event(), threading.Event(), []

    def slow():
        with exact_products:
            inside.set()
            leave.wait(10)
            found.append(PRODUCTS.fp32_precision)

    thread = threading.Thread(target=slow)
    thread.start()
    assert inside.wait(10)
    assert exact_products.are_needed
    with exact_products:
        pass
    assert PRODUCTS.fp32_precision == "ieee"  # another is still asking
    leave.set()
    thread.join()
    assert found == ["ieee"] and PRODUCTS.fp32_precision == "tf32"


@pytest.mark.parametrize("name", ROUTERS.names())
def test_scores_are_float32_whatever_the_base_computes_in(name):
    """Hidden states in bfloat16 are routed as the same numbers in float32, to the bit."""
    seeds = {name: i for i, name in enumerate("abcde")}
    site, router = SITES["layers.0.q"], ROUTERS.load(name)()
    gate = router.gate(site, router.fit(fake_experts(seeds), SITES, FakeProbe(seeds)), sorted(seeds))
    gate.to(torch.bfloat16)  # as a model is that is cast as a whole
    h = torch.randn(3, 7, site.d_in, generator=torch.Generator().manual_seed(1)).bfloat16()
    one, other = (gate(x, fake_context(3, [0, 3, 4])) for x in (h, h.float()))
    assert one.weights.dtype == torch.float32
    assert torch.equal(one.weights, other.weights)
    assert one.experts is None or torch.equal(one.experts, other.experts)


@pytest.mark.parametrize("mix", ["factors", "outputs"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_experts_of_either_precision_speak_on_a_base_in_bfloat16(stored, mix):
    seeds = {name: i for i, name in enumerate("abcde")}
    site, experts = SITES["layers.0.q"], fake_experts(seeds)
    bank = LowRankBank([weights[site.name] for weights in experts.values()], site)
    x = torch.randn(2, 3, site.d_in, generator=torch.Generator().manual_seed(2))
    y = torch.zeros(2, 3, site.d_out)
    weights, chosen = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[0, 3]]]).expand(2, 3, 2)
    expected = bank(x, y, weights, chosen, mix)
    found = bank.cast(stored)(x.bfloat16(), y.bfloat16(), weights, chosen, mix)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


def test_a_model_in_bfloat16_chooses_as_its_hidden_states_in_float32_would(tmp_path):
    base = pico_base(dtype=torch.bfloat16)
    library = random_library(tmp_path / "lib", base, 6, targets=["q_proj"])
    with lo.route(base, library, "arrow:top_k=2") as model, torch.no_grad():
        layers, heard = model._attachment.layers, {}
        hooks = [layer.register_forward_hook(lambda m, x, _: heard.update({m.site: x[0]})) for layer in layers.values()]
        with model._attachment.slot.recording() as records:
            model(torch.arange(2, 26).view(3, 8))
        for hook in hooks:
            hook.remove()
        for site, layer in layers.items():
            assert heard[site].dtype == torch.bfloat16
            assert torch.equal(records[site][0].experts, layer.gate(heard[site].float(), Context()).experts)
