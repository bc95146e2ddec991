"""Experts of which some layers share one input-side factor, as if they were one layer."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lorary.adapters.contract import Site
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.packed import PackedBank
from lorary.adapters.tied import tied_groups
from lorary.errors import OptionError

Banks = Mapping[str, PackedBank] | Mapping[str, LowRankBank]
"""By site."""


def share_inputs(banks: Banks, sites: Mapping[str, Site], tie: Sequence[str]) -> None:
    """Let tied layers have one A, which all of them train; it starts as the first one's.

    sites: the base's. tie: as `tied_groups`, which raises E-OPTION; so does this for A's that differ, unless the
    experts are fresh and change nothing yet.
    """
    if not tie:
        return
    for group in tied_groups({site: sites[site] for site in banks}, tie):
        first, *others = (banks[site] for site in group)
        for site, other in zip(group[1:], others, strict=True):
            if not torch.equal(first.a, other.a) and bool(other.b.any()):
                what = (
                    f"tie={tuple(tie)}: an expert that this starts from has another A at {site!r} than at {group[0]!r}."
                )
                raise OptionError(
                    "E-OPTION", what, "Start from experts that were trained with this tie, or leave it out."
                )
            other.a = first.a


def factors_of(banks: Banks) -> list[nn.Parameter]:
    """List the factors of all banks, each once."""
    every = [factor for bank in banks.values() for factor in (bank.a, bank.b)]
    return list({id(factor): factor for factor in every}.values())
