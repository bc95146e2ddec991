"""The reference says what the code says."""

import dataclasses
import re

import pytest
from option_lines import option_lines
from pages import ROOT
from python_page import front_door
from reference_pages import PAGES

from lorary import folder

CODE = re.compile(r"[\"']([EW]-[A-Z]+)\b")
ROW = re.compile(r"^\|\s*`?([EW]-[A-Z]+)`?\s*\|", re.MULTILINE)
ERRORS = ROOT / "docs" / "reference" / "errors.md"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_page_is_fresh(name: str) -> None:
    page = ROOT / "docs" / "reference" / f"{name}.md"
    assert page.exists(), f"{page.relative_to(ROOT)} isn't there: run `make docs`"
    assert page.read_text(encoding="utf-8") == PAGES[name](), f"{page.relative_to(ROOT)} is stale: run `make docs`"


def test_every_public_name_is_described() -> None:
    page, methods = PAGES["python"](), {name for registry in METHODS for name in registry_names(registry)}
    missing = [name for name in front_door() if name not in methods and f"### lo.{name}\n" not in page]
    assert not missing, f"tools/reference/python_page.py lacks {missing}"


METHODS = (
    folder.BUILDERS,
    folder.BACKENDS,
    folder.CLUSTERERS,
    folder.ROUTERS,
    folder.EVALUATORS,
    folder.STUDIES,
)
EACH = [pytest.param(registry, name, id=f"{registry.kind}-{name}") for registry in METHODS for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), EACH)
def test_every_option_has_a_line_below_its_field(registry: folder.Folder, name: str) -> None:
    cls = registry.load(name)
    lines = option_lines(cls)
    assert set(lines) == {field.name for field in dataclasses.fields(cls)}
    wrong = [option for option, line in lines.items() if not re.fullmatch(r"[A-Z].{5,118}[^. ]\.", line)]
    assert not wrong, f"write one sentence below these fields, as those beside them have it: {wrong}"


def test_a_line_is_that_of_the_nearest_class_that_has_one() -> None:
    lines = {name: option_lines(folder.BUILDERS.load(name)) for name in ("phatgoose", "private", "lib_mu")}
    assert lines["phatgoose"]["lr"] != lines["private"]["lr"]
    assert lines["lib_mu"]["patience"] == lines["private"]["patience"], "its default is another, not what it does"
    assert list(lines["phatgoose"])[:2] == ["steps", "lr"], "the method's own come first"


def registry_names(registry: folder.Folder) -> set[str]:
    """Name the classes of a folder as the front door does."""
    classes = {registry.load(name).__name__ for name in registry.names()}
    return classes | {f"{name}Router" for name in classes}  # where a builder has the name


def test_every_code_is_explained() -> None:
    if not ERRORS.exists():
        pytest.skip("docs/reference/errors.md isn't written yet")
    used = codes_in_use()
    explained = set(ROW.findall(ERRORS.read_text(encoding="utf-8")))
    gone = sorted(explained - set(used))
    missing = [f"| {code} | ... | ... |    ({', '.join(used[code])})" for code in sorted(set(used) - explained)]
    assert not missing + gone, "\n".join(["docs/reference/errors.md lacks:", *missing, "and has too much:", *gone])


def codes_in_use() -> dict[str, list[str]]:
    """Find every code that stands quoted in the source, with the files that have it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for code in sorted(set(CODE.findall(path.read_text(encoding="utf-8")))):
            found.setdefault(code, []).append(path.relative_to(ROOT / "src" / "lorary").as_posix())
    return found
