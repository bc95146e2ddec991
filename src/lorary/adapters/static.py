"""A fixed mixture of experts at one site as one expert: what routing comes to when nothing depends on the token.

mix="outputs": sum_i w_i s_i B_i A_i, exactly, as factors laid side by side, or the nearest of a given rank.
mix="factors": (sum_i w_i s_i B_i) (sum_i w_i A_i), which has the experts' common rank as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.adapters.contract import Mix, Weights
from lorary.adapters.products import thin_svd
from lorary.errors import AdapterError
from lorary.library.adapter.numbers import MAX_ABS


@dataclass(frozen=True, eq=False)
class StaticMix:
    """One expert in the place of several. Squared Frobenius norms: of what it is to be, and of what it leaves out."""

    weights: Weights
    norm2: float
    missing2: float


def mix_static(
    parts: Sequence[Weights], shares: Sequence[float], mix: Mix, rank: int | None, *, site: str
) -> StaticMix:
    """Mix experts in fixed shares; the outcome has scale 1 and float32 factors.

    rank: the largest allowed; None = no truncation. More rank than the layer has is taken away in any case, exactly.
    Raises E-NONFINITE, naming the site, for shares that make numbers which no adapter may hold.
    """
    a, b = _stacked(parts, shares, mix)
    check_factors(a, b, site)  # in float64, before anything is squared
    limit = min(rank or a.shape[0], *a.shape[1:], b.shape[0])
    if a.shape[0] <= limit:
        return StaticMix(Weights(a.float(), b.float(), 1.0), _norm2(a, b), 0.0)
    svd = thin_svd(a, b)
    kept = svd.keep(limit)[0]
    check_factors(kept.a, kept.b, site)
    return StaticMix(kept, svd.norm2, float(svd.s[limit:].square().sum()))


def check_factors(a: Tensor, b: Tensor, site: str) -> None:
    """Refuse what no adapter may hold: numbers that aren't finite, too large, or too small for float32.

    Raises E-NONFINITE, naming the site.
    """
    least = torch.finfo(torch.float32).tiny
    for factor in (a, b):
        largest = float(factor.abs().max())
        if largest != 0 and not least <= largest <= MAX_ABS:
            what = f"site {site!r}: the mixture's largest number is {largest:.3g}, an adapter's may be {least:.0e} to "
            raise AdapterError("E-NONFINITE", f"{what}{MAX_ABS:g}.", "Give other shares.")


def _stacked(parts: Sequence[Weights], shares: Sequence[float], mix: Mix) -> tuple[Tensor, Tensor]:
    """Give a (R, d_in) and b (d_out, R), float64, whose product is the mixture."""
    left = [w.a.double() for w in parts]
    right = [share * w.scale * w.b.double() for w, share in zip(parts, shares, strict=True)]
    if mix == "outputs":
        return torch.cat(left), torch.cat(right, dim=1)
    weighted = [share * a for a, share in zip(left, shares, strict=True)]
    return torch.stack(weighted).sum(0), torch.stack(right).sum(0)


def _norm2(a: Tensor, b: Tensor) -> float:
    return float(((b.T @ b) * (a @ a.T)).sum())
