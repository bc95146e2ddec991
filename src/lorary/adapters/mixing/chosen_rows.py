"""Products of each token with a few rows of a table, at the cost of those rows alone.

Shape letters: N tokens, n chosen rows per token, R rows of the table, d their width.

Both are operations that torch has for embeddings: they read the rows where they lie, for any floating dtype, keep
nothing per token but the answer, and have fixed shapes, so that no call waits for the device. Gathering the rows first,
as `table[rows]` would, writes (N, n, d). The gradient of the table is a third such sum, over its rows' own tokens:
torch's own backward is 3 times slower on a CPU. In float32 on a CPU, the product that torch has for sparse matrices
needs 0.6 times the time of the input side's.
"""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lorary.adapters.mixing.compiled import is_plain

_dot_each = torch.ops.aten._embedding_bag_per_sample_weights_backward
_SUM = 0


def dots(x: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """Multiply each token with its rows: x (N, d), table (R, d), rows (N, n) -> (N, n), entry x_t · table[rows_tj]."""
    if torch.is_grad_enabled() and (x.requires_grad or table.requires_grad):
        answer: Tensor = _Dots.apply(x, table, rows)
        return answer
    return _dots(x, table, rows)


def sums(v: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """Add up each token's rows: v (N, n), table (R, d), rows (N, n) -> (N, d), row sum_j v_tj table[rows_tj]."""
    if torch.is_grad_enabled() and (v.requires_grad or table.requires_grad):
        answer: Tensor = _Sums.apply(v, table, rows)
        return answer
    return _sums(v, table, rows)


def _dots(x: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    n_tokens, n = rows.shape
    if n <= len(table) and is_plain(x) and _has_sampled():
        return _sampled(x, table, rows)
    token = torch.arange(n_tokens, dtype=rows.dtype, device=rows.device).unsqueeze(1).expand(n_tokens, n)
    token = token.flatten().contiguous()
    found: Tensor = _dot_each(x.contiguous(), table, rows.flatten(), _starts(rows), token, _SUM)
    return found.view(n_tokens, n)


@functools.cache
def _has_sampled() -> bool:
    """Tell whether this torch has the sparse product: some systems' lack it."""
    one = torch.ones(1, 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # torch says it once per process
        try:
            return _sampled(one, one, torch.zeros(1, 1, dtype=torch.int32)).item() == 1
        except RuntimeError:
            return False


def _sampled(x: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """Compute x @ table.T at each token's rows only, which need not be sorted, but be no more than the table's."""
    n_tokens, n = rows.shape
    starts = torch.arange(0, rows.numel() + 1, n, dtype=rows.dtype)
    places = torch.sparse_csr_tensor(
        starts, rows.flatten(), x.new_zeros(rows.numel()), (n_tokens, len(table)), check_invariants=False
    )
    found: Tensor = torch.sparse.sampled_addmm(places, x.contiguous(), table.T, beta=0.0).values().view(n_tokens, n)
    return found


def _sums(v: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    return torch.embedding_bag(table, rows.flatten(), _starts(rows), False, _SUM, False, v.flatten())[0]


def _starts(rows: Tensor) -> Tensor:
    return torch.arange(0, rows.numel(), rows.shape[1], dtype=rows.dtype, device=rows.device)


def _sums_by_row(v: Tensor, x: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Add up each row's tokens: v (N, n), x (N, d), rows (N, n) -> (R, d), row sum over rows_tj = i of v_tj x_t."""
    ordered, order = rows.flatten().sort(stable=True)  # stable, so that a sum has the same bits every time
    every = torch.arange(n_rows, dtype=rows.dtype, device=rows.device)
    starts = torch.searchsorted(ordered, every, out_int32=rows.dtype == torch.int32)
    token = (order // rows.shape[1]).to(rows.dtype)
    return torch.embedding_bag(x.contiguous(), token, starts, False, _SUM, False, v.flatten()[order])[0]


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, table, rows)
        return _dots(x, table, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, table, rows = ctx.saved_tensors
        of_x, of_table, _ = ctx.needs_input_grad
        return (
            _sums(grad, table, rows) if of_x else None,
            _sums_by_row(grad, x, rows, len(table)) if of_table else None,
            None,
        )


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(v, table, rows)
        return _sums(v, table, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        v, table, rows = ctx.saved_tensors
        of_v, of_table, _ = ctx.needs_input_grad
        return (
            _dots(grad, table, rows) if of_v else None,
            _sums_by_row(v, grad, rows, len(table)) if of_table else None,
            None,
        )
