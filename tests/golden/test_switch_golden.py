"""Gates over all experts against numbers computed by hand and against plain dense autograd, and a whole library."""

import math
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorary
from lorary.adapters.contract import Site
from lorary.building.build import build
from lorary.building.builders import switch
from lorary.building.builders.switch import Switch
from lorary.building.training import loop as training
from lorary.building.training.curve import Curve
from lorary.errors import AdapterError, OptionError, RoutingError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import pad
from lorary.routing.contract import Context
from lorary.routing.routers.switch import SwitchRouter
from lorary.routing.softmax_gate import SharesGate, balance_of
from lorary.testing.pico import pico_base, random_library

NAMES = ["copy", "swap", "upper"]
QUICK = {"steps": 16, "batch_size": 4, "n_evaluations": 2, "lr": 0.03}


def test_shares_by_hand():
    """Scores of ln 4, ln 3, ln 1 are shares of 4/8, 3/8, 1/8: of two kept 4/7 and 3/7, which count 7/8 times."""
    learned = {f"{name}/q": torch.tensor([math.log(n), 0.0]) for name, n in (("a", 4), ("b", 3), ("c", 1))}

    class Left:
        def learned(self, kind, expert=None):
            assert (kind, expert) == ("switch", None)
            return {**learned, "top_k": torch.tensor([2])}

    site, names = Site("q", 2, 3), ["a", "b", "c"]
    state = SwitchRouter().fit({name: {"q": None} for name in names}, {"q": site}, Left())
    h = torch.tensor([[[1.0, 5.0]]])
    kept = SwitchRouter().gate(site, state, names)(h, Context())
    assert kept.experts.tolist() == [[[0, 1]]]
    torch.testing.assert_close(kept.weights, torch.tensor([[[[4 / 7, 3 / 7]]]]))
    torch.testing.assert_close(kept.strength, torch.tensor([[[[7 / 8]]]]))
    one = SwitchRouter(top_k=1).gate(site, state, names)(h, Context())
    torch.testing.assert_close(one.weights_for("outputs"), torch.tensor([[[[0.5]]]]))
    torch.testing.assert_close(one.weights_for("factors"), torch.tensor([[[[math.sqrt(0.5)]]]]))
    everybody = SwitchRouter(top_k=None).gate(site, state, names)(h, Context())
    torch.testing.assert_close(everybody.weights_for("outputs"), torch.tensor([[[[0.5, 0.375, 0.125]]]]))


def test_an_expert_without_a_row_at_a_site_is_never_chosen():
    gate = SharesGate(torch.ones(2, 4), torch.tensor([0, 2]), n_experts=3, top_k=None)
    routing = gate(torch.ones(1, 2, 4), Context())
    assert routing.experts.tolist() == [[[0, 2], [0, 2]]]
    nobody = SharesGate(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), n_experts=3, top_k=2)
    assert not nobody(torch.ones(1, 2, 4), Context()).weights.any()


def test_balance_by_hand():
    """Even choices give 1 and all to one expert P; padding doesn't count, several choices count as several."""
    even = torch.tensor([[[9.0, 0.0], [0.0, 9.0]]]) * 9
    one = torch.tensor([[[9.0, 0.0], [9.0, 0.0]]]) * 9
    assert float(balance_of(even, 1, None)) == pytest.approx(1)
    assert float(balance_of(one, 1, None)) == pytest.approx(2)
    assert float(balance_of(even, 1, torch.tensor([[True, False]]))) == pytest.approx(2)
    three = torch.tensor([[[math.log(2), math.log(1), math.log(1)]]])  # shares 1/2, 1/4, 1/4; two are chosen
    assert float(balance_of(three, 2, None)) == pytest.approx(3 * (0.5 * 0.5 + 0.5 * 0.25))


# ---- a layer and its gradient -------------------------------------------------------------------


def step_of(maker, base, library, tasks, monkeypatch, chosen=range(4)):
    """The loss of one step and the gates' gradients, by site, from gates that aren't even: what the builder trains."""
    seen = {}

    def one_step(trainable, options, n_steps, work, report):
        stack = trainable.stacks["routing"]
        stack.values.data.normal_(generator=torch.Generator().manual_seed(3))
        rows = trainable.batch(0, chosen)
        n_tokens = [sum(len(row.text.completion) for row in rows)]
        run = training._Run(trainable, options, 1, None)
        seen["loss"] = training._gradients(run, rows, n_tokens, 5)[0]
        gates = {site: layer.gate for site, layer in trainable.attachment.layers.items()}
        seen["w"] = {site: gate.vectors.detach().clone() for site, gate in gates.items()}
        sizes = [gate.vectors.numel() for gate in gates.values()]
        parts = stack.grad[0].split(sizes)
        seen["grad"] = {s: p.view(gate.vectors.shape) for (s, gate), p in zip(gates.items(), parts, strict=True)}
        seen["batch"] = pad([row.text for row in rows])
        return [Curve()]

    monkeypatch.setattr(switch, "train", one_step)
    maker.run(maker.plan(tasks, library), base, None, None)
    return seen


def dense(w, experts, top_k, mix, balances, mask, _, args, out):
    """W x + what the kept experts make of it, as a hook on the base's layer: all experts, no layout, no banks."""
    x = args[0]
    p = torch.softmax(x @ w.T, -1)  # (B, T, E)
    kept = torch.zeros_like(p).scatter(-1, p.topk(top_k or p.shape[-1], dim=-1)[1], 1.0)
    balances.append(len(w) * ((kept[mask].sum(0) / kept[mask].sum()) * p[mask].mean(0)).sum())
    p = p * kept
    a, b = (torch.stack([weights.factors()[side] for weights in experts]) for side in (0, 1))  # (E, r, d), (E, d, r)
    if mix == "outputs":
        return out + torch.einsum("bte,eor,eri,bti->bto", p, b, a, x)
    share = p.sum(-1, keepdim=True)
    n = p / share
    z = torch.einsum("bte,eri,bti->btr", n, a, x)
    return out + share * torch.einsum("bte,eor,btr->bto", n, b, z)


@pytest.mark.parametrize(
    ("mix", "top_k", "balance"), [("outputs", 1, 0.5), ("outputs", None, 0.0), ("factors", 2, 0.5), ("factors", 1, 0.0)]
)
def test_the_layer_and_its_gradient_are_the_formula_s(mix, top_k, balance, base, toy, tmp_path, monkeypatch):
    library = random_library(tmp_path / "lib", base, NAMES, ranks=[1, 2, 3] if mix == "outputs" else 2)
    maker = Switch(**QUICK, mix=mix, top_k=top_k, balance=balance)
    found = step_of(maker, base, library, toy.only(NAMES), monkeypatch)
    experts, balances = read_experts(library), []
    w = {site: value.requires_grad_() for site, value in found["w"].items()}
    if mix == "outputs":  # unequal ranks can't be stacked: padded, they are the same
        experts = {name: {s: padded(x, 3) for s, x in sites.items()} for name, sites in experts.items()}
    for site in w:
        here, mask = [experts[name][site] for name in NAMES], found["batch"].mask.bool()
        hook = partial(dense, w[site], here, top_k, mix, balances, mask)
        w[site].hook = base.hf.get_submodule(site).register_forward_hook(hook)
    batch = found["batch"]
    loss = row_losses(base, batch).sum() / batch.n_labels.sum()
    (loss + balance * torch.stack(balances).sum()).backward()
    for value in w.values():
        value.hook.remove()
    torch.testing.assert_close(found["loss"], loss)
    for site, value in w.items():
        assert value.grad.abs().max() > 1e-6
        torch.testing.assert_close(found["grad"][site], value.grad, atol=1e-5, rtol=1e-3)


def test_a_pass_counts_by_its_rows(base, toy, tmp_path, monkeypatch):
    """Of one row again and again every pass is alike, so that it doesn't matter how many there are."""
    library = random_library(tmp_path / "lib", base, NAMES, ranks=2)
    whole, parts = (
        step_of(Switch(**QUICK, balance=0.5, pass_tokens=n), base, library, toy.only(NAMES), monkeypatch, [0, 0, 0])
        for n in (1024, 1)
    )
    for site, gradient in whole["grad"].items():
        torch.testing.assert_close(parts["grad"][site], gradient, atol=1e-5, rtol=1e-3)


def padded(weights, rank):
    more = rank - weights.rank
    a, b = (torch.nn.functional.pad(t, pad) for t, pad in ((weights.a, (0, 0, 0, more)), (weights.b, (0, more))))
    return type(weights)(a, b, weights.scale)


# ---- a whole library ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private(_pico, toy, tmp_path_factory):
    into = tmp_path_factory.mktemp("private") / "lib"
    return build("private:rank=2,steps=24,batch_size=4,lr=1e-2", toy.only(NAMES), _pico, into=into)


@pytest.fixture(scope="module")
def gated(private, _pico, toy, tmp_path_factory):
    into = tmp_path_factory.mktemp("gated") / "lib"
    return build(Switch(**QUICK, top_k=2), toy.only(NAMES), _pico, source=private, into=into)


def learned_file(library):
    return library.path / "learned" / f"switch-{library['copy'].provenance.extra['job']}.safetensors"


@pytest.mark.slow
def test_the_experts_are_copies_and_every_one_has_rows(private, gated):
    for name in NAMES:
        assert gated[name].provenance.weights_sha256 == private[name].provenance.weights_sha256
        assert f"{name}@{private[name].hash[:12]}" in gated[name].provenance.parents
    rows = load_file(learned_file(gated))
    assert rows.pop("top_k").tolist() == [2]
    assert rows.keys() == {f"{name}/{site}" for name in NAMES for site in gated[name].sites}
    assert all(row.shape == (32,) and row.abs().max() > 1e-3 for row in rows.values())


def test_the_trained_gates_beat_the_mean_of_the_experts(base, gated, toy):
    """And they send a task's tokens to its own expert more than the tokens of other tasks."""
    losses, shares = {}, {}
    for router in ("uniform", "switch"):
        with route(base, gated, router) as model:
            scores = [-one.nats for name in NAMES for one in model.log_likelihood(toy[name].test)]
            losses[router] = sum(scores)
            if router == "switch":
                for name in NAMES:
                    found = [model.explain(e, max_new_tokens=1).shares.mean(0) for e in toy[name].test[:3]]
                    shares[name] = torch.stack(found).mean(0)
    assert losses["switch"] < 0.9 * losses["uniform"]
    table = torch.stack([shares[name] for name in NAMES])
    assert (table.diagonal() > (table.sum(0) - table.diagonal()) / 2).all()


def answer(model):
    with torch.inference_mode():
        return model(torch.arange(2, 26).view(3, 8)).logits


def test_a_model_is_saved_and_opened_with_its_gates(base, gated, tmp_path):
    with route(base, gated, "switch") as model:
        expected, saved = answer(model), model.save(tmp_path / "saved")
    with lorary.load(saved, base=base) as model:
        assert torch.equal(answer(model), expected)
        model.set_router("uniform")
        assert not torch.equal(answer(model), expected)
        model.set_router("switch")
        assert torch.equal(answer(model), expected), "with what it was saved with"
        model.set_router("switch:top_k=1")
        assert not torch.equal(answer(model), expected)


def test_who_leaves_takes_its_rows_and_who_comes_is_refused(base, private, gated, toy, tmp_path):
    with route(base, gated, "switch") as model:
        whole = answer(model)
        model.remove("swap")
        assert torch.isfinite(answer(model)).all() and not torch.equal(answer(model), whole)
        model.add(gated["swap"])
        assert torch.equal(answer(model), whole)
        other = Library.create(tmp_path / "other", base=base.fingerprint)
        other.add(private["copy"].directory, "newcomer")
        with pytest.raises(RoutingError, match=r"^error\[E-LEARNED\] these experts have no gates that were trained"):
            model.add(other["newcomer"])
        assert torch.equal(answer(model), whole), "the refusal changed nothing"
    with pytest.raises(RoutingError) as caught:
        route(pico_base(), private, "switch")
    assert "Build a library of this one with --method switch --from it, and route that." in str(caught.value)


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.ones(32).long()])
def test_rows_that_do_not_fit_are_refused(bad, base, gated):
    path, name = learned_file(gated), "swap/" + next(iter(gated["swap"].sites))
    written, whole = path.read_bytes(), {key: value.clone() for key, value in load_file(path).items()}
    try:
        for broken in ({**whole, name: bad}, {**whole, "top_k": torch.tensor([-1])}):
            save_file(broken, path)
            with pytest.warns(RuntimeWarning, match="W-ORIGIN"), pytest.raises(RoutingError, match="E-LEARNED"):
                route(base, gated, "switch")
    finally:
        path.write_bytes(written)


def test_passes_decide_where_load_is_balanced_and_nowhere_else(base, toy, tmp_path):
    library, tasks = random_library(tmp_path / "lib", base, NAMES, ranks=2), toy.only(NAMES)
    keys = {
        (balance, tokens): Switch(balance=balance, pass_tokens=tokens).plan(tasks, library)[0].key({})
        for balance in (0.0, 0.01)
        for tokens in (64, 128)
    }
    assert keys[0.0, 64] == keys[0.0, 128]
    assert len(set(keys.values())) == 3


def test_what_makes_no_sense_is_refused(base, toy, tmp_path):
    for options in ({"top_k": 0}, {"balance": -1.0}, {"mix": "both"}):
        with pytest.raises(OptionError, match="E-OPTION"):
            Switch(**options)
    with pytest.raises(OptionError, match="E-OPTION"):
        SwitchRouter(top_k=0)
    uneven = random_library(tmp_path / "lib", base, NAMES, ranks=[1, 2, 3])
    with pytest.raises(AdapterError, match=r"^error\[E-RANK\] .*factors.* Write switch:mix=outputs"):
        build(Switch(steps=1), toy.only(NAMES), base, source=uneven, into=tmp_path / "into")
