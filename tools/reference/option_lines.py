"""The one line on each option of a method: the text below its field, in the class that has it or the nearest above."""

import ast
import dataclasses
import inspect
import sys
from functools import cache
from itertools import pairwise


def option_lines(cls: type) -> dict[str, str]:
    """Give the options of a method, those of its own class before inherited ones, with their lines; "" for none."""
    found: dict[str, str] = {}
    for parent in cls.__mro__:
        own = [name for name in inspect.get_annotations(parent) if name in _fields(cls)]
        found |= {name: "" for name in own if name not in found}
        found |= {name: line for name, line in _lines_of(parent).items() if found.get(name) == ""}
    return found


def _fields(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()


@cache
def _lines_of(cls: type) -> dict[str, str]:
    """Read the texts that stand right below the fields of one class; they leave no trace at run time."""
    module = sys.modules[cls.__module__]
    if not dataclasses.is_dataclass(cls):
        return {}
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    return {
        above.target.id: inspect.cleandoc(below.value.value).replace("\n", " ")
        for above, below in pairwise(body)
        if isinstance(above, ast.AnnAssign)
        and isinstance(above.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
