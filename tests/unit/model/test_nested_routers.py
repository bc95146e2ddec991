"""Routers that ask other routers, in a model: kept, saved, edited and watched as any other."""

import shutil

import pytest
import torch

import lorary
from lorary.library.library import Library
from lorary.model.attached.kv_cache import named_cache
from lorary.model.routed.route import route
from lorary.testing.pico import random_library

IDS = torch.arange(2, 26).view(3, 8)
SMALL = "compass:n_texts=4,n_tokens=8"
ROUTERS = [
    "shortlist:n=2",
    f"shortlist:of=arrow,then=({SMALL}),n=3",
    f"shortlist:of=({SMALL}),then=arrow:top_k=1,n=2",
    "shortlist:of=task_predictor,then=centroid:n_examples=3,n=2",
    "shortlist:of=arrow,then=oracle,n=3",
]


def logits(model):
    tasks = ["copy", "join", "copy"] if "task" in model.router.needs else None
    with torch.inference_mode():
        return model(IDS, tasks=tasks).logits


@pytest.fixture
def library(toy_library, tmp_path):
    return Library.open(shutil.copytree(toy_library.path, tmp_path / "libs" / "lib"))


@pytest.mark.parametrize("router", ROUTERS)
def test_it_is_saved_and_edited_to_the_bit(router, base, library, toy, tmp_path):
    with route(base, library, router, mix="outputs", tasks=toy) as model:
        expected, identity = logits(model), model.identity
        model.save(tmp_path / "model")
        model.set_router("uniform")
        assert not torch.equal(logits(model), expected)
        model.set_router(router)
        assert torch.equal(logits(model), expected)
        model.remove("join" if "oracle" not in router else "last")
        fewer = logits(model)
        model.add("join" if "oracle" not in router else "last")
        assert torch.equal(logits(model), expected) and not torch.equal(fewer, expected)
    with lorary.load(tmp_path / "model", base=base) as again:
        assert torch.equal(logits(again), expected)
        assert (again.identity, again.router) == (identity, model.router)


def test_it_decodes_as_it_reads(base, library):
    """With a cache, token by token: evidence along the text is the second router's."""
    with route(base, library, ROUTERS[1]) as model, torch.inference_mode():
        whole = model(IDS, use_cache=False).logits
        cache, found = {}, []
        for t in range(IDS.shape[1]):
            out = model(IDS[:, t : t + 1], **cache, use_cache=True)
            cache = dict([named_cache(out)])
            found.append(out.logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-4, atol=1e-4)


def test_the_share_of_a_plain_text_is_told_of_the_listed(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 5)
    with route(base, library, f"shortlist:of=({SMALL}),then=arrow:top_k=1,n=2") as model:
        shares = model.shares()
    assert set(shares) == set(library) and sum(shares.values()) == pytest.approx(1, abs=1e-4)
