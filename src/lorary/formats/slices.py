"""The slices of a mixture's parameters, as PEFT has their factors: all of a parameter's in one pair of tensors.

Shape letters: P slices, r rank.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.adapters.products import padded
from lorary.library.adapter.targets import Factors, parse_slice


class Joined(NamedTuple):
    """The factors of all slices of a parameter, a (P r, d_in) and b (d_out, r P), with the rank and scale of each."""

    a: Tensor
    b: Tensor
    rank: int
    scale: float


def own_part(factors: Factors, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a site's own a (r, d_in) and b (d_out, r) out of the tensors that they are in; views."""
    if not factors.of:
        return a, b
    rank = a.shape[0] // factors.of
    return a[factors.number * rank : (factors.number + 1) * rank], b[:, factors.number :: factors.of]


def joined(several: Sequence[Weights]) -> tuple[Tensor, Tensor]:
    """Put the factors of all P slices, of one rank, into one pair: (P r, d_in) and (d_out, r P); a single one stays."""
    if len(several) == 1:
        return several[0].a, several[0].b
    b = torch.stack([w.b for w in several], -1)  # (d_out, r, P)
    return torch.cat([w.a for w in several]), b.flatten(1)


def join_slices(weights: Mapping[str, Weights], kind: LoRA) -> dict[str, Joined]:
    """Join the slices of each parameter: its path -> the one pair of factors.

    Slices that `weights` lacks, or of less rank than others, are filled with zeros, and scales that differ go into b.
    The number of slices is that of the module's parameter with the most.
    """
    found: dict[str, dict[int, Weights]] = {}
    n_slices: dict[str, int] = {}
    for site, w in weights.items():
        place = parse_slice(site)
        assert place is not None, site
        found.setdefault(place.parameter, {})[place.number] = w
        n_slices[place.module] = max(n_slices.get(place.module, 0), place.number + 1)
    return {
        parameter: _join(by_number, n_slices[parameter.rpartition(".")[0]], kind)
        for parameter, by_number in sorted(found.items())
    }


def _join(by_number: Mapping[int, Weights], n_slices: int, kind: LoRA) -> Joined:
    rank, scales = max(w.rank for w in by_number.values()), {w.scale for w in by_number.values()}
    scale = scales.pop() if len(scales) == 1 else kind.scale
    some = next(iter(by_number.values()))
    nothing = Weights(some.a[:0], some.b[:, :0], scale)
    several = [_brought_to(by_number.get(number, nothing), rank, scale) for number in range(n_slices)]
    return Joined(*joined(several), rank, scale)


def _brought_to(weights: Weights, rank: int, scale: float) -> Weights:
    a, b = weights.a.detach().float().cpu(), weights.b.detach().float().cpu()
    b = b if weights.scale == scale else b * (weights.scale / scale)
    return padded(Weights(a, b, scale), rank)
