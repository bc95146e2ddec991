"""Triton kernels of a routed call: what torch would start ten to twenty operations for, in one or two.

Shape letters: N tokens, k kept, r the largest rank, P scored experts. Experts' factors are read where they lie, in
their own dtype; all sums are float32. No gradients. `on_gpu` says where they are taken; it alone imports this file.

Not here, because a well-kept library has it: the products of hidden states with prototypes, and of a pack's rows with
their experts, are plain and batched matrix products (cuBLAS).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorary.adapters.bank_rows import Layout

_FEW = 32  # tokens: below, a token's rows are spread over several programs, so that one suffices to fill a GPU
_WIDTH = 256


@triton.jit
def _shrink(x, a, rows, is_row, experts, z, d, k, r, ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Z (N, k * r): a token's products with the input-side rows of its experts; 0 where an expert has no such row."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    there = slot < k * r
    place = tl.load(experts + token * k + slot // r, mask=there, other=0) * r + slot % r
    real = tl.load(is_row + place, mask=there, other=0) != 0
    row = tl.load(rows + place, mask=there, other=0).to(tl.int64)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, d, WIDTH):
        column = start + tl.arange(0, WIDTH)
        inside = column < d
        h = tl.load(x + token * d + column, mask=inside, other=0.0).to(tl.float32)
        part = tl.load(a + row[:, None] * d + column[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        total += tl.sum(part.to(tl.float32) * h[None, :], 1)
    tl.store(z + token * k * r + slot, total, mask=there)


@triton.jit
def _expand(  # type: ignore[no-untyped-def]
    y, out, z, b, rows, is_row, experts, weights, scale, d, k, r,
    IS_FACTORS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Out = y (N, d) and the weighed sum of the output-side rows of each token's experts."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < d
    total = tl.load(y + token * d + column, mask=inside, other=0.0).to(tl.float32)
    for start in range(0, k * r, ROWS):
        slot = start + tl.arange(0, ROWS)
        there = slot < k * r
        expert = tl.load(experts + token * k + slot // r, mask=there, other=0)
        place = expert * r + slot % r
        real = tl.load(is_row + place, mask=there, other=0) != 0
        row = tl.load(rows + place, mask=there, other=0).to(tl.int64)
        if IS_FACTORS:
            u = tl.zeros((ROWS,), tl.float32)
            for j in range(k):
                share = tl.load(weights + token * k + j)
                u += share * tl.load(z + (token * k + j) * r + slot % r, mask=there, other=0.0)
        else:
            u = tl.load(z + token * k * r + slot, mask=there, other=0.0)
        v = u * tl.load(weights + token * k + slot // r, mask=there, other=0.0)
        v = v * tl.load(scale + expert, mask=there, other=0.0)
        part = tl.load(b + row[:, None] * d + column[None, :], mask=real[:, None] & inside[None, :], other=0.0)
        total += tl.sum(part.to(tl.float32) * v[:, None], 0)
    tl.store(out + token * d + column, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _keep(scores, weights, experts, n, k, temperature, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """weights, experts (N, k): the k largest scores (N, n), of equals the first, and their softmax."""
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, SIZE)
    left = tl.load(scores + token * n + place, mask=place < n, other=float("-inf"))
    largest = tl.max(left, 0)
    total = 0.0
    for j in range(k):
        best = tl.max(left, 0)
        first = tl.min(tl.where(left == best, place, SIZE), 0)
        share = tl.exp((best - largest) / temperature)
        total += share
        tl.store(weights + token * k + j, share)
        tl.store(experts + token * k + j, first.to(tl.int64))
        left = tl.where(place == first, float("-inf"), left)
    for j in range(k):
        tl.store(weights + token * k + j, tl.load(weights + token * k + j) / total)


def mix(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, layout: Layout, weights: Tensor, experts: Tensor, *, is_factors: bool
) -> Tensor:
    """Add the mixture of each token's experts to y: x (N, d_in), y (N, d_out), weights and experts (N, k)."""
    x, y, weights, experts = x.contiguous(), y.contiguous(), weights.float().contiguous(), experts.contiguous()
    (n, k), r = experts.shape, layout.rows.shape[1]
    z = torch.empty(n, k * r, dtype=torch.float32, device=x.device)
    out = torch.empty_like(y)
    at_once = 2 if n <= _FEW else 16
    _shrink[(n, triton.cdiv(k * r, at_once))](
        x, a, layout.rows, layout.is_row, experts, z, x.shape[1], k, r, ROWS=at_once, WIDTH=_WIDTH
    )
    _expand[(n, triton.cdiv(y.shape[1], _WIDTH))](
        y, out, z, b, layout.rows, layout.is_row, experts, weights, layout.scale, y.shape[1], k, r,
        IS_FACTORS=is_factors, ROWS=16, WIDTH=_WIDTH,
    )  # fmt: skip
    return out


def keep(scores: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Keep the k largest of float32 scores (..., P): their softmax (..., k) and indices (..., k), ties to the lower."""
    flat = scores.reshape(-1, scores.shape[-1]).contiguous()
    weights = torch.empty(len(flat), k, dtype=torch.float32, device=scores.device)
    experts = torch.empty(len(flat), k, dtype=torch.int64, device=scores.device)
    size = triton.next_power_of_2(flat.shape[1])
    _keep[(len(flat),)](flat, weights, experts, flat.shape[1], k, float(temperature), SIZE=size)
    shape = (*scores.shape[:-1], k)
    return weights.view(shape), experts.view(shape)
