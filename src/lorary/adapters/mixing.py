"""How weighted low-rank experts combine.

mix="outputs":  y + sum_i w_i s_i B_i A_i x                     (PEFT's Arrow; any ranks)
mix="factors":  y + (sum_i w_i s_i B_i) (sum_j w_j A_j) x       (the paper's code; one rank; has cross terms i != j)

Source: Ostapenko et al. 2024 (2405.11157) section 4.2 and its code for "factors".
Differs: each expert's own scale goes with its B; the paper's code takes one scale for all.

Neither form builds a per-token A or B, nor a (T, E, d_out) tensor: two dense products over all R rows, or, for few
tokens and many experts, the rows of the chosen experts only. All paths agree; a test compares them.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lorary.adapters.base import Mix
from lorary.errors import AdapterError

if TYPE_CHECKING:
    from lorary.adapters.low_rank import LowRankBank

MAX_GATHERED_TOKENS = 16
MAX_DENSE_ROWS = 128
"""Below these sizes gathering rows, or skipping the gathering, is faster on a CPU; the results are the same."""


def mix_low_rank(
    bank: "LowRankBank", x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix
) -> Tensor:
    """Add the mixed experts' answer to x (B, T, d_in) to y (B, T, d_out).

    weights: (B, T, S, k) with any of B, T, S of size 1; experts: (B, T, k) indices, or None for all E in order.
    S > 1 cuts d_in and d_out in S blocks with weights of their own (MHR); mix="factors" only.
    Raises E-RANK for mix="factors" with unequal ranks, E-SPLIT for S > 1 with mix="outputs".
    """
    if mix == "factors" and bank.common_rank is None:
        raise AdapterError(
            "E-RANK",
            f'mix="factors" needs one rank for all experts of a layer, found {sorted(set(bank.ranks) - {0})}.',
            'Use mix="outputs", or rebuild with one rank.',
        )
    a, b = bank.a.to(x.dtype), bank.b.to(x.dtype)
    if weights.shape[2] > 1:
        return y + _blocks_out(_split_rows(bank, x, a, _over_all(weights, experts, bank.n_experts), mix), b)
    n_tokens = x.shape[0] * x.shape[1]
    if experts is not None and n_tokens <= MAX_GATHERED_TOKENS and a.shape[0] > MAX_DENSE_ROWS:
        return y + _gathered(bank, x, a, b, weights[:, :, 0], experts, mix)
    v = _dense_rows(bank, x, a, _over_all(weights, experts, bank.n_experts)[:, :, 0], mix)  # (B, T, R)
    mixed: Tensor = torch.addmm(y.flatten(0, 1), v.flatten(0, 1), b)
    return mixed.view_as(y)


def _over_all(weights: Tensor, experts: Tensor | None, n_experts: int) -> Tensor:
    """Spread the weights of the kept over all experts: (B, T, S, k) -> (B, T, S, E)."""
    if experts is None:
        return weights
    index = experts.unsqueeze(2).expand(*torch.broadcast_shapes(experts.unsqueeze(2).shape, weights.shape))
    full = weights.new_zeros(*index.shape[:3], n_experts)
    return full.scatter(-1, index, weights.expand_as(index))


def _dense_rows(bank: "LowRankBank", x: Tensor, a: Tensor, w: Tensor, mix: Mix) -> Tensor:
    """Weigh every row's activation: x (B, T, d_in), w (B, T, E) -> (B, T, R)."""
    z = x @ a.T  # (B, T, R)
    if mix == "outputs":
        return z * (w * bank.scale)[..., bank.owner].to(z.dtype)
    w = w[..., bank.present].unsqueeze(-1)  # (B, T, P, 1)
    u: Tensor = (z.unflatten(-1, (bank.present.numel(), -1)) * w.to(z.dtype)).sum(-2, keepdim=True)  # (B, T, 1, r)
    return ((w * bank.scale[bank.present].unsqueeze(-1)).to(z.dtype) * u).flatten(-2)  # (B, T, R)


def _gathered(bank: "LowRankBank", x: Tensor, a: Tensor, b: Tensor, w: Tensor, experts: Tensor, mix: Mix) -> Tensor:
    """Compute with the rows of the kept experts only: w (B, T, k), experts (B, T, k) -> (B, T, d_out)."""
    rows = bank.rows[experts].flatten(-2)  # (B, T, k * r_max)
    is_row = bank.is_row[experts]  # (B, T, k, r_max)
    z = (a[rows] @ x.unsqueeze(-1)).view(is_row.shape)  # (B, T, k, r_max)
    w = w.unsqueeze(-1) * is_row  # (B, T, k, r_max), zero at padding and for absent experts
    scaled = (w * bank.scale[experts].unsqueeze(-1)).to(z.dtype)
    u = z if mix == "outputs" else (z * w.to(z.dtype)).sum(-2, keepdim=True)
    return ((scaled * u).flatten(-2).unsqueeze(-2) @ b[rows]).squeeze(-2)


def _split_rows(bank: "LowRankBank", x: Tensor, a: Tensor, w: Tensor, mix: Mix) -> Tensor:
    """Weigh every row's activation block by block: w (B, T, S, E) -> (B, T, S, R)."""
    if mix == "outputs":
        raise AdapterError("E-SPLIT", 'weights per block (S > 1) are defined for mix="factors" only.')
    n_splits, present = w.shape[2], bank.present
    z = torch.einsum("btsi,rsi->btsr", x.unflatten(-1, (n_splits, -1)), a.unflatten(-1, (n_splits, -1)))
    w = w[..., present].unsqueeze(-1)  # (B, T, S, P, 1)
    z = z.unflatten(-1, (present.numel(), -1))  # (B, T, S, P, r)
    u: Tensor = (z * w.to(z.dtype)).sum((2, 3))[:, :, None, None]  # (B, T, 1, 1, r)
    return ((w * bank.scale[present].unsqueeze(-1)).to(z.dtype) * u).flatten(-2)  # (B, T, S, R)


def _blocks_out(v: Tensor, b: Tensor) -> Tensor:
    """Turn weighted rows per block into outputs: v (B, T, S, R), b (R, d_out) -> (B, T, d_out)."""
    return torch.einsum("btsr,rso->btso", v, b.unflatten(-1, (v.shape[2], -1))).flatten(-2)
