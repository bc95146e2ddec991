"""Who spoke at the last token of each row of a call, read off the routings that a slot recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lorary.routing.contract import Routing


@dataclass(frozen=True, eq=False)
class Spoken:
    """weights: (B, L, E) on the CPU, or (L, E) of one row; L sites, E experts in order of `names`, splits averaged.

    evidence: (B, E) or (E), over all sites, of a router that keeps some.
    """

    sites: tuple[str, ...]
    names: tuple[str, ...]
    weights: Tensor
    evidence: Tensor | None = None

    def of(self, row: int) -> "Spoken":
        """Give what is of one row alone."""
        evidence = None if self.evidence is None else self.evidence[row]
        return replace(self, weights=self.weights[row], evidence=evidence)


def read_spoken(
    records: Mapping[str, Sequence[Routing]], n_rows: int, n_tokens: int, names: Sequence[str],
    evidence: Tensor | None = None,
) -> Spoken | None:  # fmt: skip
    """Read the last tokens' weights of a call of (n_rows, n_tokens); None if no site tells them.

    A site that was given some of the tokens only, by a block that sorts them, doesn't tell whose they were: it is left
    out. One that was called several times counts as their mean. evidence: (B, T, E) of the call.
    """
    found: dict[str, Tensor] = {}
    for site, routings in records.items():
        whole = [r for r in routings if len(r.weights) == n_rows and r.n_tokens >= n_tokens]
        if whole:
            found[site] = torch.stack([_last(routing, len(names)) for routing in whole]).mean(0)
    if not found:
        return None
    last = None if evidence is None else evidence[:, -1].float().cpu()
    return Spoken(tuple(found), tuple(names), torch.stack(list(found.values()), 1).cpu(), last)


def _last(routing: Routing, n_experts: int) -> Tensor:
    """Spread the last token's weights over all experts: (B, E)."""
    weights = routing.weights[:, -1].mean(1).float()  # (B, k)
    if routing.experts is None:
        return weights
    index = routing.experts[:, -1]
    return weights.new_zeros(len(weights), n_experts).scatter(-1, index, weights)
