"""Add N tiny experts to a library, in seconds of the processor: library.json and card after each, or once at the end.

python benchmarks/adding.py [--experts 1000 3000] [--ways each once]
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import one_thread, save, table

from lorary.library.library import Library
from lorary.testing.pico import pico_base, random_library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--ways", nargs="+", choices=["each", "once"], default=["each", "once"])
    args = parser.parse_args()
    one_thread()
    base = pico_base()
    with tempfile.TemporaryDirectory() as folder:
        source = random_library(Path(folder) / "source", base, 1, ranks=1)["e0"].directory
        rows = [_row(n, source, Path(folder), args.ways) for n in args.experts]
    print(table(rows))
    print("written to", save("adding", rows, rank=1, targets="attention of a pico base"))


def _row(n: int, source: Path, folder: Path, ways: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"experts": n}
    for way in ways:
        library = Library.create(folder / f"{way}{n}")
        began = time.process_time()
        with library.noted_once() if way == "once" else contextlib.nullcontext():
            for i in range(n):
                library.add(source, f"e{i}")
        row |= {f"{way}_s": time.process_time() - began}
        row |= {f"{way}_ms": 1000 * row[f"{way}_s"] / n}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
