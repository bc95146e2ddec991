"""Layers that read the same input, as q, k and v do: which of them are tied, and the one layer that they stand for."""

from collections.abc import Mapping, Sequence

import torch

from lorary.adapters.contract import Site, Weights
from lorary.errors import OptionError


def tied_groups(sites: Mapping[str, Site], tie: Sequence[str]) -> list[list[str]]:
    """Group sites: those of one module that `tie` names, by the last part of their path, together; others alone.

    Raises E-OPTION for a name that ties no layer to another, and for layers that can't read the same input.
    """
    groups: dict[str, list[str]] = {}
    for site in sites:
        module, _, last = site.rpartition(".")
        groups.setdefault(f"{module}." if last in tie else site, []).append(site)
    here = {site.rpartition(".")[2] for site in sites}
    tied = {site.rpartition(".")[2] for group in groups.values() if len(group) > 1 for site in group}
    if idle := sorted({*tie} - tied, key=lambda name: (name in here, name)):
        known = ", ".join(sorted(here))
        what = f"tie={tuple(tie)}: {idle[0]!r} is no layer beside another of these. The layers are {known}."
        raise OptionError("E-OPTION", what, "Name layers of one module that read the same input, as q_proj and k_proj.")
    for group in groups.values():
        _check_widths([sites[site] for site in group])
    return list(groups.values())


def _check_widths(group: Sequence[Site]) -> None:
    first = group[0]
    if other := next((site for site in group if site.d_in != first.d_in), None):
        what = f"tie: {first.name!r} reads {first.d_in} numbers, {other.name!r} {other.d_in}."
        raise OptionError("E-OPTION", what, "Tie layers that read the same input alone.")


def one_below_the_other(parts: Sequence[Weights]) -> Weights:
    """Make of an expert's weights at tied sites those at the one layer that gives all their outputs at once.

    An A that all share stays it, with the B's (d_out, r) below each other; else the ranks add up.
    """
    factors = [weights.factors() for weights in parts]
    a = factors[0][0]
    if all(torch.equal(a, other) for other, _ in factors):
        return Weights(a, torch.cat([b for _, b in factors]), 1.0)
    return Weights(torch.cat([a for a, _ in factors]), torch.block_diag(*(b for _, b in factors)), 1.0)
