"""What a change of a running model costs, beside a model built anew.

    OMP_NUM_THREADS=1 python benchmarks/edit.py [32 128 512]

The embedded base in float32, random experts of rank 4 on its 120 attention layers, Arrow; the processor's time, medians
of 5.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

import lorary as lo
from lorary.testing.pico import random_library

LAST = ["zed0", "zed1", "zed2"]


def main() -> None:
    torch.set_num_threads(1)
    base = lo.load_base(dtype="float32")
    for n in [int(word) for word in sys.argv[1:]] or [32, 128, 512]:
        with tempfile.TemporaryDirectory() as folder:
            library = random_library(Path(folder) / "lib", base, [f"e{i:03}" for i in range(n)])
            spare = random_library(Path(folder) / "spare", base, ["aaa", *LAST], seed=5)
            measure(base, library, spare)


def measure(base, library, spare) -> None:
    costs: dict[str, list[float]] = {}

    def take(what, work, *details, **options):
        start = time.process_time()
        found = work(*details, **options)
        costs.setdefault(what, []).append(time.process_time() - start)
        return found

    for _ in range(5):
        for artefact in (library.path / "derived").glob("*"):
            artefact.unlink()
        take("route, fitting", lo.route, base, library, "arrow", mix="outputs").detach()
        model = take("route, state kept", lo.route, base, library, "arrow", mix="outputs")
        for name in LAST:
            take("add, last by name", model.add, spare[name])
        for name in reversed(LAST):
            take("remove, last by name", model.remove, name)
        take("add after a removal", model.add, spare[LAST[0]])
        take("add, first by name", model.add, spare["aaa"])
        take("remove, first by name", model.remove, "aaa")
        take("twin", model.twin).detach()
        model.detach()
    print(f"\n{len(library)} experts")
    for what, seconds in costs.items():
        print(f"{what:<22} {1000 * median(seconds):7.0f} ms")


if __name__ == "__main__":
    main()
