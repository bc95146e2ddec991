"""Routers of other papers, and those that ask other routers, in a model: kept, saved, edited and watched."""

import dataclasses
import shutil

import pytest
import torch

import lorary
from lorary.errors import RoutingError
from lorary.library.library import Library
from lorary.model.attached.kv_cache import named_cache
from lorary.model.routed.route import route
from lorary.tasks.task import Tasks
from lorary.testing.pico import random_library

IDS = torch.arange(2, 26).view(3, 8)
SMALL = "compass:n_texts=4,n_tokens=8"
ROUTERS = [
    "shortlist:n=2",
    f"shortlist:of=arrow,then=({SMALL}),n=3",
    f"shortlist:of=({SMALL}),then=arrow:top_k=1,n=2",
    "shortlist:of=task_predictor,then=centroid:n_examples=3,n=2",
    "shortlist:of=arrow,then=oracle,n=3",
    "shortlist:of=lorauter:encoder=base,then=(arrow:top_k=1),n=2",
    "ariadne:encoder=base,n_examples=3",
    "lorauter:encoder=base,n_examples=4",
    "average_activation:n_examples=3",
    "logo:top_k=2",
    "bounded:of=arrow,max_share=0.4,base=0.2",
    f"bounded:of=({SMALL}),max_share=0.4,base=0.2",
    "bounded:of=(shortlist:of=logo,then=arrow:top_k=1,n=2),max_share=0.5,rest=base",
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
        model.remove("last")  # which the tasks of these rows don't name
        assert torch.isfinite(logits(model)).all() and len(model.names) == len(library) - 1
        model.add("last")
        assert torch.equal(logits(model), expected)
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


@pytest.mark.parametrize("mix", ["factors", "outputs"])
def test_the_base_gets_what_is_left_to_it(mix, base, library):
    """Nearly all of it: nearly the base's own logits, whichever the mix; and a tenth is less than a half."""
    with torch.inference_mode():
        alone, apart = base.hf(input_ids=IDS).logits, []
        for share in (0.0, 0.1, 0.5, 0.999999):
            with route(base, library, f"bounded:of=arrow,base={share}", mix=mix) as model:
                apart.append((logits(model) - alone).norm().item())
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-3 * apart[0]


def test_lorauter_reads_whatever_tasks_are_given(base, toy, tmp_path):
    """Tasks that no expert was trained on; those that have none of the part are refused."""
    library = random_library(tmp_path / "lib", base, 3)
    with route(base, library, "lorauter:encoder=base,n_examples=4", tasks=toy) as model:
        assert model._ensemble.state["best"].shape == (len(toy),)
        assert torch.isfinite(logits(model)).all()
    with pytest.raises(RoutingError, match="error.E-PROBE. expert 'e0': no training examples of its tasks"):
        route(base, library, "ariadne:encoder=base", tasks=toy)
    bare = Tasks(dataclasses.replace(task, valid=()) for task in toy.values())
    with pytest.raises(RoutingError, match=r"error.E-PROBE. the tasks that were given have no examples in their part"):
        route(base, library, "lorauter:encoder=base", tasks=bare)
    with pytest.raises(RoutingError, match="needs the tasks that the library was built from"):
        route(base, library, "lorauter")


def test_other_tasks_are_another_state(base, toy, tmp_path):
    library, spec = random_library(tmp_path / "lib", base, 3), "lorauter:encoder=base,n_examples=2"
    found = []
    for names in (list(toy)[:3], list(toy)[3:6]):
        with route(base, library, spec, tasks=Tasks(toy[name] for name in names)) as model:
            found.append(model._ensemble.state["centroids"])
    assert not torch.equal(*found)
