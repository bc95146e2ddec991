"""One code, one class: whoever catches a family of errors catches all that bear its codes."""

import ast
from collections import defaultdict

from source_tree import modules

from lorary import errors

FAMILIES = {name for name, value in vars(errors).items() if isinstance(value, type)}
SEVERAL = {
    "E-BASE", "E-CHAT", "E-DATA", "E-DTYPE", "E-EMPTY", "E-EXISTS", "E-FILE", "E-HUB", "E-LIMIT",
    "E-NAME", "E-NONFINITE", "E-RANK", "E-SCHEMA", "E-TARGET", "E-TASK",
}  # fmt: skip
"""Codes that several families still share; to become empty."""


def raised() -> dict[str, dict[str, list[str]]]:
    """Find code -> family -> places, where an error is made with its code as the first argument."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module in modules():
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in FAMILIES
                and node.args
            ):
                first = node.args[0]
                if isinstance(first, ast.Constant) and str(first.value).startswith("E-"):
                    found[first.value][node.func.id].append(f"src/lorary/{module.path}:{node.lineno}")
    return found


def test_a_code_is_of_one_class() -> None:
    several = {code: dict(families) for code, families in raised().items() if len(families) > 1}
    wrong = {code: families for code, families in several.items() if code not in SEVERAL}
    assert not wrong, f"raise each code with one class: {wrong}"


def test_the_codes_of_several_classes_become_fewer() -> None:
    still = {code for code, families in raised().items() if len(families) > 1}
    assert still >= SEVERAL, f"no longer of several classes, take them out: {sorted(SEVERAL - still)}"
