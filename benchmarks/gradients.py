"""Forward and backward through one routed layer: gradients of the input, all A, all B, and the gate through the input.

python benchmarks/gradients.py [--experts 8 64 256] [--tokens 512] [--width 576]

The base is its forward and the gradient of its input. `dense`: autograd over two dense products.
"""

import argparse
from dataclasses import replace
from typing import Any

import torch
from layer import arrow_by_peft
from subjects import routed_layer
from timing import measure, one_thread, save, table
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    one_thread()
    rows = [_row(n, args) for n in args.experts]
    print(table(rows))
    print("written to", save("gradients", rows, tokens=args.tokens, width=args.width, rank=4, k=4))


def _row(n: int, args: argparse.Namespace) -> dict[str, Any]:
    linear = nn.Linear(args.width, args.width, bias=False).requires_grad_(False)
    x = torch.randn(1, args.tokens, args.width, requires_grad=True)
    grad = torch.randn(1, args.tokens, args.width)
    variants = {"base": _step(linear, x, grad, [])}
    for mix in ("outputs", "factors"):
        layer, prototypes = routed_layer(linear, n, mix=mix, trainable=True)
        variants[mix] = _step(layer, x, grad, list(layer.bank.parameters()))
    dense, _ = routed_layer(linear, n, trainable=True)
    dense.bank.plan = replace(dense.bank.plan, forced="dense")
    variants["dense"] = _step(dense, x, grad, list(dense.bank.parameters()))
    peft = arrow_by_peft(linear, n, 4, prototypes)
    experts = [p.requires_grad_(True) for name, p in peft.named_parameters() if ".task_" in name]
    variants["peft"] = _step(peft, x, grad, experts)
    own, other = (torch.autograd.grad(run(x), x, grad)[0] for run in (dense, peft))
    assert (own - other).abs().max() < 1e-4 * other.abs().max()
    found = measure(variants, rounds=args.rounds)
    row = {"experts": n, "base_us": 1e6 * found["base"]["seconds"], **{name: found[name]["ratio"] for name in variants}}
    print(row, flush=True)
    return row


def _step(module: nn.Module, x: torch.Tensor, grad: torch.Tensor, experts: list[nn.Parameter]) -> Any:
    return lambda: torch.autograd.grad(module(x), [x, *experts], grad)


if __name__ == "__main__":
    main()
