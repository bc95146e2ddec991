"""Poly and MHR against numbers computed by hand from the papers' formulas, and a whole library of each."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorary
from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.building.build import build
from lorary.building.builders.mhr import MHR
from lorary.building.builders.poly import Poly
from lorary.errors import BuildError, RoutingError, TaskError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.routing.contract import Context
from lorary.routing.routers.poly import PolyRouter
from lorary.routing.task_skills import TaskGate, pack_state
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base, random_library

SITE = Site("q", 2, 2)
LN3 = math.log(3)  # sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4, sigmoid(0) = 1/2
ONE = Weights(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]]), scale=1.0)
TWO = Weights(torch.tensor([[5.0, -2.0]]), torch.tensor([[-1.0], [1.0]]), scale=2.0)
X = torch.tensor([[[1.0, 1.0]]])


def answer(logits, task):
    bank = LowRankBank([ONE, TWO], SITE)
    routing = TaskGate(torch.tensor(logits))(X, Context(experts=torch.tensor([task])))
    return routing.weights, bank(X, torch.zeros(1, 1, 2), routing.weights, routing.experts, "factors")


def test_poly_by_hand():
    """Z = (ln 3, -ln 3): sigmoids 3/4, 1/4 sum to 1, so w = (3/4, 1/4).

    A = 3/4 (1, 2) + 1/4 (5, -2) = (2, 1); A x = 3. B = 3/4 (1, 3) + 1/4 * 2 * (-1, 1) = (1/4, 11/4).
    B A x = (3/4, 33/4). For Z = (0, ln 3): 1/2, 3/4 sum to 5/4, so w = (2/5, 3/5).
    """
    logits = [[[LN3, -LN3]], [[0.0, LN3]]]  # (T, S, E)
    weights, found = answer(logits, 0)
    torch.testing.assert_close(weights, torch.tensor([[[[0.75, 0.25]]]]))
    torch.testing.assert_close(found, torch.tensor([[[0.75, 8.25]]]))
    torch.testing.assert_close(answer(logits, 1)[0], torch.tensor([[[[0.4, 0.6]]]]))


def test_mhr_by_hand():
    """Two blocks of one channel each: block 0 has w = (3/4, 1/4), block 1 has w = (1/4, 3/4).

    A = (3/4 * 1 + 1/4 * 5, 1/4 * 2 + 3/4 * -2) = (2, -1); A x = 1.
    B = (3/4 * 1 + 1/4 * 2 * -1, 1/4 * 3 + 3/4 * 2 * 1) = (1/4, 9/4); B A x = (1/4, 9/4).
    """
    _, found = answer([[[LN3, -LN3], [-LN3, LN3]]], 0)
    torch.testing.assert_close(found, torch.tensor([[[0.25, 2.25]]]))


def test_a_very_small_logit_is_no_division_by_zero():
    weights, _ = answer([[[-200.0, -200.0]]], 0)
    torch.testing.assert_close(weights, torch.tensor([[[[0.5, 0.5]]]]))


def test_raw_weights_by_hand():
    """w = (1, -1) itself: A = (1, 2) - (5, -2) = (-4, 4), A x = 0; of w = (1, 1/2), A = (7/2, 1), A x = 9/2.

    B = (1, 3) + 1/2 * 2 * (-1, 1) = (0, 4); B A x = (0, 18).
    """
    weights = torch.tensor([[[1.0, -1.0]], [[1.0, 0.5]]])
    gate = TaskGate(weights, raw=True)
    bank = LowRankBank([ONE, TWO], SITE)
    for task, expected in enumerate(([0.0, 0.0], [0.0, 18.0])):
        routing = gate(X, Context(experts=torch.tensor([task])))
        found = bank(X, torch.zeros(1, 1, 2), routing.weights, routing.experts, "factors")
        torch.testing.assert_close(found, torch.tensor([[expected]]))


# ---- whole libraries ----------------------------------------------------------------------------

QUICK = {"steps": 30, "batch_size": 6, "rank": 2, "n_skills": 3, "n_evaluations": 3, "dropout": 0.0, "lr": 1e-2}
NAMES = ["copy", "swap", "upper"]


@pytest.fixture(params=["poly", "mhr"], scope="module")
def built(request, _pico, toy, tmp_path_factory):
    builder = {"poly": Poly(**QUICK), "mhr": MHR(**QUICK, n_heads=4)}[request.param]
    into = tmp_path_factory.mktemp(request.param) / "lib"
    return request.param, build(builder, toy.only(NAMES), _pico, into=into)


def learned(library):
    (path,) = (library.path / "learned").iterdir()
    return load_file(path)


@pytest.mark.slow
def test_the_library_holds_the_skills_and_z(built):
    name, library = built
    assert list(library) == ["k0", "k1", "k2"]
    state, blocks = learned(library), {"poly": 1, "mhr": 4}[name]
    assert json.loads(bytes(state.pop("tasks").tolist())) == NAMES
    assert {tuple(t.shape) for t in state.values()} == {(3, blocks, 3)}
    assert max(float(t.abs().max()) for t in state.values()) > 0.1, "z has learned"
    experts = read_experts(library)
    for site in experts["k0"]:
        assert not torch.allclose(experts["k0"][site].a, experts["k1"][site].a)


def test_the_router_is_what_was_trained(built, base, toy):
    """The loss of the routed library is the best validation loss that training saw."""
    name, library = built
    examples = [Example(e.prompt, e.completion, task) for task in NAMES for e in toy[task].valid]
    losses = {}
    for router in (name, "uniform"):
        with route(base, library, router, mix="factors") as model:
            scores = model.log_likelihood(examples)
        losses[router] = -sum(s.nats for s in scores) / sum(s.n_tokens for s in scores)
    assert losses[name] == pytest.approx(library["k0"].provenance.metrics["valid_loss"], rel=1e-4)
    assert losses[name] < losses["uniform"], "each task's own mixture is better than the mean of all"


def test_uniform_is_poly_mu(built):
    """(mean of s B) (mean of A) at every site, whatever z says."""
    _, library = built
    base = pico_base()
    experts, ids = read_experts(library), torch.tensor([[5, 6, 7]])
    with route(base, library, "uniform", mix="factors") as model:
        found = model(ids).logits
    for site in experts["k0"]:
        pairs = [experts[name][site].factors() for name in experts]
        delta = torch.stack([b for _, b in pairs]).mean(0) @ torch.stack([a for a, _ in pairs]).mean(0)
        base.hf.get_submodule(site).weight.data.add_(delta)
    torch.testing.assert_close(found, base.hf(ids).logits, atol=1e-3, rtol=1e-4)


def test_a_task_that_nobody_trained_has_no_mixture(built, base, toy):
    name, library = built
    with (
        route(base, library, name) as model,
        pytest.raises(TaskError, match=r"^error\[E-TASK\] no expert was trained"),
    ):
        model.log_likelihood([Example("a", "b", "poems")])


@pytest.mark.parametrize("keep", ["copy", "refer"])
def test_a_saved_model_returns_to_the_weights_it_came_with(keep, built, base, tmp_path):
    name, library = built
    with route(base, library, name, mix="factors") as model, torch.inference_mode():
        expected = model(torch.tensor([[5, 6, 7]]), tasks=["swap"]).logits
        saved = model.save(tmp_path / "saved", experts=keep)
    with lorary.load(saved, base=base) as model, torch.inference_mode():
        model.set_router("uniform")
        model.set_router(name)
        assert torch.equal(model(torch.tensor([[5, 6, 7]]), tasks=["swap"]).logits, expected)


# ---- refusals -----------------------------------------------------------------------------------


def test_a_library_without_z_is_refused(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 2)
    with pytest.raises(RoutingError) as caught:
        route(base, library, "poly")
    assert str(caught.value) == (
        "error[E-LEARNED] this library has no Poly weights for its experts. Build it with --method poly."
    )


def test_z_of_other_experts_is_refused(base, toy, tmp_path):
    library = build(Poly(**{**QUICK, "steps": 1}), toy.only(NAMES), base, into=tmp_path / "lib")
    library.remove("k1")
    with pytest.raises(RoutingError, match=r"^error\[E-LEARNED\] the Poly weights of '.*' are \(3, 1, 3\), expected "):
        route(base, Library.open(tmp_path / "lib"), "poly")


def test_weights_learned_for_all_together_take_nobody_in_and_let_nobody_go(built, base, tmp_path):
    name, library = built
    other = random_library(tmp_path / "other", base, ["k0", "new"], ranks=2)
    with route(base, library, name, mix="factors") as model:
        saved = model.save(tmp_path / "saved")
    for opening in (lambda: route(base, library, name, mix="factors"), lambda: lorary.load(saved, base=base)):
        with opening() as model:
            for change in (lambda m: m.add(other["new"]), lambda m: m.replace(other["k0"]), lambda m: m.remove("k1")):
                with pytest.raises(RoutingError) as caught:
                    change(model)
                assert str(caught.value) == (
                    f"error[E-LEARNED] what router '{name}' knows was learned for just these experts, all together. "
                    "Take another router first (set_router), or route a library that was built with the change."
                )
            model.set_router("uniform")
            model.replace(other["k0"])
            model.remove("k1")


@pytest.mark.parametrize("content", [b"", b"x" * 100], ids=["empty", "garbage"])
def test_a_damaged_file_is_refused(base, toy, tmp_path, content):
    library = build(Poly(**{**QUICK, "steps": 1}), toy.only(NAMES), base, into=tmp_path / "lib")
    (path,) = (library.path / "learned").iterdir()
    path.write_bytes(content)
    with pytest.raises(RoutingError, match=r"^error\[E-LEARNED\] .* can't be read: "):
        route(base, library, "poly")


def test_numbers_that_are_none_are_refused():
    class Left:
        def learned(self, kind):
            return pack_state({"q": torch.tensor([[[1.0, math.nan]]])}, ["t"])

    with pytest.raises(RoutingError, match=r"^error\[E-LEARNED\] "):
        PolyRouter().fit({"a": {}, "b": {}}, {"q": SITE}, Left())


def test_heads_must_divide_the_widths(base, toy, tmp_path):
    with pytest.raises(BuildError) as caught:
        build(MHR(**QUICK, n_heads=5), toy.only(NAMES), base, into=tmp_path / "lib")
    assert str(caught.value) == (
        "error[E-BLOCKS] site 'model.layers.0.self_attn.q_proj' is 32 -> 32, which 5 heads can't divide. "
        "Choose n_heads that divides both."
    )


def test_a_gate_without_tasks_says_so():
    with pytest.raises(TaskError, match=r"^error\[E-TASK\] learned routing needs the task of every row\."):
        TaskGate(torch.zeros(1, 1, 2))(X, Context())


def test_the_state_survives_a_file(tmp_path):
    state = pack_state({"q": torch.zeros(1, 1, 2)}, ["täsk"])
    save_file(state, tmp_path / "s")
    assert bytes(load_file(tmp_path / "s")["tasks"].tolist()).decode() == '["t\\u00e4sk"]'
