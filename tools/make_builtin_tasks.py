"""Write the built-in tasks and their card; every run writes the same bytes. Run: python tools/make_builtin_tasks.py."""

import gzip
import io
import json
from pathlib import Path

from builtin_tasks import answer, classify, convert, extract, rewrite
from builtin_tasks.card import card
from builtin_tasks.recipe import Recipe, Row, rows_of

FAMILIES = (answer, classify, convert, extract, rewrite)
FOLDERS: dict[str, tuple[Recipe, ...]] = {
    "to_train": tuple(recipe for family in FAMILIES for recipe in family.RECIPES),
    "held_out": tuple(recipe for family in FAMILIES for recipe in getattr(family, "HELDOUT", ())),
}
TARGET = Path(__file__).parent.parent / "src" / "lorary" / "tasks" / "builtin"


def make_files() -> dict[str, bytes]:
    """Make all files: path below the target -> bytes."""
    files: dict[str, bytes] = {}
    cards: dict[str, list[tuple[Recipe, list[Row]]]] = {}
    for folder, recipes in FOLDERS.items():
        made = [(recipe, rows_of(recipe)) for recipe in recipes]
        cards[folder] = made
        for recipe, rows in made:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            files[f"{folder}/{recipe.name}.jsonl.gz"] = packed(lines.encode())
    files["README.md"] = card(cards).encode()
    return files


def packed(data: bytes) -> bytes:
    """Compress so that time, file name and Python version leave no mark."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def main() -> None:
    """Write all files below `src/lorary/tasks/builtin`."""
    for name, data in make_files().items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{len(data):7,} bytes  {name}")


if __name__ == "__main__":
    main()
