"""How weighted low-rank experts combine.

mix="outputs":  y + sum_i w_i s_i B_i A_i x                     (PEFT's Arrow; any ranks)
mix="factors":  y + (sum_i w_i s_i B_i) (sum_j w_j A_j) x       (the paper's code; one rank; has cross terms i != j)

Source: Ostapenko et al. 2024 (2405.11157) section 4.2 and its code for "factors".
Differs: each expert's own scale goes with its B; the paper's code takes one scale for all.

Neither form builds a (T, E, d_out) tensor. Five strategies give the same numbers: "dense" multiplies with all R rows;
"chosen" with the rows of the kept experts, where they lie; "dense_in" with all rows on the input side and the kept ones
on the output side; "gathered" copies the kept experts first, for a few tokens and equal experts; "kernel" does as
"chosen" in two launches on a GPU. `tuning` says which is the fastest where; a test compares them all.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from lorary.adapters.bank_rows import Layout
from lorary.adapters.contract import Mix
from lorary.adapters.mixing.chosen_rows import dots, sums
from lorary.adapters.mixing.compiled import usable
from lorary.adapters.mixing.on_gpu import kernels_for
from lorary.adapters.mixing.tuning import KERNEL, Plan, Strategy
from lorary.errors import AdapterError


class Factors(Protocol):
    """What of a bank is mixed: the factors of E experts, a (R, d_in) and b (R, d_out), and whose rows are where."""

    layout: Layout
    plan: Plan
    n_experts: int

    @property
    def a(self) -> Tensor:
        """The input side, (R, d_in)."""

    @property
    def b(self) -> Tensor:
        """The output side, (R, d_out)."""


def mix_low_rank(
    bank: Factors,
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    experts: Tensor | None,
    mix: Mix,
    strategy: Strategy | None = None,
) -> Tensor:
    """Add the mixed experts' answer to x (B, T, d_in) to y (B, T, d_out), computed in the dtype of y.

    weights: (B, T, S, k) with any of B, T, S of size 1; experts: (B, T, k) indices, or None for all E in order.
    S > 1 cuts d_in and d_out in S blocks with weights of their own (MHR); mix="factors" only.
    strategy: for tests and measurements; None takes the bank's plan.
    Raises E-RANK for mix="factors" with unequal ranks, E-SPLIT for S > 1 with mix="outputs".
    """
    if mix == "factors" and bank.layout.common_rank is None:
        raise AdapterError(
            "E-RANK",
            f'mix="factors" needs one rank for all experts of a layer, found {sorted(set(bank.layout.ranks) - {0})}.',
            'Use mix="outputs", or rebuild with one rank.',
        )
    x = x.to(y.dtype)  # under autocast the layer answers in a narrower dtype than it was asked in
    if weights.shape[2] > 1:
        return y + _blocks(bank, x, _over_all(weights, experts, bank.n_experts), mix)
    if experts is not None and strategy is None:
        if bank.layout.is_even and bank.a.dtype == x.dtype and (operators := usable(x)) is not None:
            return _fused(operators, bank, x, y, weights, experts, mix)
        strategy = bank.plan.choose(x.shape[0] * x.shape[1], experts.shape[-1], y.dtype)
    if strategy == KERNEL and experts is not None:
        if (kernels := kernels_for(x)) is not None:
            return _by_kernels(kernels, bank, x, y, weights, experts, mix)
        strategy = bank.plan.by_rule(x.shape[0] * x.shape[1], experts.shape[-1], y.dtype)
    if experts is None or strategy == "dense":
        return _dense(bank, x, y, _over_all(weights, experts, bank.n_experts).squeeze(2), mix)
    if strategy == "gathered" and bank.layout.is_even:
        return _gathered(bank, x, y, weights, experts, mix)
    return _chosen(bank, x, y, weights, experts, mix, dense_in=strategy == "dense_in")


def _over_all(weights: Tensor, experts: Tensor | None, n_experts: int) -> Tensor:
    """Spread the weights of the kept over all experts: (B, T, S, k) -> (B, T, S, E)."""
    if experts is None:
        return weights
    index = experts.unsqueeze(2).expand(*torch.broadcast_shapes(experts.unsqueeze(2).shape, weights.shape))
    full = weights.new_zeros(*index.shape[:3], n_experts)
    return full.scatter(-1, index, weights.expand_as(index))


def _dense(bank: Factors, x: Tensor, y: Tensor, w: Tensor, mix: Mix) -> Tensor:
    """Multiply with all rows, on both sides: x (B, T, d_in), w (B, T, E) -> (B, T, d_out)."""
    layout = bank.layout
    a, b = bank.a.to(y.dtype), bank.b.to(y.dtype)
    z = x @ a.T  # (B, T, R)
    if layout.common_rank is None:
        v = z * (w * layout.scale)[..., layout.owner].to(z.dtype)
    else:
        w = w if layout.is_full else w[..., layout.present]  # (B, T, P)
        scale = layout.common_scale or layout.scale[layout.present]
        v = _weigh(z.unflatten(-1, (-1, layout.common_rank)), w.unsqueeze(-1), (w * scale).unsqueeze(-1), mix).flatten(
            -2
        )
    return torch.addmm(y.flatten(0, 1), v.flatten(0, 1), b).view_as(y)


def _chosen(
    bank: Factors, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor, mix: Mix, *, dense_in: bool
) -> Tensor:
    """Multiply with the rows of the kept experts only: weights (B, T, 1, k), experts (B, T, k) -> (B, T, d_out)."""
    layout = bank.layout
    n, n_kept = x.shape[0] * x.shape[1], experts.shape[-1]
    experts, w = _of_each(x, experts).reshape(-1), _of_each(x, weights).unsqueeze(-1)  # (N * k,), (N, k, 1)
    rows = layout.rows.index_select(0, experts)  # (N * k, r_max)
    if layout.common_rank is None or not layout.is_full:
        w = w * layout.is_row.index_select(0, experts).view(n, n_kept, -1)  # zero at padding and for absent experts
    scaled = w * (layout.common_scale or layout.scale.index_select(0, experts).view(n, n_kept, 1))
    rows, x, flat = rows.view(n, -1), x.reshape(n, -1), y.reshape(n, -1)  # (N, k * r_max), (N, d_in), (N, d_out)
    a, b = bank.a.to(y.dtype), bank.b.to(y.dtype)
    z = (x @ a.T).gather(1, rows.long()) if dense_in else dots(x, a, rows)  # (N, k * r_max)
    v = _weigh(z.view(n, n_kept, -1), w, scaled, mix)
    return sums(v.view(n, -1), b, rows).add_(flat).view_as(y)


def _fused(operators: Any, bank: Factors, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor, mix: Mix) -> Tensor:
    """Do all of `_chosen` in one operation: weights (B, T, 1, k), experts (B, T, k) -> (B, T, d_out)."""
    weights, experts = _of_each(x, weights), _of_each(x, experts)  # (N, k)
    rank, scale, is_factors = bank.layout.common_rank, bank.layout.common_scale, mix == "factors"
    found: Tensor = operators.mix(x, y, bank.a, bank.b, experts, weights, rank, scale, is_factors)
    return found


def _by_kernels(
    kernels: Any, bank: Factors, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor, mix: Mix
) -> Tensor:
    """Do all of `_chosen` in two launches: weights (B, T, 1, k), experts (B, T, k) -> (B, T, d_out)."""
    weights, experts = _of_each(x, weights), _of_each(x, experts)  # (N, k)
    flat, layout = (x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])), bank.layout
    found: Tensor = kernels.mix(*flat, bank.a, bank.b, layout, weights, experts, is_factors=mix == "factors")
    return found.view_as(y)


def _gathered(bank: Factors, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor, mix: Mix) -> Tensor:
    """Copy the factors of each token's experts, then multiply; for banks of equals: shapes as for `_chosen`."""
    scale, n, n_kept = bank.layout.common_scale, x.shape[0] * x.shape[1], experts.shape[-1]
    assert scale is not None
    experts, w = _of_each(x, experts).reshape(-1), _of_each(x, weights).unsqueeze(-1)  # (N * k,), (N, k, 1)
    a, b = (f.to(y.dtype).view(bank.n_experts, -1).index_select(0, experts) for f in (bank.a, bank.b))  # (N * k, r * d)
    z = torch.bmm(a.view(n, -1, x.shape[-1]), x.reshape(n, -1, 1)).view(n, n_kept, -1)  # (N, k, r)
    v = _weigh(z, w, w, mix).view(n, 1, -1)
    b = b.view(n, v.shape[-1], -1)  # (N, k * r, d_out)
    if torch.compiler.is_compiling():  # a sum is written into one kernel with the copy, which a library's product isn't
        return y + (scale * (v.transpose(1, 2) * b).sum(1)).view_as(y)
    return torch.baddbmm(y.reshape(n, 1, -1), v, b, alpha=scale).view_as(y)


def _of_each(x: Tensor, shared: Tensor) -> Tensor:
    """Give each token of x (B, T, d_in) its own of (B, T, ..., k), where B and T may be 1: (N, k)."""
    if shared.shape[:2] != x.shape[:2]:
        shared = shared.expand(*x.shape[:2], *shared.shape[2:])
    return shared.reshape(-1, shared.shape[-1])


def _weigh(z: Tensor, w: Tensor, scaled: Tensor, mix: Mix) -> Tensor:
    """Weigh the rows' activations: z (..., k, r), weights w and scaled = w · s (..., k, 1 or r) -> (..., k, r)."""
    u = z if mix == "outputs" else (z * w.to(z.dtype)).sum(-2, keepdim=True)
    return scaled.to(z.dtype) * u


def _blocks(bank: Factors, x: Tensor, w: Tensor, mix: Mix) -> Tensor:
    """Mix block by block: w (B, T, S, E) -> (B, T, d_out)."""
    if mix == "outputs":
        raise AdapterError("E-SPLIT", 'weights per block (S > 1) are defined for mix="factors" only.')
    n_splits, present, a, b = w.shape[2], bank.layout.present, bank.a.to(x.dtype), bank.b.to(x.dtype)
    z = torch.einsum("btsi,rsi->btsr", x.unflatten(-1, (n_splits, -1)), a.unflatten(-1, (n_splits, -1)))
    w = w[..., present].unsqueeze(-1)  # (B, T, S, P, 1)
    z = z.unflatten(-1, (present.numel(), -1))  # (B, T, S, P, r)
    u: Tensor = (z * w.to(z.dtype)).sum((2, 3))[:, :, None, None]  # (B, T, 1, 1, r)
    v = ((w * bank.layout.scale[present].unsqueeze(-1)).to(z.dtype) * u).flatten(-2)  # (B, T, S, R)
    return torch.einsum("btsr,rso->btso", v, b.unflatten(-1, (n_splits, -1))).flatten(-2)
