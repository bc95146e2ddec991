"""Experts of fewer directions than their rank, and of numbers next to nothing: sound answers, whoever else is there."""

import warnings

import pytest
import torch

from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import Weights
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.testing.pico import add_expert, random_library, random_weights

IDS = torch.randint(10, 250, (2, 9), generator=torch.Generator().manual_seed(5))
ROUTERS = ["uniform", "arrow:top_k=2", "arrow:top_k=9", "compass", "spectr"]


def library_with(place, base, weights, rank) -> Library:
    library = random_library(place, base, 2)
    add_expert(library, "odd", base, LoRA(rank=rank, alpha=float(rank)), weights)
    return library


def answers(base, library, router, mix="outputs"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of who takes most, or nothing
        with route(base, library, router, mix=mix) as model, torch.inference_mode():
            return model(IDS).logits


@pytest.mark.parametrize("router", ROUTERS)
def test_rows_that_are_alike_count_as_the_one_direction_they_are(router, base, tmp_path):
    """Four rows of which each is a quarter of the same product: the expert of rank 1 that it is."""
    thin = random_weights(LoRA(rank=1, alpha=1.0), base.target_sites(["attention"]), seed=3)
    wide = {
        site: Weights(w.a.expand(4, -1).contiguous(), w.b.expand(-1, 4).contiguous() / 4, w.scale)
        for site, w in thin.items()
    }
    found = answers(base, library_with(tmp_path / "wide", base, wide, 4), router)
    expected = answers(base, library_with(tmp_path / "thin", base, thin, 1), router)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("size", [1e-40, 1e-30], ids=["denormal", "whose product is"])
def test_numbers_next_to_nothing_give_numbers(size, router, base, tmp_path):
    weights = random_weights(LoRA(rank=4), base.target_sites(["attention"]), seed=3)
    tiny = {site: Weights(w.a * size, w.b * size, w.scale) for site, w in weights.items()}
    library = library_with(tmp_path / "lib", base, tiny, 4)
    assert any(w.a.abs().max() > 0 for w in tiny.values())
    assert torch.isfinite(answers(base, library, router)).all()
    assert torch.isfinite(answers(base, library, router, "factors")).all()
