"""Write src/lorary/__init__.pyi: the types of all public names, for editors and type checkers. `make docs` runs it."""

from pathlib import Path

from lorary import _HOMES
from lorary.folder import FOLDERS

STUB = Path(__file__).parents[1] / "src" / "lorary" / "__init__.pyi"
_HEAD = '''"""The types of what __init__.py finds by name, plug-ins apart. Written by `make docs`."""

'''
_TAIL = """
__version__: str
__all__: list[str]
"""


def stub() -> str:
    """Import every public name from its home, ours alone."""
    homes = dict(_HOMES)
    for folder in FOLDERS:
        homes |= {cls: f"{folder.package}.{method}" for cls, method in folder.own_classes().items()}
    lines = sorted((home, _as_sorted_by_ruff(name), name) for name, home in homes.items())
    return _HEAD + "".join(f"from {home} import {name} as {name}\n" for home, _, name in lines) + _TAIL


def _as_sorted_by_ruff(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
