"""The source as these tests see it: every module with its syntax tree and its imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lorary"


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether it does so at run time and at the top of its file."""

    target: str
    line: int
    at_run_time: bool
    in_function: bool


@dataclass(frozen=True, eq=False)
class Module:
    """One file of the source. `name`: as Python imports it; `path`: under src/lorary."""

    name: str
    path: str
    tree: ast.Module
    text: str

    @property
    def folder(self) -> str:
        """The folder right under src/lorary, or the module itself if it stands there."""
        return (self.path.partition("/")[0]).removesuffix(".py")

    def imports(self) -> tuple[Import, ...]:
        return _imports_of(self.path)


@cache
def _imports_of(path: str) -> tuple[Import, ...]:
    module = next(module for module in modules() if module.path == path)
    return tuple(_imports(module.tree, at_run_time=True, in_function=False))


def _imports(node: ast.AST, *, at_run_time: bool, in_function: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_run_time, in_function)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{child.module}: write imports in full"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, at_run_time, in_function)
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from _imports(child, at_run_time=at_run_time and not typing, in_function=in_function or function)


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        path = file.relative_to(SOURCE).as_posix()
        name = "lorary." + path.removesuffix(".py").replace("/", ".")
        text = file.read_text(encoding="utf-8")
        found.append(Module(name.removesuffix(".__init__"), path, ast.parse(text), text))
    return tuple(found)


@cache
def module_names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def module_of(target: str) -> str:
    """Name the module that an import of ours reaches: a function's import reaches its module."""
    while target not in module_names():
        target = target.rpartition(".")[0]
    return target
