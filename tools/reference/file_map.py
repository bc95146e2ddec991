"""The map of the source that stands in the README."""

import ast
from pathlib import Path

import lorary


def file_map() -> str:
    """List the folders and top-level modules of the source with the first sentence of their docstrings."""
    root = Path(str(lorary.__file__)).parent
    paths = [root / "__init__.py", *root.glob("[!_]*.py"), *root.glob("*/__init__.py")]
    named = {path: str(path.parent.name + "/" if path.parent != root else path.name) for path in paths}
    ordered = sorted(paths, key=lambda path: (path.parent != root, named[path]))
    width = max(map(len, named.values()))
    return "".join(f"src/lorary/{named[path]:<{width}}  {_first_line(path)}\n" for path in ordered)


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")
