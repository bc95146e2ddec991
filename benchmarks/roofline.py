"""What routing must cost on a GPU: bytes and operations of each kernel, and the time that a card needs for them.

python benchmarks/roofline.py [--width 4096] > table

Nothing is measured. A kernel takes as long as the slowest of its tensor cores, float32 units, memory and L2 cache at
the shares of their peaks below, and LAUNCH_S, as in a CUDA graph. One layer of d inputs and d outputs in bfloat16, 4
experts of rank r kept of E, T tokens.
"""

import argparse
import itertools
from dataclasses import dataclass

KEPT = 4
LAUNCH_S = 1.5e-6
RANKS, EXPERTS, TOKENS = (4, 16), (8, 64, 256, 1024), (1, 32, 512, 4096)


@dataclass(frozen=True)
class Card:
    """Peaks of a card, of which a good kernel reaches a share: products 0.6, float32 0.7, memory 0.85, L2 0.7."""

    name: str
    products: float
    floats: float
    memory: float
    l2: float


CARDS = (
    Card("H100 SXM", 0.6 * 989e12, 0.7 * 67e12, 0.85 * 3.35e12, 0.7 * 5.5e12),
    Card("H200", 0.6 * 989e12, 0.7 * 67e12, 0.85 * 4.8e12, 0.7 * 5.5e12),
)


@dataclass(frozen=True)
class Kernel:
    """What one launch does: floating-point operations of tensor cores and of float32 units, bytes of memory and L2."""

    products: float = 0.0
    floats: float = 0.0
    memory: float = 0.0
    l2: float = 0.0

    def seconds(self, card: Card) -> float:
        """Say how long it takes at best."""
        limits = (self.products / card.products, self.floats / card.floats)
        return LAUNCH_S + max(*limits, self.memory / card.memory, self.l2 / card.l2)


def base(t: int, i: int, o: int) -> list[Kernel]:
    """The linear layer, of i inputs and o outputs."""
    return [Kernel(products=2 * t * i * o, memory=2 * (i * o + t * (i + o)))]


def scores(t: int, i: int, e: int, *, n_sites: int = 1, in_parts: bool = False) -> list[Kernel]:
    """Hidden states to float32, their products with all prototypes in float32, then the best and their softmax.

    n_sites: of so many sites that read the same states. in_parts: hidden states as they are, bfloat16, and prototypes
    as the sum of three bfloat16 numbers, which holds all 24 bits: three products on tensor cores, added in float32.
    """
    e, k = n_sites * e, n_sites * KEPT
    keep = Kernel(floats=KEPT * t * e, memory=4 * t * e + 12 * t * k)
    if in_parts:
        return [Kernel(products=6 * t * e * i, memory=6 * e * i + 2 * t * i + 4 * t * e), keep]
    return [Kernel(memory=6 * t * i), Kernel(floats=2 * t * e * i, memory=4 * (e * i + t * i + t * e)), keep]


def chosen(t: int, i: int, o: int, e: int, r: int) -> list[Kernel]:
    """The kernels of the chosen rows: each side reads its rows once from memory and once a token from L2."""
    n_rows, n_read = min(e, t * KEPT) * r, t * KEPT * r
    shrink = Kernel(floats=2 * n_read * i, memory=2 * (n_rows * i + t * i), l2=2 * n_read * i)
    expand = Kernel(floats=2 * n_read * o, memory=2 * (n_rows * o + 2 * t * o), l2=2 * n_read * o)
    return [shrink, expand]


def dense(t: int, i: int, o: int, e: int, r: int) -> list[Kernel]:
    """All rows on both sides: two products of matrices, and the weights between them."""
    sides = [Kernel(products=2 * t * e * r * d, memory=2 * (e * r * d + t * d + t * e * r)) for d in (i, o)]
    return [sides[0], Kernel(memory=4 * t * e * r), sides[1]]


def seconds(kernels: list[Kernel], card: Card) -> float:
    """Add up launches, one after the other."""
    return sum(kernel.seconds(card) for kernel in kernels)


def over_base(t: int, d: int, e: int, r: int, card: Card) -> tuple[float, float, float]:
    """Give a layer's seconds, and the times over it with the kernels and with dense products."""
    alone, router = seconds(base(t, d, d), card), seconds(scores(t, d, e), card)
    with_each = [1 + (router + seconds(mix(t, d, d, e, r), card)) / alone for mix in (chosen, dense)]
    return alone, with_each[0], with_each[1]


def of_a_block(t: int, e: int, r: int, card: Card, *, together: bool = False, in_parts: bool = False) -> float:
    """Give the time over the base of a block of Llama 3 8B's shape, experts on q, k, v and o; attention left out.

    together: q, k and v scored at once.
    """
    routed = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096)]
    alone = sum(seconds(base(t, i, o), card) for i, o in [*routed, (4096, 14336), (4096, 14336), (14336, 4096)])
    counts = (3, 1) if together else (1, 1, 1, 1)
    added = sum(seconds(scores(t, 4096, e, n_sites=n, in_parts=in_parts), card) for n in counts)
    added += sum(min(seconds(mix(t, i, o, e, r), card) for mix in (chosen, dense)) for i, o in routed)
    return 1 + added / alone


def layer_lines(d: int) -> list[str]:
    """Make the table of one layer."""
    head = ["r", "E", "T"] + [f"{card.name}: {what}" for card in CARDS for what in ("layer, µs", "kernels", "dense")]
    lines = [f"| {' | '.join(head)} | measured |", "| --: " * (len(head) + 1) + "|"]
    for r, e, t in itertools.product(RANKS, EXPERTS, TOKENS):
        cells = [str(r), str(e), str(t)]
        for card in CARDS:
            alone, *ratios = over_base(t, d, e, r, card)
            cells += [f"{1e6 * alone:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append(f"| {' | '.join(cells)} | not measured |")
    return lines


GOALS = {("prefill 512", 8): 1.10, ("prefill 512", 64): 1.15, ("prefill 512", 256): 1.30}
GOALS |= {("decode", 8): 1.15, ("decode", 64): 1.20, ("decode", 256): 1.30}


def block_lines() -> list[str]:
    """Make the table of a block, beside the goals."""
    head = ["what", "E", "goal"] + [f"{card.name}: r = {r}" for card in CARDS for r in RANKS]
    lines = [f"| {' | '.join(head)} | measured |", "| :-- " + "| --: " * len(head) + "|"]
    for (what, e), goal in GOALS.items():
        t = 512 if what != "decode" else 1
        cells = [f"{of_a_block(t, e, r, card):.2f}" for card in CARDS for r in RANKS]
        lines.append(f"| {what} | {e} | {goal:.2f} | {' | '.join(cells)} | not measured |")
    return lines


def plan_lines() -> list[str]:
    """Make the table of what other ways to score would bring a block, for r = 4."""
    plans: dict[str, dict[str, bool]] = {
        "as it is": {},
        "q, k, v at once": {"together": True},
        "in parts": {"in_parts": True},
        "both": {"together": True, "in_parts": True},
    }
    head = ["what", "E", "goal"] + [f"{card.name}: {plan}" for card in CARDS for plan in plans]
    lines = [f"| {' | '.join(head)} |", "| :-- " + "| --: " * (len(head) - 1) + "|"]
    for (what, e), goal in GOALS.items():
        t = 512 if what != "decode" else 1
        cells = [f"{of_a_block(t, e, 4, card, **plan):.2f}" for card in CARDS for plan in plans.values()]
        lines.append(f"| {what} | {e} | {goal:.2f} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4096)
    print("\n".join([*block_lines(), "", *plan_lines(), "", *layer_lines(parser.parse_args().width)]))


if __name__ == "__main__":
    main()
