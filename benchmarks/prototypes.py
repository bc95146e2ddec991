"""Prototypes from the factors beside those from the full product: how exact, and how much sooner.

python benchmarks/prototypes.py [--experts 32] [--width 576] [--rank 4] [--rounds 5]

`ours` computes the first right singular vectors of all experts of a site together; `float64` and `float32` decompose
every B A as a matrix. 1 - |cos|: the largest, to those in float64.
"""

import argparse
from typing import Any

import torch
from subjects import random_experts
from timing import measure, one_thread, save, table
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.routing.directions import prototypes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    one_thread()
    site = Site("layer", args.width, args.width)
    experts = random_experts({"layer": site}, args.experts, args.rank)
    runs = {
        "ours": lambda: _ours(experts),
        "float64": lambda: _full(experts, torch.float64),
        "float32": lambda: _full(experts, torch.float32),
    }
    exact = runs["float64"]()
    found = measure(runs, rounds=args.rounds)
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "us_each": f"{1e6 * found[name]['seconds'] / args.experts:.1f}",
            "times_ours": found[name]["ratio"],
            "1 - |cos|": f"{float((1 - (run().double() * exact).sum(1).abs()).abs().max()):.1e}",
        }
        for name, run in runs.items()
    ]
    print(table(rows))
    print("written to", save("prototypes", rows, experts=args.experts, width=args.width, rank=args.rank))


def _ours(experts: Experts) -> Tensor:
    found = prototypes(experts, ["layer"])["layer"]
    return torch.stack([found[i] for i in range(len(experts))])


def _full(experts: Experts, dtype: torch.dtype) -> Tensor:
    deltas = (expert["layer"].delta().to(dtype) for expert in experts.values())
    return torch.stack([torch.linalg.svd(delta)[2][0] for delta in deltas])


if __name__ == "__main__":
    main()
