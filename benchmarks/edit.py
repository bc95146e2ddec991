"""What a change of a running model costs, beside a model built anew.

    OMP_NUM_THREADS=1 python benchmarks/edit.py [32 128]

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


def main() -> None:
    torch.set_num_threads(1)
    base = lo.load_base(dtype="float32")
    for n in [int(word) for word in sys.argv[1:]] or [32, 128]:
        with tempfile.TemporaryDirectory() as folder:
            library = random_library(Path(folder) / "lib", base, [f"e{i:03}" for i in range(n)])
            spare = random_library(Path(folder) / "spare", base, ["aaa", "zed"], seed=5)
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
        take("add, last by name", model.add, spare["zed"])
        take("remove, last by name", model.remove, "zed")
        take("add, first by name", model.add, spare["aaa"])
        take("remove, first by name", model.remove, "aaa")
        take("twin", model.twin).detach()
        model.detach()
    print(f"\n{len(library)} experts")
    for what, seconds in costs.items():
        print(f"{what:<22} {1000 * median(seconds):7.0f} ms")


if __name__ == "__main__":
    main()
