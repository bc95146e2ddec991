"""Arrow against dense loops, and against PEFT's Arrow with our prototypes in it."""

import pytest
import torch
from golden_peft import answer, assert_same, ids, library_of, make_adapter, peft_only, routed_answer
from peft import ArrowConfig, create_arrow_model

from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.routing.directions import right_singular
from lorary.routing.routers.arrow import Arrow
from lorary.testing.pico import add_expert, pico_base, random_library, random_weights

N = 5


@pytest.fixture(scope="module")
def library(_pico, tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("arrow") / "lib", _pico, N, targets=["attention", "down_proj"])


def dense_prototype(w):
    return torch.linalg.svd(w.delta().double())[2][0].float()


def dense_weights(h, experts, site, top_k):
    """Arrow as the paper writes it, one token at a time."""
    prototypes = [dense_prototype(expert[site]) for expert in experts]
    weights = torch.zeros(*h.shape[:2], len(experts))
    for b in range(h.shape[0]):
        for t in range(h.shape[1]):
            scores = [abs(float(v @ h[b, t])) for v in prototypes]
            kept = sorted(range(len(experts)), key=lambda i: (-scores[i], i))[:top_k]
            total = sum(torch.tensor(scores[i]).exp() for i in kept)
            for i in kept:
                weights[b, t, i] = torch.tensor(scores[i]).exp() / total
    return weights


def dense_answer(library, top_k, mix):
    """Run a fresh base with one dense matrix a token at every site."""
    base, experts = pico_base(), list(read_experts(library).values())

    def add(site):
        def hook(module, args, y):
            w = dense_weights(args[0], experts, site, top_k)
            a = torch.stack([e[site].a for e in experts])
            b = torch.stack([e[site].scale * e[site].b for e in experts])
            if mix == "outputs":
                delta = torch.einsum("bte,eor,eri->btoi", w, b, a)
            else:
                delta = torch.einsum("bte,eor->btor", w, b) @ torch.einsum("bte,eri->btri", w, a)
            return y + (delta @ args[0].unsqueeze(-1)).squeeze(-1)

        return hook

    for site in experts[0]:
        base.hf.get_submodule(site).register_forward_hook(add(site))
    return answer(base.hf)


@pytest.mark.parametrize("mix", ["outputs", "factors"])
@pytest.mark.parametrize("top_k", [1, 2, N])
def test_arrow_is_the_dense_loop(top_k, mix, base, library):
    assert_same(routed_answer(base, library, Arrow(top_k=top_k), mix=mix), dense_answer(library, top_k, mix))


def test_the_two_mixes_and_other_top_k_differ(base, library):
    found = [routed_answer(base, library, Arrow(top_k=k), mix=mix) for k in (1, 2, N) for mix in ("outputs", "factors")]
    assert torch.allclose(found[0], found[1], atol=1e-4), "one kept expert has no cross terms"
    assert all((found[i] - found[j]).abs().max() > 0.01 for i in range(2, 6) for j in range(i))


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("top_k", [1, 3, N])
def test_arrow_is_peft_s_arrow(top_k, rslora, base, tmp_path):
    directories = {f"e{i}": tmp_path / f"e{i}" for i in range(N)}
    for i, directory in enumerate(directories.values()):
        make_adapter(directory, seed=i, lora_alpha=2 + i, use_rslora=rslora)
    library = library_of(tmp_path / "lib", base, directories)
    hf = pico_base().hf
    with peft_only("Already found a `peft_config`", "Adapter .* was active"):
        model = create_arrow_model(hf, list(map(str, directories.values())), ArrowConfig(top_k=top_k)).eval()
    inject_prototypes(model, read_experts(library))
    # The two add up in another order, and these experts are loud: a few ten-thousandths of the logits' spread.
    assert_same(routed_answer(base, library, Arrow(top_k=top_k)), answer(model), atol=1e-4)


def inject_prototypes(model, experts):
    """PEFT's own come from fifteen power iterations and a random start."""
    arrows = {n: m["arrow_router"] for n, m in model.named_modules() if n.endswith(".lora_arrow")}
    sites = {n.removeprefix("base_model.model.").removesuffix(".lora_arrow"): layer for n, layer in arrows.items()}
    assert sorted(sites) == sorted(experts["e0"])
    for site, layer in sites.items():
        assert layer.task_adapter_names == [f"task_{i}" for i in range(N)]
        vectors = torch.stack([right_singular(expert[site])[0][0] for expert in experts.values()])
        layer.register_buffer("prototypes", vectors, persistent=False)
        layer._protos_ready = True


@pytest.mark.parametrize(("d_in", "d_out", "rank"), [(12, 20, 3), (20, 12, 4), (8, 8, 8), (6, 3, 5), (30, 30, 1)])
def test_directions_are_those_of_a_dense_svd(d_in, d_out, rank):
    generator = torch.Generator().manual_seed(rank)
    a, b = torch.randn(rank, d_in, generator=generator), torch.randn(d_out, rank, generator=generator)
    vectors, values = right_singular(Weights(a, b, 0.5))
    _, dense_values, dense = torch.linalg.svd(0.5 * b.double() @ a.double(), full_matrices=False)
    n = min(d_in, d_out, rank)
    torch.testing.assert_close(values[:n], dense_values[:n].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values[n:], torch.zeros(len(values) - n), atol=1e-5, rtol=0)
    agreement = (vectors[:n].double() * dense[:n]).sum(1).abs()
    torch.testing.assert_close(agreement, torch.ones(n, dtype=torch.float64), atol=1e-6, rtol=0)

    m = torch.randn(rank, rank, generator=generator) + 3 * torch.eye(rank)
    turned, _ = right_singular(Weights(m @ a, b @ torch.linalg.inv(m), 0.5))
    torch.testing.assert_close(turned[0], vectors[0], atol=1e-4, rtol=0)


def test_top_k_is_clamped_to_the_experts(base, library):
    assert torch.equal(routed_answer(base, library, "arrow:top_k=99"), routed_answer(base, library, f"arrow:top_k={N}"))


def test_a_high_temperature_makes_it_uniform(base, library):
    assert_same(
        routed_answer(base, library, f"arrow:top_k={N},temperature=1e9"), routed_answer(base, library, "uniform")
    )


def same_experts(path, base, changes):
    """Make a library of one expert several times over, each with its own change."""
    library, kind = Library.create(path, base=base.fingerprint), LoRA()
    weights = random_weights(kind, base.target_sites(["attention"]), seed=3)
    for name, change in changes.items():
        add_expert(library, name, base, kind, {site: change(w) for site, w in weights.items()})
    return library


def keep(w):
    return w


def negate_both(w):
    return Weights(-w.a, -w.b, w.scale)


def silence(w):
    return Weights(w.a, 0 * w.b, w.scale)


@pytest.mark.parametrize("mix", ["outputs", "factors"])
def test_identical_experts_are_as_one(mix, base, tmp_path):
    twins = same_experts(tmp_path / "twins", base, dict.fromkeys(["a", "b", "c"], keep))
    lone = same_experts(tmp_path / "lone", base, {"a": keep})
    for router in ("arrow:top_k=2", "uniform", "arrow"):
        assert_same(routed_answer(base, twins, router, mix=mix), routed_answer(base, lone))


def test_ties_go_to_the_lower_index(base, tmp_path):
    twins = same_experts(tmp_path / "twins", base, {"a": silence, "b": keep, "c": negate_both, "d": keep})
    experts = read_experts(twins)
    site = base.target_sites(["q_proj"])[0]
    router = Arrow(top_k=2)
    gate = router.gate(site, router.fit(experts, {site.name: site}, None), sorted(experts))
    routing = gate(torch.randn(2, 50, site.d_in, generator=torch.Generator().manual_seed(0)), None)
    assert (routing.experts == torch.tensor([1, 2])).all()
    assert torch.equal(routing.weights, torch.full((2, 50, 1, 2), 0.5))


def test_experts_that_change_nothing_are_left_out(base, tmp_path):
    some = same_experts(tmp_path / "some", base, {"a": silence, "b": keep, "c": silence})
    lone = same_experts(tmp_path / "lone", base, {"b": keep})
    none = same_experts(tmp_path / "none", base, {"a": silence, "c": silence})
    assert_same(routed_answer(base, some, "arrow"), routed_answer(base, lone))
    assert torch.equal(routed_answer(base, none, "arrow"), answer(base.hf))


def test_experts_may_sit_at_different_sites(base, tmp_path):
    library, kind = Library.create(tmp_path / "lib", base=base.fingerprint), LoRA()
    parts = {"a": ["q_proj"], "b": ["q_proj", "down_proj"], "c": ["down_proj"]}
    for i, (name, targets) in enumerate(parts.items()):
        add_expert(library, name, base, kind, random_weights(kind, base.target_sites(targets), seed=i))
    routed = {mix: routed_answer(base, library, "arrow:top_k=1", mix=mix) for mix in ("outputs", "factors")}
    assert_same(routed["factors"], routed["outputs"])

    def hook(site):
        experts = [e for e in read_experts(library).values() if site in e]

        def add(module, args, y):
            w = dense_weights(args[0], experts, site, 1)
            return y + sum(w[..., i : i + 1] * (args[0] @ e[site].delta().T) for i, e in enumerate(experts))

        return add

    fresh = pico_base()
    for site in fresh.target_sites(["q_proj", "down_proj"]):
        fresh.hf.get_submodule(site.name).register_forward_hook(hook(site.name))
    assert_same(routed["outputs"], answer(fresh.hf))
    assert ids().shape == (2, 9)
