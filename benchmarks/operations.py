"""How many operations routing adds to q, k and v at one token: what a GPU would start as kernels.

python benchmarks/operations.py [--experts 64]

Counted where torch dispatches them, without those that only look at memory otherwise or set it aside; the base's three
are taken off. `once`: what the compass does once a call, at the first of all sites. `compiled`: with the optional
operators, if `python -m lorary.adapters.mixing.compiled` has built them. `inductor`: kernels and library calls of the
program that torch.compile writes, without the optional operators; needs a C++ compiler.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from evidence import random_state
from subjects import random_experts, without_operators
from timing import one_thread, save, table
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code
from torch.utils._python_dispatch import TorchDispatchMode

from lorary.adapters.contract import Site
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing import compiled
from lorary.model.attached.attachment import RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.routing.contract import Context, Router
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.compass import Compass

WIDTH = 576
WIDTHS = {"q": WIDTH, "k": 192, "v": 192}
NO_KERNELS = {"aten::empty", "aten::new_empty", "aten::detach", "aten::alias"}


class Counting(TorchDispatchMode):
    """Count what is started."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if not func.is_view and name not in NO_KERNELS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, default=64)
    n = parser.parse_args().experts
    one_thread()
    rows = []
    for name, router in {"arrow": Arrow(), "compass": Compass()}.items():
        blocks = [_block(router, n, i) for i in range(2)]
        with without_operators():
            plain, once = _count(blocks)
            written = _count_written(blocks)
        fused = _count(blocks)[0].total() if compiled.library_path().exists() else None
        rows.append(
            {"router": name, "plain": plain.total(), "compiled": fused, "inductor": written, "once": once.total()}
        )
        print(name, dict(plain))
    print(table(rows))
    print("written to", save("operations", rows, experts=n))


def _block(router: Router, n: int, i: int) -> list[RoutedLinear]:
    """Put n experts over q, k and v of the i-th block."""
    sites = {f"{i}.{name}": Site(f"{i}.{name}", WIDTH, width) for name, width in WIDTHS.items()}
    experts, slot, layers = random_experts(sites, n), Slot("outputs"), []
    for name, site in sites.items():
        bank = LowRankBank([expert[name] for expert in experts.values()], site)
        gate = router.gate(site, random_state(site, n), sorted(experts))
        bank.tune(gate.n_chosen)
        layers.append(RoutedLinear(name, nn.Linear(site.d_in, site.d_out, bias=False), bank, gate, slot))
    return layers


@torch.inference_mode()
def _count(blocks: Sequence[Sequence[RoutedLinear]]) -> tuple[Counter[str], Counter[str]]:
    """Count a sequence's third token: what it starts in a block beyond the base, and what in the first one only."""
    x, context = torch.randn(1, 1, WIDTH), Context()
    for _ in range(3):  # whose gates are asked as one is learnt at the first, and they are put together at the second
        context.evidence.start_call()
        first, later = (_counted(x, block, context) for block in blocks)
    with Counting() as base:
        for layer in blocks[0]:
            layer.base(x)
    return later - base.found, first - later


@torch.inference_mode()
def _count_written(blocks: Sequence[Sequence[RoutedLinear]]) -> int:
    """Count what the compiled program of the second block starts beyond that of its base, at a third token."""
    x, context = torch.randn(1, 1, WIDTH), Context()
    for _ in range(3):  # whose gates are asked as one is learnt at the first, and they are put together at the second
        context.evidence.start_call()
        for block in blocks:
            _counted(x, block, context)
    routed = _calls(lambda x: [layer(x) for layer in blocks[1]], x)
    return routed - _calls(lambda x: [layer.base(x) for layer in blocks[1]], x)


def _calls(run: Callable[[Tensor], list[Tensor]], x: Tensor) -> int:
    torch._dynamo.reset()
    _, (program,) = run_and_get_code(torch.compile(run, fullgraph=True), x)
    return len(
        re.findall(r"(?:extern_kernels\.\w+|cpp_fused\w*|torch\.ops\.[\w.]+)\(", program.partition("def call(")[2])
    )


def _counted(x: Tensor, block: Sequence[RoutedLinear], context: Context) -> Counter[str]:
    slot = block[0].slot  # of all, and x is the same in every call: begin anew
    slot.context = context
    slot.same_input.rest()
    with Counting() as counting:
        for layer in block:
            layer(x)
    return counting.found


if __name__ == "__main__":
    main()
