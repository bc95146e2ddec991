"""`lo.add`: adapters from anywhere into a library, from Python; the command line's words are tested with it."""

import json
import warnings

import pytest

import lorary as lo
from lorary.errors import LibraryError, LoraryError
from lorary.library.library import Library
from lorary.model.base.named_bases import remember_base
from lorary.testing.pico import pico_base, random_library
from opened_files import opens


@pytest.fixture(scope="module")
def pile(tmp_path_factory):
    """A base on disk, and three adapters of it as others have them: no expert.json."""
    place = tmp_path_factory.mktemp("pile")
    base = pico_base()
    base.hf.save_pretrained(place / "pico")
    base.tokenizer.save_pretrained(place / "pico")
    for seed, name in enumerate(("law", "poems", "sums")):
        directory = random_library(place / f"lib{seed}", base, [name], seed=seed)[name].copy_to(place / "pile" / name)
        (directory / "expert.json").unlink()
        config = json.loads((directory / "adapter_config.json").read_text())
        (directory / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    return place


@pytest.fixture(autouse=True)
def named(pile):
    remember_base(str(pile / "pico"))


def add(tmp_path, pile, sources, **how):
    return lo.add(tmp_path / "lib", sources, base=str(pile / "pico"), **how)


def test_one_many_and_a_folder(tmp_path, pile):
    heard = []
    one = add(tmp_path, pile, pile / "pile" / "law", tasks=["{name}s"], tell=heard.append)
    assert [(a.expert, a.about, a.findings) for a in one.added] == [("law", "rank 4, 8 sites", ())] and heard == []
    many = add(tmp_path, pile, [pile / "pile" / "law", str(pile / "pile" / "poems")])
    assert (many.kept, [a.expert for a in many.added], many.refused) == (("law",), ["poems"], ())
    folder = add(tmp_path, pile, pile / "pile", replace=True, tell=heard.append)
    assert str(folder) == f"{tmp_path / 'lib'}: 3 added, 0 refused"
    assert heard == list(folder.notes) == [f"{name}: rank 4, 8 sites" for name in ("law", "poems", "sums")]
    library = Library.open(tmp_path / "lib")
    assert list(library) == ["law", "poems", "sums"] and library["law"].provenance.tasks == ()


def test_the_tasks_and_the_name_of_one(tmp_path, pile):
    add(tmp_path, pile, pile / "pile" / "law", name="order", tasks=["{name}s", "b"])
    assert Library.open(tmp_path / "lib")["order"].provenance.tasks == ("orders", "b")
    with pytest.raises(LoraryError, match=r"E-OPTION.*name='x': it names a single adapter"):
        add(tmp_path, pile, pile / "pile", name="x")


def test_an_open_library_shows_what_came(tmp_path, pile):
    library = Library.create(tmp_path / "lib")
    done = lo.add(library, pile / "pile", base=str(pile / "pico"))
    assert list(library) == [one.expert for one in done.added] == ["law", "poems", "sums"]


def test_a_lone_one_that_is_refused_raises_and_one_of_many_is_told(tmp_path, pile):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "adapter_config.json").write_text("{")
    with pytest.raises(LibraryError, match=r"E-CONFIG\] expert 'bad': "):
        add(tmp_path, pile, tmp_path / "bad")
    assert not (tmp_path / "lib").exists()
    done = add(tmp_path, pile, [tmp_path / "bad", pile / "pile" / "law", tmp_path / "nowhere"])
    assert [(one.source, one.error.code) for one in done.refused] == [
        (str(tmp_path / "bad"), "E-CONFIG"), (str(tmp_path / "nowhere"), "E-FILE"),
    ]  # fmt: skip
    assert done.plain()["added"][0]["expert"] == "law"


def test_a_directory_of_several_is_taken_whole_without_a_warning(tmp_path, pile):
    import shutil

    shutil.copytree(pile / "pile" / "law", tmp_path / "tuned")
    for name in ("poems", "checkpoint-3"):
        shutil.copytree(pile / "pile" / "poems", tmp_path / "tuned" / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = add(tmp_path, pile, tmp_path / "tuned")
    assert [one.expert for one in done.added] == ["tuned", "poems"]
    assert f"{tmp_path / 'tuned'}: left out, for they are checkpoints of it: checkpoint-3" in done.notes


def test_each_file_of_an_adapter_is_opened_once(tmp_path, pile):
    source = pile / "pile" / "poems"
    add(tmp_path, pile, pile / "pile" / "law")  # what is imported is not counted
    with opens() as opened:
        add(tmp_path, pile, source)
    assert sorted(path.name for path in opened.read if path.parent == source) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"sources": []}, "E-OPTION"),
        ({"sources": [3]}, "E-OPTION"),
        ({"sources": None}, "E-OPTION"),
        ({"sources": "hf://x"}, "E-HUB"),
        ({"tasks": "law"}, "E-OPTION"),
        ({"base": 3}, "E-OPTION"),
        ({"library": 3}, "E-OPTION"),
    ],
)
def test_what_is_no_argument_is_refused(tmp_path, pile, how, code):
    given = {"library": tmp_path / "lib", "sources": pile / "pile" / "law"} | how
    with pytest.raises(LoraryError) as caught:
        lo.add(given.pop("library"), given.pop("sources"), **given)
    assert caught.value.code == code
