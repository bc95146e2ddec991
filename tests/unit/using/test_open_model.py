"""`lo.open_model`: a library, a saved model or the bare base, opened by one call."""

import pytest

import lorary as lo
from lorary.errors import LoraryError
from lorary.model.base.base_model import BaseModel
from lorary.model.base.named_bases import remember_base
from lorary.model.routed.routed_model import RoutedModel
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base, random_library
from lorary.using.open_model import choose_model
from opened_files import opens

ASKED = [Example("up", "")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    base = pico_base()
    base.hf.save_pretrained(place / "pico")
    base.tokenizer.save_pretrained(place / "pico")
    loaded = lo.load_base(str(place / "pico"))
    library = random_library(place / "lib", loaded, ["a", "b"])
    with lo.route(loaded, library, "arrow") as model:
        model.save(place / "saved")
    return place


@pytest.fixture(autouse=True)
def named(place):
    remember_base(str(place / "pico"))


def answer(model):
    return model.generate_text(ASKED, max_new_tokens=3)[0]


def test_a_library_and_a_saved_model_of_it_answer_alike(place):
    heard = []
    with lo.open_model(place / "lib", base=str(place / "pico"), router="arrow", tell=heard.append) as model:
        assert isinstance(model, RoutedModel) and model.identity["router"] == "arrow"
        first, identity = answer(model), model.identity
    with lo.open_model(place / "saved", base=str(place / "pico"), tell=heard.append) as saved:
        assert answer(saved) == first
    assert heard == [
        f"loading base {place / 'pico'} ...", f"loading saved model {place / 'saved'} ...",
        f"loading base {place / 'pico'} ...",
    ]  # fmt: skip
    foreseen = choose_model(place / "lib", router="arrow").identity
    assert foreseen.items() <= identity.items() and foreseen.keys() == {"library", "router", "mix"}


def test_a_base_that_is_loaded_is_used_and_left_as_it_was(place):
    base = lo.load_base(str(place / "pico"))
    before = answer(base)
    with lo.open_model(place / "lib", base=base, router="uniform") as model:
        assert model.base is base
    assert answer(base) == before
    with lo.open_model("base", base=base) as bare:
        assert bare is base


def test_the_bare_base(place):
    with lo.open_model("base", base=str(place / "pico")) as model:
        assert isinstance(model, BaseModel) and answer(model) == answer(lo.load_base(str(place / "pico")))


def test_what_is_opened_is_read_once(place):
    with opens() as opened:
        lo.open_model(place / "saved", base=str(place / "pico")).detach()
    assert [path.name for path in opened.read].count("model.json") == 1
    with opens() as opened:
        choice = choose_model(place / "lib", router="uniform")
        choice.identity  # noqa: B018 - which reads the library's hash
        choice.open(base=lo.load_base(str(place / "pico"))).detach()
    assert [path.name for path in opened.read].count("library.json") == 1


@pytest.mark.parametrize(
    ("target", "how", "message"),
    [
        ("{place}/nowhere", {}, "E-LIBRARY"),
        ("base", {"router": "arrow"}, r"E-OPTION\] router: the bare base has no experts; this is for libraries"),
        ("{place}/saved", {"mix": "outputs"}, r"E-OPTION\] mix: a saved model has its own"),
        ("{place}/lib", {"router": "arow"}, "E-NAME"),
        ("{place}/lib", {"router": "task_predictor"}, "E-PROBE"),
        ("{place}/lib", {"base": 3}, "E-OPTION"),
    ],
)
def test_what_cannot_be_opened_is_told_before_a_base_is_loaded(place, monkeypatch, target, how, message):
    monkeypatch.setattr("lorary.using.open_model.load_base", None)
    with pytest.raises(LoraryError, match=message):
        lo.open_model(target.format(place=place), **{"base": str(place / "pico"), **how})
