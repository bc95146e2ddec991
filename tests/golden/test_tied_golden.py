"""Tied q, k and v against dense matrices: the one layer that gives the outputs of all, as Phi-2's Wqkv."""

import numpy as np
import pytest
import torch
from golden_peft import answer, assert_same, routed_answer

from lorary.adapters.contract import Site, Weights
from lorary.adapters.lora import LoRA
from lorary.errors import OptionError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.routing.contract import Context
from lorary.routing.routers.arrow import Arrow
from lorary.testing.pico import add_expert, pico_base, random_library, random_weights

N = 4
QKV = ("q_proj", "k_proj", "v_proj")


def library_of(path, base, *, shared_a):
    """Make random experts; with one A for q, k and v, as the paper's Phi-2 has them."""
    library, kind = Library.create(path, base=base.fingerprint), LoRA()
    for i in range(N):
        weights = random_weights(kind, base.target_sites(["attention"]), seed=i)
        for site in [s for s in weights if shared_a and s.endswith(QKV[1:])]:
            q = weights[f"{site.rpartition('.')[0]}.q_proj"]
            weights[site] = Weights(q.a.clone(), weights[site].b, q.scale)
        add_expert(library, f"e{i}", base, kind, weights)
    return library


@pytest.fixture(scope="module", params=[True, False], ids=["one A", "three A"])
def library(request, _pico, tmp_path_factory):
    return library_of(tmp_path_factory.mktemp("tied") / "lib", _pico, shared_a=request.param)


def names_of(site):
    module, _, last = site.rpartition(".")
    return [f"{module}.{name}" for name in QKV] if last in QKV else [site]


def dense_prototype(expert, site):
    whole = np.concatenate([expert[name].delta().double().numpy() for name in names_of(site)])
    return torch.from_numpy(np.linalg.svd(whole)[2][0]).float()


def dense_answer(library, top_k):
    """Run a fresh base with one dense matrix a token at every site; "factors", as the paper mixes."""
    base, experts = pico_base(), list(read_experts(library).values())

    def add(site):
        v = torch.stack([dense_prototype(expert, site) for expert in experts])
        a, b = (torch.stack(sides) for sides in zip(*[expert[site].factors() for expert in experts], strict=True))

        def hook(module, args, y):
            (h,) = args
            scores = (h @ v.T).abs()
            kept = scores >= scores.topk(top_k, dim=-1)[0][..., -1:]
            w = torch.softmax(scores.masked_fill(~kept, -torch.inf), dim=-1)
            delta = torch.einsum("bte,eor->btor", w, b) @ torch.einsum("bte,eri->btri", w, a)
            return y + (delta @ h.unsqueeze(-1)).squeeze(-1)

        return hook

    for site in experts[0]:
        base.hf.get_submodule(site).register_forward_hook(add(site))
    return answer(base.hf)


@pytest.mark.parametrize("top_k", [1, 3])
def test_tied_arrow_is_the_dense_loop(top_k, base, library):
    tied = routed_answer(base, library, Arrow(top_k=top_k, tie=QKV), mix="factors")
    assert_same(tied, dense_answer(library, top_k))
    assert (tied - routed_answer(base, library, Arrow(top_k=top_k), mix="factors")).abs().max() > 0.01


def test_tied_layers_are_routed_as_the_one_layer_that_they_stand_for(base, library):
    """A base whose q, k and v are one layer has no tie to speak of: the same experts by the same weights."""
    experts, parts = read_experts(library), {s.name.rpartition(".")[2]: s for s in base.target_sites(QKV)[:3]}
    sites = {s.name: s for s in parts.values()}
    whole = Site("wqkv", parts["q_proj"].d_in, sum(site.d_out for site in sites.values()))
    fused = {name: {"wqkv": _fused([expert[parts[q].name] for q in QKV])} for name, expert in experts.items()}
    h = torch.randn(2, 7, whole.d_in, generator=torch.Generator().manual_seed(1))
    one = Arrow(top_k=2)
    expected = one.gate(whole, one.fit(fused, {"wqkv": whole}, None), sorted(experts))(h, Context())
    tied = Arrow(top_k=2, tie=QKV)
    state = tied.fit(experts, sites, None)
    for site in sites.values():
        found = tied.gate(site, state, sorted(experts))(h, Context())
        assert torch.equal(found.experts, expected.experts)
        torch.testing.assert_close(found.weights, expected.weights, atol=1e-5, rtol=0)


def _fused(parts):
    """Write the dense update of all three as factors of full rank."""
    whole = torch.cat([w.delta() for w in parts])
    return Weights(torch.eye(whole.shape[1]), whole, 1.0)


def test_an_expert_is_heard_where_it_sits(base, tmp_path):
    """Without weights for k it is tied at q and v alone; a k that changes nothing is a part of the three."""
    library, kind = Library.create(tmp_path / "lib", base=base.fingerprint), LoRA()
    whole = random_weights(kind, base.target_sites(QKV), seed=0)
    add_expert(library, "all", base, kind, whole)
    add_expert(library, "qv", base, kind, {s: w for s, w in whole.items() if not s.endswith("k_proj")})
    quiet = {s: Weights(w.a, 0 * w.b, w.scale) if s.endswith("k_proj") else w for s, w in whole.items()}
    add_expert(library, "quiet", base, kind, quiet)
    sites = {s.name: s for s in base.target_sites(QKV)}
    state = Arrow(tie=QKV).fit(read_experts(library), sites, None)
    for site in sites:
        assert state[f"{site}.members"].tolist() == ([0, 1] if site.endswith("k_proj") else [0, 1, 2])
        quiet, qv = state[f"{site}.vectors"][1], state[f"{site.rpartition('.')[0]}.q_proj.vectors"][2]
        torch.testing.assert_close(quiet, qv, atol=1e-6, rtol=0)


def test_an_expert_that_comes_later_is_tied_too(base, tmp_path):
    library = random_library(tmp_path / "lib", base, N)
    few = Library.create(tmp_path / "few", base=base.fingerprint)
    for name in ("e0", "e1", "e3"):
        few.add(library[name].directory, name)
    with route(base, few, Arrow(tie=QKV), mix="outputs") as model:
        model.add(library["e2"])
        found = answer(model)
    assert torch.equal(found, routed_answer(base, library, Arrow(tie=QKV)))


@pytest.mark.parametrize(
    ("tie", "told"),
    [
        (("q_proj", "v_porj"), "'v_porj' is no layer beside another of these. The layers are down_proj, k_proj, "),
        (("q_proj",), "'q_proj' is no layer beside another of these."),
    ],
)
def test_what_can_t_be_tied_is_refused(tie, told, base, tmp_path):
    library = random_library(tmp_path / "lib", base, 2, targets=["attention", "down_proj"])
    with pytest.raises(OptionError) as caught:
        routed_answer(base, library, Arrow(tie=tie))
    assert str(caught.value).startswith(f"error[E-OPTION] tie={tie}: {told}")


def test_layers_of_other_widths_are_not_tied():
    sites = {name: Site(name, d_in, 4) for name, d_in in (("mlp.up", 8), ("mlp.down", 16))}
    with pytest.raises(OptionError, match="tie: 'mlp.up' reads 8 numbers, 'mlp.down' 16."):
        Arrow(tie=("up", "down")).fit({}, sites, None)
