"""Experts that train in the same passes: each row of a batch goes through its own expert only."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Bank, Mix, Weights

_LOW = 2**32 - 1


@dataclass
class Rows:
    """Whose rows a pass has: set before every pass, read by all layers of a model.

    owner: (B,) the expert of each row. is_even: all experts of the pack have the same number of rows, in order.
    place: (B,) a row's place among the rows that its expert has in the step, of which a pass may be a part.
    """

    owner: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    place: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    is_even: bool = False


class PackedBank(Bank):
    """N experts of one rank and scale at one site: a (N, r, d_in) input side, b (N, r, d_out) output side.

    Adds s B_i A_i x to row x of expert i, as grouped products: no work is done for other experts' rows, so its cost
    does not grow with N. Routings are not looked at, `rows` says who speaks. Changes y in place.
    """

    def __init__(self, weights: Sequence[Weights], rows: Rows) -> None:
        super().__init__()
        self.n_experts = len(weights)
        self.rows = rows
        self.scale = weights[0].scale
        self.a = nn.Parameter(torch.stack([w.a.float() for w in weights]))  # (N, r, d_in)
        self.b = nn.Parameter(torch.stack([w.b.float().T for w in weights]))  # (N, r, d_out)

    def cast(self, dtype: torch.dtype) -> "PackedBank":
        """Keep float32, which training needs; products are made in the dtype of x."""
        return self

    def unpack(self, index: int) -> Weights:
        """Take one expert out, with its present values, on the CPU."""
        a, b = self.a.detach()[index].cpu(), self.b.detach()[index].cpu()
        return Weights(a.clone(), b.T.contiguous(), self.scale)

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix) -> Tensor:
        """Add each row's own expert's answer to y (B, T, d_out)."""
        a, b = self.a.to(x.dtype), self.b.to(x.dtype)
        if not self.rows.is_even:
            a, b = a.index_select(0, self.rows.owner), b.index_select(0, self.rows.owner)  # (B, r, d_in), (B, r, d_out)
        added: Tensor = _GroupedLowRank.apply(y, x, a, b, self.scale)
        return added


class _GroupedLowRank(torch.autograd.Function):
    """y + s (x A^T) B per group, with x and x A^T the only tensors kept; y is changed in place.

    y (B, T, d_out) and x (B, T, d_in) are cut into G groups of rows, one per a (G, r, d_in) and b (G, r, d_out).
    y comes first: where it is a view, as of a linear layer with a bias, autograd takes the first input for the changed
    one.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        grouped = x.reshape(len(a), -1, x.shape[-1])  # (G, M, d_in)
        z = torch.bmm(grouped, a.transpose(1, 2))  # (G, M, r)
        ctx.save_for_backward(grouped, z, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        ctx.mark_dirty(y)
        y.view(len(a), -1, y.shape[-1]).baddbmm_(z, b, alpha=scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grouped, z, a, b = ctx.saved_tensors
        grad_y = grads[0].reshape(len(a), -1, b.shape[-1])  # (G, M, d_out)
        grad_z = torch.bmm(grad_y, b.transpose(1, 2)).mul_(ctx.scale)  # (G, M, r)
        grad_x = torch.bmm(grad_z, a).view(ctx.shape) if ctx.needs_input_grad[1] else None
        grad_b = torch.bmm(z.transpose(1, 2), grad_y).mul_(ctx.scale)  # (G, r, d_out)
        return grads[0], grad_x, torch.bmm(grad_z.transpose(1, 2), grouped), grad_b, None


class Dropped(Bank):
    """A bank whose input loses a share of its entries while `dropout` is on."""

    def __init__(self, bank: Bank, dropout: "InputDropout") -> None:
        super().__init__()
        self.bank = bank
        self.dropout = dropout
        self.n_experts = bank.n_experts

    def cast(self, dtype: torch.dtype) -> "Dropped":
        """Cast the bank."""
        self.bank.cast(dtype)
        return self

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix) -> Tensor:
        """Drop, then do what the bank does."""
        added: Tensor = self.bank(self.dropout(x), y, weights, experts, mix)
        return added


class InputDropout:
    """Dropout that an expert of a pack sees as it would alone, at share `p`.

    A mask's entry follows from the seed, the site's turn, the row's place among its expert's rows, the token's distance
    from the end and the channel: not from padding, nor from who else is in the pack. Experts of a pack share masks,
    which are drawn for `n_rows` rows, the most that an expert has, on other devices by another rule than on the CPU.
    """

    def __init__(self, p: float, n_rows: int, rows: Rows) -> None:
        self.p = p
        self.n_rows = n_rows
        self.rows = rows
        self.generator = torch.Generator()
        self.seed: int | None = None

    def start(self, seed: int) -> None:
        """Drop in the next pass, with masks of this seed."""
        self.seed = seed

    def stop(self) -> None:
        """Let everything through."""
        self.seed = None

    def __call__(self, x: Tensor) -> Tensor:
        """Drop entries of x (B, T, d)."""
        if self.seed is None:
            return x
        # A seed for each site: how much the one before drew, hangs on padding. Torch looks at the low 32 bits alone.
        self.seed = (self.seed + 0x9E3779B1) % 2**32
        rows = x.reshape(len(self.rows.place), -1, x.shape[-1])  # (B, T, d)
        shape = (rows.shape[1], self.n_rows, rows.shape[2])
        mask = self._drawn(self.seed, shape) if x.device.type == "cpu" else _hashed(self.seed, shape, self.p, x.device)
        # The last token comes first, so that a longer padding only draws more.
        mask = mask.flip(0).transpose(0, 1).to(x.dtype)  # (M, T, d)
        dropped: Tensor = rows * mask[self.rows.place]
        return dropped.view_as(x)

    def _drawn(self, seed: int, shape: tuple[int, int, int]) -> Tensor:
        mask = torch.empty(shape)
        return mask.bernoulli_(1 - self.p, generator=self.generator.manual_seed(seed)).div_(1 - self.p)


def _hashed(seed: int, shape: tuple[int, int, int], p: float, device: torch.device) -> Tensor:
    """Draw a mask on another device, where the CPU's would be waited for: from each entry's place, by MurmurHash3.

    Its generators give other numbers on another GPU, and other ones for the same place of a larger mask.
    """
    place = torch.arange(shape[0] * shape[1] * shape[2], device=device).view(shape)
    bits = (place & _LOW) ^ ((place >> 32) * 0x9E3779B1 & _LOW) ^ seed
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * factor & _LOW
    bits = bits ^ (bits >> 16)
    return (bits >= round(p * 2**32)) / (1 - p)
