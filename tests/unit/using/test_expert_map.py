"""The map of experts: cosines of the products themselves, neighbours side by side."""

import pytest
import torch

from lorary.errors import LibraryError
from lorary.formats.peft import read_weights
from lorary.testing.pico import pico_base, random_library
from lorary.using import expert_map
from lorary.using.expert_map import map_experts


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("libs") / "skills", pico_base(), 5, ranks=(4, 2))


def dense(expert):
    weights = read_weights(expert)
    return torch.cat([(w.scale * w.b.double() @ w.a.double()).flatten() for _, w in sorted(weights.items())])


def test_its_numbers_are_the_cosines_of_the_products(library):
    found = map_experts(library)
    assert sorted(found.experts) == sorted(library)
    vectors = torch.stack([dense(library[name]) for name in found.experts])
    wanted = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    assert torch.allclose(torch.tensor(found.cosines, dtype=torch.float64), wanted, atol=1e-5)


def test_the_like_stand_side_by_side(monkeypatch, library):
    like = torch.tensor(
        [[1, 0, 0.9, 0, 0], [0, 1, 0, 0.8, 0], [0.9, 0, 1, 0, 0], [0, 0.8, 0, 1, 0], [0, 0, 0, 0, 0]],
        dtype=torch.float64,
    )
    monkeypatch.setattr(expert_map, "inner_products", lambda _: like)
    found = map_experts(library)
    place = {name: i for i, name in enumerate(found.experts)}
    assert abs(place["e0"] - place["e2"]) == abs(place["e1"] - place["e3"]) == 1
    row = found.cosines[place["e4"]]
    assert row == [0.0] * 5, "an expert that changes nothing is like nobody, and no number is missing"


@pytest.mark.parametrize("n", [1, 2])
def test_few_experts_have_a_map(library, n):
    found = map_experts({name: library[name] for name in sorted(library)[:n]})
    assert len(found.cosines) == len(found.experts) == n


def test_too_many_are_refused_with_what_to_do(monkeypatch, library):
    monkeypatch.setattr(expert_map, "MOST_EXPERTS", 4)
    with pytest.raises(LibraryError, match=r"E-MAP\] the library has 5 experts; a map shows 4 at most\. Group them"):
        map_experts(library)
