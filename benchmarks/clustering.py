"""Similarity of all experts of a library: streamed Gram matrices against scikit-learn's TruncatedSVD(50).

    python benchmarks/clustering.py                       256 experts of 1 M numbers, both ways and the truncated SVD
    python benchmarks/clustering.py --experts 2048 --sites 5 --without-svd

Each way runs in a child process of its own, one thread, after a warm-up of the page cache. Printed: CPU seconds from
open files to the matrix, and the peak of anonymous memory above that of a process that has only imported everything.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from lorary.adapters.contract import Site, Weights
from lorary.adapters.lora import LoRA
from lorary.formats.peft import open_experts, write_weights
from lorary.library.library import Library

WIDTH, RANK = 2560, 4  # a site of Phi-2 as the paper adapts it: 20,480 numbers
GROUPS = 10


def write_library(path: Path, n_experts: int, n_sites: int) -> None:
    """Write experts in ten groups, so that there is something to find."""
    library = Library.create(path)
    sites = [Site(f"model.layers.{i}.self_attn.dense", WIDTH, WIDTH) for i in range(n_sites)]
    for number in range(n_experts):
        own, common = (torch.Generator().manual_seed(seed) for seed in (1000 + number, number % GROUPS))
        weights = {
            s.name: Weights(draw(common, own, RANK, s.d_in), draw(common, own, s.d_out, RANK), 4.0) for s in sites
        }
        with library.stage(f"x{number:04}") as stage:
            write_weights(stage, LoRA(rank=RANK), weights, base_name="none")


def draw(common: torch.Generator, own: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=common) + torch.randn(shape, generator=own)


def anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak(threading.Thread):
    """Watches this process's anonymous memory; the kernel keeps a high-water mark of the sum with mapped files only."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_mib = self.mib = anonymous_mib()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.mib = max(self.mib, anonymous_mib())


def measure(way: str, path: Path) -> dict[str, float]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.metrics import adjusted_rand_score

    from lorary.adapters.products import inner_products
    from lorary.building.clustering.clusterers.mbc import cosine_map, gram
    from lorary.building.clustering.k_means import k_means

    torch.set_num_threads(1)
    library = Library.open(path)
    peak = Peak()
    peak.start()
    started = time.process_time()
    experts = list(open_experts(library).values())
    if way.startswith("truncated-svd"):
        rows = torch.empty(len(experts), sum(e.n_parameters for e in library.values()) // len(experts))
        for row, expert in zip(rows, experts, strict=True):
            torch.cat([t.flatten() for w in expert.values() for t in (w.a, w.b)], out=row)
            if way.endswith("sparse"):
                row *= row.abs() > float(np.quantile(row.abs().numpy(), 0.5))
        features = TruncatedSVD(50, algorithm="randomized", n_iter=5, n_oversamples=10, random_state=42).fit_transform(
            rows.numpy()
        )
        found = features @ features.T
    elif way == "factors":
        found = gram(experts, 0.0)
    elif way == "factors-sparse":
        found = gram(experts, 0.5)
    else:
        found = inner_products(experts).numpy()
    spent = time.process_time() - started
    peak.over.set()
    peak.join()
    labels = k_means(cosine_map(found, 64), GROUPS, 42)
    truth = [number % GROUPS for number in range(len(experts))]
    return {"cpu_s": spent, "peak_mib": peak.mib - peak.start_mib, "rand_index": adjusted_rand_score(truth, labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--sites", type=int, default=49)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-svd", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "LIBRARY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], Path(given.measure[1]))))
        return
    ways = ["factors", "factors-sparse", "products"]
    ways += [] if given.without_svd else ["truncated-svd", "truncated-svd-sparse"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "library"
        write_library(path, given.experts, given.sites)
        Library.open(path).hash  # noqa: B018 - reads all files: the page cache is warm
        n_numbers = given.sites * 2 * RANK * WIDTH
        print(f"{given.experts} experts of {n_numbers:,} numbers, median of {given.rounds} rounds, one thread")
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way in ways:
                line = [sys.executable, __file__, "--measure", way, str(path)]
                answer = subprocess.run(line, capture_output=True, text=True, check=True).stdout
                found[way].append(json.loads(answer.splitlines()[-1]))
    for way, rows in found.items():
        median = {key: sorted(row[key] for row in rows)[len(rows) // 2] for key in rows[0]}
        print(f"{way:20}", "  ".join(f"{key} {value:8.2f}" for key, value in median.items()))


if __name__ == "__main__":
    main()
