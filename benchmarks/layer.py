"""One routed linear layer over a grid of sizes: the automatic choice, every fixed strategy, PEFT's Arrow and the floor.

python benchmarks/layer.py [--width 576] [--tokens 1 8 64 512] [--experts 8 64 256] [--kept 1 4 0 (all)] [--peft]

`bare`: the base and the exact scores of all experts, nothing else. `floor`: multiply-adds counted, E/d + 2 k r / d.
The optional compiled operators are left out, built or not.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from subjects import peft_arrow, random_experts, routed_layer, without_operators
from timing import measure, one_thread, save, table
from torch import nn

from lorary.adapters.contract import Site
from lorary.adapters.mixing.tuning import STRATEGIES, Strategy

RANK = 4
MOST_NUMBERS = 1 << 21  # copying more empties the caches for whoever comes next in the round, the base above all


def main() -> None:
    args = _arguments()
    one_thread()
    sizes = [(t, e, k or e) for t in args.tokens for e in args.experts for k in args.kept]
    with without_operators():
        rows = [_row(t, e, k, args) for t, e, k in dict.fromkeys(sizes) if k <= e]
    print(table(rows))
    worst = max(row["auto_over_best"] for row in rows)
    print(f"automatic choice over the best fixed strategy, worst of the grid: {worst:.2f}")
    print("written to", save(args.name, rows, width=args.width, rank=RANK, mix=args.mix, dtype=args.dtype))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--kept", type=int, nargs="+", default=[1, 4, 0])
    parser.add_argument("--mix", default="outputs")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--peft", action="store_true")
    parser.add_argument("--name", default="layer")
    return parser.parse_args()


@torch.inference_mode()
def _row(n_tokens: int, n: int, k: int, args: argparse.Namespace) -> dict[str, Any]:
    d, dtype = args.width, getattr(torch, args.dtype)
    linear = nn.Linear(d, d, bias=False).to(dtype)
    x = torch.randn(1, n_tokens, d).to(dtype)
    layer, prototypes = routed_layer(linear, n, rank=RANK, k=k, mix=args.mix)
    variants = {"base": lambda: linear(x), "auto": lambda: layer(x)}
    variants["bare"] = lambda: (linear(x), x.float() @ prototypes.T)
    copied = n_tokens * k * RANK * d
    fixed = [s for s in STRATEGIES if s != "gathered" or copied < MOST_NUMBERS]
    for strategy in fixed:
        variants[strategy] = _forced(linear, n, k, args, x, strategy)
    found = measure(variants, rounds=args.rounds)
    if args.peft:  # apart: what it allocates and frees would slow the others
        model = arrow_by_peft(linear, n, k, prototypes)
        found |= {"peft": measure({"base": lambda: linear(x), "peft": lambda: model(x)}, rounds=args.rounds)["peft"]}
    ratio = {name: found[name]["ratio"] if name in found else None for name in ("auto", "bare", *STRATEGIES, "peft")}
    best = min(found[s]["ratio"] for s in fixed)
    row = {"tokens": n_tokens, "experts": n, "kept": k, "base_us": 1e6 * found["base"]["seconds"], **ratio}
    row |= {"auto_over_best": ratio["auto"] / best, "auto_over_bare": ratio["auto"] / ratio["bare"]}
    row["floor"] = 1 + n / d + 2 * k * RANK / d
    print({key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    return row


def _forced(linear: nn.Linear, n: int, k: int, args: argparse.Namespace, x: torch.Tensor, strategy: Strategy) -> Any:
    layer, _ = routed_layer(linear, n, rank=RANK, k=k, mix=args.mix)
    layer.bank.plan = replace(layer.bank.plan, forced=strategy)
    return lambda: layer(x)


class _Holder(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def arrow_by_peft(linear: nn.Linear, n: int, k: int, prototypes: torch.Tensor) -> nn.Module:
    site = Site("layer", linear.in_features, linear.out_features)
    experts = random_experts({"layer": site}, n, RANK)
    return peft_arrow(_Holder(linear), experts, {"layer.vectors": prototypes}, k=k).to(linear.weight.dtype)


if __name__ == "__main__":
    main()
