"""The front door: every method of every folder, found by name, with types that are up to date."""

import runpy

import pytest
from pages import ROOT

import lorary
from lorary.errors import OptionError
from lorary.folder import FOLDERS

METHODS = [pytest.param(folder, name, id=f"{folder.kind}-{name}") for folder in FOLDERS for name in folder.names()]


def test_the_types_are_those_of_the_code() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "front_door.py"))
    assert made["STUB"].read_text(encoding="utf-8") == made["stub"](), (
        "src/lorary/__init__.pyi is stale: run `make docs`"
    )


@pytest.mark.parametrize(("folder", "name"), METHODS)
def test_every_method_is_there(folder, name):
    cls = folder.load(name)
    assert getattr(lorary, cls.__name__) is cls
    assert cls.__name__ in dir(lorary)


def test_every_class_has_a_name_of_its_own():
    names = [name for folder in FOLDERS for name in folder.own_classes()] + list(lorary._HOMES)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", sorted(lorary._HOMES))
def test_what_is_listed_is_there(name):
    assert getattr(lorary, name) is not None


def test_everything_can_be_imported_with_a_star():
    assert set(lorary.__all__) == set(dir(lorary))
    found: dict[str, object] = {}
    exec("from lorary import *", found)
    assert found.keys() >= set(lorary.__all__)


@pytest.mark.parametrize("name", ["Arow", "arrow", "__wrapped__", "nothing"])
def test_what_is_not_there_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'lorary' has no attribute '{name}'"):
        getattr(lorary, name)


# ---- plug-ins that can't be used ----------------------------------------------------------------


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A function that installs a package with one router, as pip would leave it."""

    def install(module, text, value):
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[lorary.routers]\nnear = {value}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


ROUTER = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Near:\n    pass\n"


@pytest.mark.parametrize(
    ("module", "text", "value", "message"),
    [
        ("broken_one", "import nothing_of_the_kind", "broken_one:Near", "ModuleNotFoundError: No module named"),
        ("broken_two", "class Near: pass", "broken_two:Near", "is no dataclass of options"),
        ("broken_three", ROUTER, "broken_three:Far", "has no attribute 'Far'"),
        ("broken_four", ROUTER + "class Far: pass", "broken_four", "must define exactly one public class"),
        ("broken_five", ROUTER, "broken_five:Near", "is of module 'broken_five'. Rename the module or the entry point"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_refused_by_name(plug_in, module, text, value, message):
    from lorary.folder import ROUTERS

    plug_in(module, text, value)
    assert "near" in ROUTERS.names()
    with pytest.raises(OptionError) as caught:
        ROUTERS.load("near")
    assert str(caught.value).startswith(f"error[E-PLUGIN] router 'near', plug-in {value!r} ")
    assert message in str(caught.value)


def test_a_plug_in_hides_no_method_of_ours(plug_in):
    plug_in("near", ROUTER.replace("Near", "Arrow"), "near:Arrow")
    assert lorary.Arrow.__module__ == "lorary.routing.routers.arrow"
