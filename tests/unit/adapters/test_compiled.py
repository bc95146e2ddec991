"""The optional operators: the plain path's numbers where they are built, and no trace where they aren't."""

import pytest
import torch

from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing import compiled
from lorary.adapters.mixing.mix import mix_low_rank
from lorary.errors import AdapterError
from lorary.routing.contract import Context
from lorary.routing.routers.arrow import Arrow
from lorary.routing.scored import keep_best

X = torch.randn(1, 1, 8)


@pytest.fixture(autouse=True)
def fresh():
    compiled._operators.cache_clear()
    yield
    compiled._operators.cache_clear()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORARY_CACHE", str(tmp_path_factory.mktemp("cache")))
        compiled.build()
        yield


def test_what_is_not_built_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path))
    with torch.inference_mode():
        assert compiled.usable(X) is None


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    def load(*args, **kwargs):
        raise RuntimeError("Ninja is required to load C++ extensions\nand more")

    monkeypatch.setenv("LORARY_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.utils.cpp_extension.load", load)
    with pytest.raises(AdapterError) as caught:
        compiled.build()
    assert str(caught.value) == (
        "error[E-COMPILER] the operators could not be compiled: Ninja is required to load C++ extensions. "
        "Install a C++ compiler and ninja, or go on without."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_built_once_and_used_where_they_fit(built, monkeypatch):
    monkeypatch.setattr("torch.utils.cpp_extension.load", None)  # whoever builds again fails
    assert compiled.build().exists()
    with torch.inference_mode():
        assert compiled.usable(X) is not None
        assert compiled.usable(X.double()) is None
        assert compiled.usable(torch.randn(1, compiled.MOST_TOKENS + 1, 8)) is None
    assert compiled.usable(X) is None, "gradients are wanted"
    compiled._operators.cache_clear()
    monkeypatch.setenv("LORARY_COMPILED", "off")
    with torch.inference_mode():
        assert compiled.usable(X) is None


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["outputs", "factors"])
@pytest.mark.parametrize(("d_in", "d_out", "rank", "n", "k", "n_tokens"), [(16, 16, 4, 9, 4, 1), (7, 33, 3, 5, 5, 64)])
@torch.inference_mode()
def test_the_numbers_are_those_of_the_plain_path(d_in, d_out, rank, n, k, n_tokens, mix, built):
    site = Site("layer", d_in, d_out)
    experts = {f"e{i}": {"layer": Weights(torch.randn(rank, d_in), torch.randn(d_out, rank), 0.5)} for i in range(n)}
    router = Arrow(top_k=k, temperature=0.7)
    gate = router.gate(site, router.fit(experts, {"layer": site}, None), sorted(experts))
    bank = LowRankBank([e["layer"] for e in experts.values()], site)
    x, y = torch.randn(1, n_tokens, d_in), torch.randn(1, n_tokens, d_out)
    assert compiled.usable(x) is not None
    routing = gate(x, Context())
    values, index = keep_best((x @ gate.vectors.T).abs(), k)
    assert torch.equal(routing.experts.sort(-1)[0], index.sort(-1)[0])
    torch.testing.assert_close(routing.weights.amax(-1)[..., 0], torch.softmax(values / 0.7, -1).amax(-1))
    found = bank(x, y, routing.weights, routing.experts, mix)
    plain = mix_low_rank(bank, x, y, routing.weights, routing.experts, mix, "chosen")
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    assert not torch.equal(found, y)


@pytest.mark.slow
@torch.inference_mode()
def test_ties_go_to_the_lower_index(built):
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 2.0], [0.0, -0.0, 0.0, -1.0, 0.0, 0.0]])
    weights, index = compiled.usable(scores).keep(scores, 4, 2.0)
    assert index.tolist() == [[1, 2, 4, 3], [0, 1, 2, 4]]
    torch.testing.assert_close(weights, torch.softmax(scores.gather(1, index) / 2, -1))
