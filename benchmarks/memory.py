"""Transient memory of one routed call, 512 tokens: lorary and PEFT's Arrow measured, mttl's default by its formula.

python benchmarks/memory.py [--experts 8 64 256] [--width 576]
"""

import argparse
from typing import Any

import torch
from layer import RANK, arrow_by_peft
from subjects import routed_layer
from timing import one_thread, save, table
from torch import nn

from lorary.testing.memory import peak_mib

TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--width", type=int, default=576)
    args = parser.parse_args()
    one_thread()
    rows = [_row(n, args.width) for n in args.experts]
    print(table(rows))
    print("written to", save("memory", rows, tokens=TOKENS, width=args.width, rank=RANK, k=4))


@torch.inference_mode()
def _row(n: int, d: int) -> dict[str, Any]:
    linear, x = nn.Linear(d, d, bias=False), torch.randn(1, TOKENS, d)
    row: dict[str, Any] = {"experts": n}
    for mix in ("outputs", "factors"):
        layer, prototypes = routed_layer(linear, n, rank=RANK, mix=mix)
        row[mix] = peak_mib(lambda layer=layer: layer(x))
    peft = arrow_by_peft(linear, n, 4, prototypes)
    row["peft"] = peak_mib(lambda: peft(x))
    row["mttl"] = TOKENS * RANK * 2 * d * 4 / 2**20  # an A and a B of its own for every token
    return row


if __name__ == "__main__":
    main()
