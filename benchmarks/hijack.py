"""How often W-HIJACK is told of experts that were trained honestly: its false positives.

    python benchmarks/hijack.py libs/private [libs/other ...] [--orders 4]

Each library is routed by Arrow on its base. Its experts are then taken out one after the other, in some random orders,
down to two, and after each the warning is asked for again: every subset on the way is a library that somebody might
have. Prints, by the number of experts, how many subsets were looked at, in how many somebody would have been told of,
and the largest share that anybody took.
"""

import argparse
import random
import warnings
from collections import defaultdict
from pathlib import Path

import lorary as lo
from lorary.model.routed.shares import takes_most
from lorary.using.base_of import base_of


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("libraries", nargs="+", type=Path)
    parser.add_argument("--orders", type=int, default=4)
    given = parser.parse_args()
    found: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for path in given.libraries:
        library = lo.Library.open(path)
        base = lo.load_base(base_of(library))
        for order in range(given.orders):
            measure(base, library, random.Random(order), found)
    print(f"{'experts':>8}{'subsets':>9}{'told':>6}{'largest share':>15}")
    for n in sorted(found, reverse=True):
        shares, told = zip(*found[n], strict=True)
        print(f"{n:>8}{len(told):>9}{sum(told):>6}{max(shares):>15.0%}")
    whole = [told for looked in found.values() for _, told in looked]
    print(f"{sum(whole)} of {len(whole)} subsets: {sum(whole) / len(whole):.1%}")


def measure(base, library, chance, found) -> None:
    leaving = sorted(library)
    chance.shuffle(leaving)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lo.route(base, library, lo.Arrow())
    with model:
        for name in [None, *leaving[:-2]]:
            if name is not None:
                model.remove(name)
            shares = model.shares()
            found[len(shares)].append((max(shares.values()), bool(takes_most(shares))))


if __name__ == "__main__":
    main()
