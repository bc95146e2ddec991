"""How far hidden states deviate along experts' directions from what is usual, and what a mixture of experts loses."""

import math

import torch
from torch import Tensor

from lorary.adapters.mixing.chosen_rows import sums

_FEW_MIXTURES = 64  # as many or fewer: their sketches are copied


def deviations(h: Tensor, vectors: Tensor, shift: Tensor, *, normalise: bool) -> Tensor:
    """Multiply hidden states (B, T, d) with vectors (P, d) in float32 and add shift (P,): (B, T, P)."""
    h = h.float()
    products = torch.nn.functional.linear(h, vectors)
    if not normalise:
        return products + shift
    # The same as to normalise h, and (B, T, d) is not written again.
    root = math.sqrt(h.shape[-1])
    size = torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp(min=1e-6 * root)
    return torch.addcdiv(shift, products, size, value=root)


def calibration(products: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find mean and deviation of products (P, n), then mean and 1 / deviation of |standardised|, each (P,).

    Without products nothing is shifted or scaled.
    """
    zeros, ones = products.new_zeros(len(products)), products.new_ones(len(products))
    if not products.shape[1]:
        return zeros, ones, zeros, ones
    offset, spread = products.mean(1), products.std(1, correction=0).clamp(min=1e-6)
    sizes = ((products - offset.unsqueeze(1)) / spread.unsqueeze(1)).abs()
    return offset, spread, sizes.mean(1), 1 / sizes.std(1, correction=0).clamp(min=1e-6)


def lost_strength(weights: Tensor, rows: Tensor | None, sketches: Tensor, power: float, n_kept: int) -> Tensor | None:
    """Tell how many times mixtures, weaker than their experts, are to count: (..., 1); None if once.

    power: of what they lose, at most sqrt(n_kept) times. weights (..., k) of the sketches in `rows` (..., k); without
    them of all sketches, (P, m + 1) or (G, P, m + 1).
    """
    if not power or n_kept == 1:
        return None
    n = weights.shape[:-1].numel()
    if rows is None or torch.compiler.is_compiling():  # a compiler makes one step of what it sees as small products
        of_each = sketches if rows is None else sketches[rows]
        mixed = (weights.unsqueeze(-2) @ of_each).squeeze(-2)  # (..., m + 1)
    elif n <= _FEW_MIXTURES:
        of_each = sketches.index_select(0, rows.reshape(-1)).view(n, n_kept, -1)
        mixed = torch.bmm(weights.reshape(n, 1, -1), of_each).view(*weights.shape[:-1], -1)
    else:
        mixed = sums(weights.reshape(n, -1), sketches, rows.reshape(n, -1)).view(*weights.shape[:-1], -1)
    size = torch.linalg.vector_norm(mixed[..., :-1], dim=-1, keepdim=True)
    # Experts that cancel one another aren't blown up: as if at right angles, at most.
    lost: Tensor = (mixed[..., -1:] / size).clamp(max=math.sqrt(n_kept))
    return lost.pow(power)
