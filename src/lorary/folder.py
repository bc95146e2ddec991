"""The folder is the registry: a method is a file, its name is the file's name.

A method file holds exactly one public class, a frozen dataclass of options. Private helpers start with "_".
Strangers' methods come in through entry points of the same shape. Zip imports are not supported.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorary.errors import OptionError, known_names


@dataclass(frozen=True)
class Folder:
    """All methods of one kind: `package` holds the files, `kind` is the word in messages, `group` the entry points."""

    package: str
    kind: str
    group: str

    def names(self) -> tuple[str, ...]:
        """List the names of all methods, sorted, without importing any of them."""
        return tuple(sorted({*self._files(), *self._plugins()}))

    def sentence(self, name: str) -> str:
        """Read the first docstring line of a method from its source, without importing it."""
        if name not in self._files():
            return f"from {self._plugins()[name].value}"
        tree = ast.parse(self._files()[name].read_text(encoding="utf-8"))
        classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        return (ast.get_docstring(classes[0]) or "").partition("\n")[0] if classes else ""

    def load(self, name: str) -> type[Any]:
        """Import a method's class. Raises E-NAME with the near and the known for an unknown name."""
        if name in self._files():
            return only_public_class(importlib.import_module(f"{self.package}.{name}"))
        if name in self._plugins():
            loaded = self._plugins()[name].load()
            return loaded if isinstance(loaded, type) else only_public_class(loaded)
        raise OptionError("E-NAME", f"unknown {self.kind} {name!r}.", known_names(name, self.names()))

    def parse(self, spec: str) -> Any:
        """Make a method with its options from "name:key=value"."""
        from lorary.options import make, split_spec  # pydantic is slow to import, and names() must not need it

        name, values = split_spec(spec)
        return make(self.load(name), values, called=name)

    def _files(self) -> dict[str, Path]:
        return _files_of(self.package)

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in importlib.metadata.entry_points(group=self.group)}


@cache
def _files_of(package: str) -> dict[str, Path]:
    # Found through the parent's path, so that listing names imports no package with heavy dependencies.
    root, *parts = package.split(".")
    spec = importlib.util.find_spec(root)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent.joinpath(*parts)
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def only_public_class(module: Any) -> type[Any]:
    """Find the one public class that a method's module defines."""
    classes = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert len(classes) == 1, f"{module.__name__} must define exactly one public class, found {classes}"
    return classes[0]


ROUTERS = Folder("lorary.routing.routers", "router", "lorary.routers")
DEFAULT_ROUTER = "compass"
"""Needs no data; why this one: docs/evidence.md."""
BUILDERS = Folder("lorary.building.builders", "builder", "lorary.builders")
CLUSTERERS = Folder("lorary.building.clustering.clusterers", "clusterer", "lorary.clusterers")
BACKENDS = Folder("lorary.building.work.backends", "backend", "lorary.backends")
EVALUATORS = Folder("lorary.evaluation.evaluators", "metric", "lorary.evaluators")
STUDIES = Folder("lorary.studies.questions", "study", "lorary.studies")
KINDS = Folder("lorary.adapters.kinds", "kind", "lorary.kinds")
