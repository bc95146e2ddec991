"""One code, one class: whoever catches a family of errors catches all that bear its codes."""

import ast
from functools import cache

from source_tree import ROOT, modules

from lorary.errors import FAMILIES, LoraryError, error_of

EXPLAINED = ROOT / "docs" / "reference" / "errors.md"
NAMES = {family.__name__: family for family in (LoraryError, *FAMILIES)}


@cache
def made() -> tuple[tuple[str, type[LoraryError], ast.expr], ...]:
    """Find where an error is made: place, family, and what stands for its code."""
    nodes = [(module.path, node) for module in modules() if "Error(" in module.text for node in ast.walk(module.tree)]
    families = dict(NAMES)
    for _, node in nodes:
        if isinstance(node, ast.ClassDef) and node.name not in NAMES:
            families.update((node.name, NAMES[base]) for base in map(ast.unparse, node.bases) if base in NAMES)
    return tuple(
        (f"src/lorary/{path}:{node.lineno}", families[node.func.id], node.args[0] if node.args else ast.Constant(None))
        for path, node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in families
    )


def test_a_code_is_made_in_the_class_that_has_it() -> None:
    wrong = {
        place: f"{family.__name__}({code.value!r}), expected {type(error_of(code.value, '')).__name__}"
        for place, family, code in made()
        if isinstance(code, ast.Constant) and str(code.value).startswith("E-")
        if not isinstance(error_of(code.value, ""), family) or (family is LoraryError and code.value != "E-FULL")
    }
    assert not wrong, wrong


def test_a_code_that_somebody_else_chose_is_made_by_error_of() -> None:
    wrong = [place for place, _, code in made() if not isinstance(code, ast.Constant)]
    assert not wrong, f"call error_of(code, ...), or `reworded` of the error that has it: {wrong}"


def test_no_code_is_of_two_classes() -> None:
    codes = [code for family in FAMILIES for code in family.codes]
    assert len(codes) == len(set(codes)), sorted(codes)


def test_the_page_of_errors_names_the_class_of_each() -> None:
    rows = [line.split("|")[1:3] for line in EXPLAINED.read_text(encoding="utf-8").splitlines() if "| E-" in line[:4]]
    told = {code.strip(): name.strip() for code, name in rows}
    assert told == {code: type(error_of(code, "")).__name__ for code in told}
    assert told.keys() >= {code for family in FAMILIES for code in family.codes}
