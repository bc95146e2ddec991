"""What threads that wait by spinning cost: settings of OpenMP side by side, alone and beside busy processes.

python benchmarks/threads.py [--busy 0 2] [--rounds 5]

Each setting runs in a process of its own, since OpenMP reads it once; all in turns, so that what else the machine does
meets them alike. The ratios are to torch as it starts, in the same round.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

SETTINGS: dict[str, dict[str, str]] = {
    "as torch starts": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    **{f"spin {n}": {"GOMP_SPINCOUNT": str(n)} for n in (100, 1000, 10_000, 100_000)},
}
BUSY = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # not for longer than we live
while True:
    pass
"""
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def main(busy: list[int], rounds: int, n_products: int, n_layers: int) -> None:
    counts = [n_products, n_layers]
    for n in busy:
        with others_at_work(n):
            found = [{name: run(setting, counts) for name, setting in SETTINGS.items()} for _ in range(rounds)]
        for what in next(iter(found[0].values())):
            print(f"\n{what}, beside {n} busy processes (load {os.getloadavg()[0]:.1f}); medians of {rounds} rounds")
            for name in SETTINGS:
                print(
                    f"  {name:16}"
                    + _line([one[name][what] for one in found], [one["as torch starts"][what] for one in found])
                )


def _line(times: list[list[float]], base: list[list[float]]) -> str:
    text = ""
    for place, kind in enumerate(("on the clock", "of the processor")):
        ratio = median(t[place] / b[place] for t, b in zip(times, base, strict=True))
        text += f"{median(t[place] for t in times):8.2f} s {kind} ({ratio:.2f})"
    return text


@contextmanager
def others_at_work(n: int) -> Iterator[None]:
    """Have other processes compute in the block, one thread each."""
    command = [sys.executable, "-c", BUSY]
    busy = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(n)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(setting: dict[str, str], counts: list[int]) -> dict[str, list[float]]:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, __file__, "--child", *map(str, counts)]
    done = subprocess.run(command, env={**environment, **setting}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def child(n_products: int, n_layers: int) -> None:
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    left, right = torch.randn(64, 576), torch.randn(576, 576)
    row = torch.randn(1, 576)

    def products() -> None:
        for _ in range(n_products):
            left @ right

    def layers() -> None:  # a product that threads share, then what one of them does alone, as in a model
        for _ in range(n_layers):
            torch.nn.functional.silu(torch.nn.functional.rms_norm(left @ right, (576,)))
            for _ in range(4):
                row + row

    times = {}
    with torch.inference_mode():
        left @ right
        for name, work in {
            f"{n_products} products of 64 x 576 x 576": products,
            f"{n_layers} of them with small operations between": layers,
        }.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            times[name] = [time.perf_counter() - wall, time.process_time() - cpu]
    print(json.dumps(times))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--products", type=int, default=6000)
    parser.add_argument("--layers", type=int, default=3000)
    parser.add_argument("--child", type=int, nargs=2)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
    else:
        main(given.busy, given.rounds, given.products, given.layers)
