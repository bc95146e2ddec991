"""What scoring q, k and v together would bring a whole model: time over the base, now and with prototypes patched in.

python benchmarks/grouping.py --phases decode --rounds 61 --name grouping-decode
python benchmarks/grouping.py --phases "prefill 512" --rounds 7 --name grouping-prefill

`grouped`: one product, one choice and one softmax for the three sites of a block that read one input. `one_token`:
two matrix-vector products for a single token's rows, the scale within the second. Neither is in lorary; docs/log.md
says why.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from model import PROMPT
from subjects import routed_model, smollm2_shape, without_operators
from timing import measure, one_thread, save, table
from torch import Tensor

from lorary.adapters.contract import Mix
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing import mix as mixing
from lorary.routing.contract import Context, Routing
from lorary.routing.scored import ScoredGate, keep_best


class Group:
    """Gates that are asked about one tensor, one after the other."""

    def __init__(self, gates: Sequence[ScoredGate]) -> None:
        self.vectors = torch.cat([gate.vectors for gate in gates])  # (G * P, d_in)
        self.members = list(gates)
        self.h: Tensor | None = None
        self.routings: list[Routing] = []

    def ask(self, gate: ScoredGate, h: Tensor) -> Routing:
        if self.h is not h:
            scores = gate.score(h, self.vectors).unflatten(-1, (len(self.members), -1))  # (B, T, G, P)
            kept, index = keep_best(scores, gate.n_kept, never_negative=gate.never_negative)
            found = zip(torch.softmax(kept, dim=-1).split(1, 2), index.unbind(2), strict=True)
            self.h, self.routings = h, [Routing(weights, experts) for weights, experts in found]
        return self.routings[self.members.index(gate)]


def one_token(bank: LowRankBank, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor, mix: Mix) -> Tensor:
    if x.shape[0] * x.shape[1] > 1:
        return _GATHERED(bank, x, y, weights, experts, mix)
    a, b = (f.view(bank.n_experts, -1).index_select(0, experts.view(-1)) for f in (bank.a, bank.b))  # (k, r * d)
    z, w = torch.mv(a.view(-1, x.shape[-1]), x.view(-1)), weights.view(-1, 1)
    v = mixing._weigh(z.view(len(w), -1), w, w, mix).view(-1)
    scale = bank.layout.common_scale or 0.0
    return torch.addmv(y.view(-1), b.view(-1, y.shape[-1]).T, v, alpha=scale).view_as(y)


_GATHERED = mixing._gathered
_FORWARD = ScoredGate.forward


def main() -> None:
    args = _arguments()
    one_thread()
    rows = [row for n in args.experts for row in _rows(n, args)]
    print(table(rows))
    print("written to", save(args.name, rows, layers=args.layers, k=4, rank=4, rounds=args.rounds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--phases", nargs="+", default=["decode", "prefill 512"])
    parser.add_argument("--name", default="grouping")
    return parser.parse_args()


@torch.inference_mode()
def _rows(n: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    hf = smollm2_shape(args.layers)
    routed, _, _ = routed_model(hf, n)
    groups: dict[ScoredGate, Group] = {}
    for block in routed.model.layers:
        gates = [getattr(block.self_attn, name).gate for name in ("q_proj", "k_proj", "v_proj")]
        groups |= dict.fromkeys(gates, Group(gates))

    def forward(gate: ScoredGate, h: Tensor, context: Context) -> Routing:
        return groups[gate].ask(gate, h) if gate in groups else _FORWARD(gate, h, context)

    group, single = patch.object(ScoredGate, "forward", forward), patch.object(mixing, "_gathered", one_token)
    ids = torch.randint(0, 49152, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    rows = []
    for phase in args.phases:
        run = _decode if phase == "decode" else _prefill
        plans: dict[str, tuple[Any, list[Any]]] = {
            "base": (hf, []),
            "now": (routed, []),
            "grouped": (routed, [group]),
            "one_token": (routed, [single]),
            "both": (routed, [group, single]),
        }
        variants = {name: _patched(run(model, ids), patches) for name, (model, patches) in plans.items()}
        answers = {name: variant() for name, variant in variants.items()}
        worst = max(float((answers[name] - answers["now"]).abs().max()) for name in ("grouped", "one_token", "both"))
        assert worst < 1e-3 < float((answers["base"] - answers["now"]).abs().max()), worst
        found = measure(variants, rounds=args.rounds)
        row = {"phase": phase, "experts": n, "base_ms": 1000 * found["base"]["seconds"]}
        rows.append(row | {name: found[name]["ratio"] for name in plans if name != "base"} | {"largest_error": worst})
        print(rows[-1], flush=True)
    return rows


def _patched(run: Callable[[], Tensor], patches: Sequence[Any]) -> Callable[[], Tensor]:
    def go() -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(without_operators())
            for each in patches:
                stack.enter_context(each)
            return run()

    return go


def _decode(model: Any, ids: Tensor) -> Callable[[], Tensor]:
    cache = model(input_ids=ids[:, :128], use_cache=True).cache

    def step() -> Tensor:
        logits: Tensor = model(input_ids=ids[:, 128:129], cache=cache, use_cache=True).logits
        cache.crop(-1)
        return logits

    return step


def _prefill(model: Any, ids: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        logits: Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        return logits

    return run


if __name__ == "__main__":
    main()
