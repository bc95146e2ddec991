"""Who speaks is decided by this user's own lorary, or the user is told whose decision it is."""

import contextlib
import json
import re
import shutil
import time
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lorary
from lorary.disk import seal as seals
from lorary.errors import LoraryError
from lorary.hashing import hash_file
from lorary.library.library import Library
from lorary.model.ensemble.learned import seal_learned
from lorary.model.routed.route import route
from lorary.routing.task_skills import pack_state

IDS = torch.arange(2, 26).view(3, 8)
SMALL = "compass:n_texts=2,n_tokens=4"


def logits(model, tasks=None):
    with torch.inference_mode():
        return model(IDS, tasks=tasks).logits


@pytest.fixture
def library(toy_library, tmp_path):
    library = Library.open(shutil.copytree(toy_library.path, tmp_path / "lib"))
    shutil.rmtree(library.path / "derived", ignore_errors=True)
    return library


@pytest.fixture
def as_somebody_else(tmp_path, monkeypatch):
    """Be, for a block, a user with another key."""

    @contextlib.contextmanager
    def become():
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "their-config"))
            yield

    return become


def hijack(path):
    """Turn a state so that one expert gets nearly everything; keep the metadata. The seal has to notice."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    for key, tensor in tensors.items():
        if key.endswith(".vectors"):
            tensor[0] *= 1000
    save_file(tensors, path, metadata)


def states(library):
    return sorted((library.path / "derived").iterdir())


# ---- derived: another's doesn't count -----------------------------------------------------------


@pytest.mark.parametrize("router", ["arrow", SMALL])
def test_a_state_that_a_stranger_fitted_is_fitted_anew(router, base, library, as_somebody_else):
    with route(base, library, router) as model:
        expected = logits(model)
    (mine,) = states(library)
    mine.unlink()
    with as_somebody_else():
        with route(base, library, router):
            pass
        (theirs,) = states(library)
        hijack(theirs)
    word = f"library 'lib': derived/{theirs.name} was not fitted by you on this machine or is an older lorary's, "
    word += "the router is fitted again."
    with pytest.warns(RuntimeWarning, match=re.escape(word)), route(base, library, router) as model:
        assert torch.equal(logits(model), expected)
    theirs.rename(mine)  # under my name, it still isn't mine
    with (
        pytest.warns(RuntimeWarning, match="is damaged, the router is fitted again"),
        route(base, library, router) as model,
    ):
        assert torch.equal(logits(model), expected)


def test_a_state_of_an_older_lorary_is_fitted_anew_once(base, library):
    with route(base, library, "arrow") as model:
        expected = logits(model)
    (mine,) = states(library)
    old = mine.with_name(mine.name.partition("_")[0] + ".safetensors")
    mine.rename(old)
    with (
        pytest.warns(RuntimeWarning, match=re.escape(f"derived/{old.name} was not fitted by you")),
        route(base, library, "arrow") as model,
    ):
        assert torch.equal(logits(model), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with route(base, library, "arrow") as model:
            assert torch.equal(logits(model), expected)


def test_users_who_share_a_library_keep_a_state_each(base, library, as_somebody_else, monkeypatch):
    with route(base, library, "arrow") as model:
        expected = logits(model)
    with as_somebody_else(), pytest.warns(RuntimeWarning, match="was not fitted by you"), route(base, library, "arrow"):
        pass
    assert len(states(library)) == 2
    monkeypatch.setattr("lorary.routing.routers.arrow.Arrow.fit", lambda *_: pytest.fail("fitted again"))
    for be in (contextlib.nullcontext, as_somebody_else):
        with be(), route(base, library, "arrow") as model:
            assert torch.equal(logits(model), expected)


def test_a_giant_that_a_stranger_left_costs_nothing(base, library):
    with route(base, library, "arrow") as model:
        expected = logits(model)
    (mine,) = states(library)
    n = 6_000_000_000
    header = json.dumps({"x": {"dtype": "U8", "shape": [2, n // 2], "data_offsets": [0, n]}}).encode()
    with mine.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + n)
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="is damaged"):
        model = route(base, library, "arrow")
    assert time.monotonic() - began < 1
    with model:
        assert torch.equal(logits(model), expected)


# ---- a saved model: checked, and told -----------------------------------------------------------


@pytest.fixture
def saved(base, library, tmp_path):
    def save(router, tasks=None):
        with route(base, library, router, tasks=tasks) as model:
            return model.save(tmp_path / "model")

    return save


def rewrite(saved, change):
    """Write another state and its true hash: no accident, but malice."""
    path = saved / "state.safetensors"
    tensors = change({key: tensor.clone() for key, tensor in load_file(path).items()})
    save_file(tensors, path)
    facts = json.loads((saved / "model.json").read_text())
    facts["state"] = {"sha256": hash_file(path), "size_bytes": path.stat().st_size}
    (saved / "model.json").write_text(json.dumps(facts))


def test_one_s_own_saved_model_loads_without_a_word(base, saved):
    directory = saved("arrow")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lorary.load(directory, base=base).detach()


def test_a_saved_model_from_elsewhere_says_so(base, saved, as_somebody_else):
    with as_somebody_else():
        directory = saved("arrow")
    told = "warning[W-ORIGIN] saved model 'model': the state of router 'arrow' was not written by you"
    with pytest.warns(RuntimeWarning, match=re.escape(told)):
        lorary.load(directory, base=base).detach()
    rewrite(directory, lambda state: {k: t * 2 if k.endswith("vectors") else t for k, t in state.items()})
    with pytest.warns(RuntimeWarning, match="W-ORIGIN"):
        lorary.load(directory, base=base).detach()


def _some(ending, change):
    return lambda state: {k: change(t) if k.endswith(ending) else t for k, t in state.items()}


def _poisoned(t):
    t.view(-1)[-1] = float("nan")
    return t


BAD = {
    "a NaN": ("arrow", _some(".vectors", _poisoned), "E-STATE"),
    "infinity": ("arrow", _some(".vectors", lambda t: t / 0), "E-STATE"),
    "absurd": ("arrow", _some(".vectors", lambda t: t * 1e30), "E-STATE"),
    "no rows": ("arrow", _some("", lambda t: t[:0]), "E-FILE"),
    "nothing it reads": ("arrow", lambda state: {"x": torch.zeros(1)}, "E-STATE"),
    "one site only": ("arrow", lambda state: dict(sorted(state.items())[:2]), "E-STATE"),
    "one expert only": ("arrow", _some("", lambda t: t[:1]), "E-STATE"),
    "whole numbers": ("arrow", _some(".vectors", lambda t: t.long()), "E-STATE"),
    "members by halves": ("arrow", _some(".members", lambda t: t.float()), "E-STATE"),
    "the same one always": ("arrow", _some(".members", torch.zeros_like), "E-STATE"),
    "stacks": ("arrow", _some(".vectors", lambda t: t.unsqueeze(1)), "E-STATE"),
    "flat spectra": ("spectr", _some(".vectors", lambda t: t[:, 0].contiguous()), "E-STATE"),
    "no products": (SMALL, lambda state: {k: t for k, t in state.items() if "products" not in k}, "E-STATE"),
    "flat products": (SMALL, _some(".products", lambda t: t.flatten()), "E-STATE"),
    "logical products": (SMALL, _some(".products", lambda t: t[:2] > 0), "E-STATE"),
    "other owners": ("task_predictor", _some("owns", lambda t: t[:, :1].contiguous()), "E-STATE"),
    "half a classifier": ("task_predictor", _some("weight", lambda t: t[:1]), "E-STATE"),
    "whole classes": ("task_predictor", _some("bias", lambda t: t.long()), "E-STATE"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_saved_state_with_what_no_router_writes_is_refused(what, base, saved, toy):
    router, change, code = BAD[what]
    directory = saved(router, toy)
    rewrite(directory, change)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LoraryError) as caught:
            lorary.load(directory, base=base)
    assert caught.value.code == code and time.monotonic() - began < 1


def test_texts_that_are_no_tokens_are_refused_when_they_are_read(base, saved, tmp_path):
    from lorary.testing.pico import random_library

    more = random_library(tmp_path / "more", base, ["zebra"], seed=9)
    directory = saved(SMALL)
    rewrite(directory, lambda state: {**state, "texts": state["texts"] + 1000})
    with pytest.warns(RuntimeWarning, match="W-ORIGIN"):
        model = lorary.load(directory, base=base)
    with pytest.raises(LoraryError, match="E-STATE"), model:
        model.add(more["zebra"])


def test_features_of_another_width_are_refused(base, saved, toy):
    directory = saved("task_predictor", toy)
    rewrite(directory, _some("weight", lambda t: t[:, :5].contiguous()))
    with pytest.warns(RuntimeWarning, match="W-ORIGIN"):
        model = lorary.load(directory, base=base)
    with pytest.raises(LoraryError, match="E-STATE"), model:
        logits(model)


def test_a_giant_saved_state_is_refused_in_no_time(base, saved):
    directory = saved("arrow")
    path, n = directory / "state.safetensors", 3_000_000_000
    header = json.dumps({"x": {"dtype": "U8", "shape": [2, n // 2], "data_offsets": [0, n]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + n)
    facts = json.loads((directory / "model.json").read_text())
    facts["state"]["size_bytes"] = path.stat().st_size
    (directory / "model.json").write_text(json.dumps(facts))
    began = time.monotonic()
    with pytest.raises(LoraryError, match="E-LIMIT"):
        lorary.load(directory, base=base)
    assert time.monotonic() - began < 1


# ---- learned: checked, and told -----------------------------------------------------------------


@pytest.fixture
def learned(base, library):
    """A library whose experts say that one job made them all, with Poly weights of it."""
    names = sorted(library)
    for name in names:
        path = library.path / "experts" / name / "expert.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "job": "abc"}))
    sites = list(library[names[0]].sites)
    state = pack_state({site: torch.randn(2, 1, len(names)) for site in sites}, ["copy", "join"])
    path = library.path / "learned" / "poly-abc.safetensors"
    path.parent.mkdir()
    save_file(state, path)
    return Library.open(library.path), path


def test_what_was_learned_here_is_used_without_a_word(base, learned, as_somebody_else):
    library, path = learned
    seal_learned(path, "poly", "abc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with route(base, library, "poly") as model:
            logits(model, ["copy", "join", "copy"])
    told = "warning[W-ORIGIN] library 'lib': what poly learned was not written by you"
    with as_somebody_else(), pytest.warns(RuntimeWarning, match=re.escape(told)), route(base, library, "poly"):
        pass


LEARNED = {
    "a NaN": _some(".logits", _poisoned),
    "absurd": _some(".logits", lambda t: t * 1e30),
    "no rows": _some(".logits", lambda t: t[:0]),
    "whole numbers": _some(".logits", lambda t: t.long()),
    "another shape": _some(".logits", lambda t: t[..., :1].contiguous()),
    "no task": _some("tasks", lambda t: t[:-1]),
    "tasks that aren't names": _some("tasks", lambda t: torch.tensor(list(b"[1,[2]]"), dtype=torch.uint8)),
    "tasks that aren't letters": _some("tasks", lambda t: t.float()),
    "nothing": lambda state: {"x": torch.zeros(1)},
}


@pytest.mark.parametrize("what", LEARNED)
def test_learned_weights_are_checked_to_the_number(what, base, learned):
    library, path = learned
    save_file(LEARNED[what]({k: t.clone() for k, t in load_file(path).items()}), path)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LoraryError) as caught:
            route(base, library, "poly")
    assert caught.value.code in ("E-LEARNED", "E-STATE") and time.monotonic() - began < 1


def test_a_giant_among_the_learned_is_refused_in_no_time(base, learned):
    library, path = learned
    with path.open("r+b") as file:
        file.truncate(3_000_000_000)
    began = time.monotonic()
    with pytest.raises(LoraryError, match=r"E-LEARNED.*has 3,000,000,000 bytes, the limit"):
        route(base, library, "poly")
    assert time.monotonic() - began < 1


def test_the_key_is_asked_for_where_it_is_kept(as_somebody_else):
    mine = seals.sealer()
    with as_somebody_else():
        assert seals.sealer() != mine
    assert seals.sealer() == mine


# ---- a saved model reaches nothing outside of itself --------------------------------------------


@pytest.fixture
def referring(base, library, tmp_path):
    """A saved model that refers to a library beside it."""
    with route(base, library, "uniform") as model:
        return model.save(tmp_path / "model", experts="refer")


def edit(saved, change):
    facts = json.loads((saved / "model.json").read_text())
    change(facts)
    (saved / "model.json").write_text(json.dumps(facts))


def test_one_s_own_references_are_followed(base, referring):
    lorary.load(referring, base=base).detach()


def test_a_stranger_s_references_are_not_followed(base, library, referring, as_somebody_else, tmp_path):
    told = r"^error\[E-PATH\] saved model 'model' was not saved by you, and its library is outside of it: '.*lib'"
    with as_somebody_else(), pytest.raises(LoraryError, match=told):
        lorary.load(referring, base=base)
    edit(referring, lambda facts: facts.update(library="."))  # no longer as it was sealed
    with pytest.raises(LoraryError, match=r"and its expert 'copy' is outside of it"):
        lorary.load(referring, base=base)
    edit(referring, lambda facts: facts.update(library=str(library.path)))
    before = sorted(path for path in library.path.rglob("*"))
    lorary.load(referring, base=base, outside=True).detach()
    assert sorted(path for path in library.path.rglob("*")) == before


def test_experts_of_a_saved_model_that_are_links_are_not_followed(base, library, as_somebody_else, tmp_path):
    with as_somebody_else(), route(base, library, "uniform") as model:
        saved = model.save(tmp_path / "model")
    lorary.load(saved, base=base).detach()
    shutil.move(saved / "experts", tmp_path / "elsewhere")
    (saved / "experts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LoraryError, match="E-PATH"):
        lorary.load(saved, base=base)
