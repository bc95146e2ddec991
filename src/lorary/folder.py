"""The folder is the registry: a method is a file, its name is the file's name.

A method file holds exactly one public class, a frozen dataclass of options. Private helpers start with "_".
Plug-ins bring methods of the same shape through entry points. Zip imports are not supported.
"""

import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorary.errors import OptionError, known_names

_PUBLIC_CLASS = re.compile(r"^class ([A-Za-z]\w*)", re.MULTILINE)


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
        """Import a method's class.

        Raises E-NAME with the near and the known for an unknown name, E-PLUGIN for a plug-in that can't be used.
        """
        if name in self._files():
            return only_public_class(importlib.import_module(f"{self.package}.{name}"))
        if name in self._plugins():
            return _load_plugin(self._plugins()[name], f"{self.kind} {name!r}")
        raise OptionError("E-NAME", f"unknown {self.kind} {name!r}.", known_names(name, self.names()))

    def classes(self) -> dict[str, str]:
        """Give the class of each method and its name, without importing any: {"Arrow": "arrow", ...}.

        A plug-in whose entry point names no class, but a module, is left out.
        """
        theirs = {point.attr: name for name, point in self._plugins().items() if point.attr}
        return {**theirs, **self.own_classes()}

    def own_classes(self) -> dict[str, str]:
        """Give those of our own methods."""
        return {_class_of(path): name for name, path in self._files().items()}

    def parse(self, spec: str) -> Any:
        """Make a method with its options from "name:key=value"."""
        from lorary.options import make, split_spec  # pydantic is slow to import, and names() must not need it

        name, values = split_spec(spec)
        return make(self.load(name), values, called=name)

    def _files(self) -> dict[str, Path]:
        return _files_of(self.package)

    def _plugins(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {point.name: point for point in _plugins_of(tuple(sys.path)).select(group=self.group)}


@cache
def _plugins_of(_: tuple[str, ...]) -> Any:
    """List the entry points of all packages on a search path: there may be hundreds."""
    return importlib.metadata.entry_points()


@cache
def _files_of(package: str) -> dict[str, Path]:
    # Found through the parent's path, so that listing names imports no package with heavy dependencies.
    root, *parts = package.split(".")
    spec = importlib.util.find_spec(root)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent.joinpath(*parts)
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


@cache
def _class_of(path: Path) -> str:
    """Read the name of the public class off a method's file."""
    found = _PUBLIC_CLASS.search(path.read_text(encoding="utf-8"))
    assert found is not None, f"{path} defines no public class"
    return found[1]


def _load_plugin(point: importlib.metadata.EntryPoint, what: str) -> type[Any]:
    where = f"{what}, plug-in {point.value!r}"
    try:
        loaded = point.load()
        found: type[Any] = loaded if isinstance(loaded, type) else only_public_class(loaded)
    except Exception as error:  # whatever a stranger's module raises when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise OptionError("E-PLUGIN", f"{where} can't be loaded: {reason}.", "Mend, update or uninstall it.") from error
    if not dataclasses.is_dataclass(found):
        raise OptionError("E-PLUGIN", f"{where} is no dataclass of options.", "See docs/how_to/write_your_own.md.")
    if found.__module__.rpartition(".")[2] != point.name:  # what is stored names a method by its module
        hint = f"Rename the module or the entry point: a method stands in {point.name}.py."
        raise OptionError("E-PLUGIN", f"{where} is of module {found.__module__!r}.", hint)
    return found


def find_class(name: str) -> type[Any] | None:
    """Import the method whose class has a name; ours go first. None if there is none."""
    for classes in (Folder.own_classes, Folder.classes):  # plug-ins take a look at all packages that are installed
        for folder in FOLDERS:
            if method := classes(folder).get(name):
                return folder.load(method)
    return None


def class_names() -> set[str]:
    """Name the classes of all methods, without importing any."""
    return {name for folder in FOLDERS for name in folder.classes()}


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
BACKENDS = Folder("lorary.work.backends", "backend", "lorary.backends")
EVALUATORS = Folder("lorary.evaluation.evaluators", "metric", "lorary.evaluators")
BENCHMARKS = Folder("lorary.evaluation.benchmarks", "benchmark", "lorary.benchmarks")
TRACKERS = Folder("lorary.tracking.trackers", "tracker", "lorary.trackers")
STUDIES = Folder("lorary.studies.questions", "study", "lorary.studies")

FOLDERS = tuple(value for value in vars().copy().values() if isinstance(value, Folder))
"""The points of extension."""
