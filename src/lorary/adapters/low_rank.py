"""Low-rank weights and their bank: what LoRA-like kinds share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lorary.adapters.base import Bank, Mix, Site, Weights
from lorary.adapters.mixing import mix_low_rank
from lorary.adapters.room import Room, insert_rows
from lorary.adapters.tuning import Plan, Strategy, forced_strategy, measured, measures
from lorary.errors import AdapterError


@dataclass(frozen=True, eq=False)
class LowRankWeights(Weights):
    """One low-rank expert at one site: scale · B A.

    a: input-side factor (r, d_in), PEFT's lora_A (the paper's B transposed).
    b: output-side factor (d_out, r), PEFT's lora_B (the paper's A).
    """

    a: Tensor
    b: Tensor
    scale: float

    @property
    def d_in(self) -> int:  # type: ignore[override]
        """Width of the input."""
        return self.a.shape[1]

    @property
    def d_out(self) -> int:  # type: ignore[override]
        """Width of the output."""
        return self.b.shape[0]

    @property
    def rank(self) -> int:
        """Rows of a."""
        return self.a.shape[0]

    def delta(self) -> Tensor:
        """Compute scale · B A in float32, (d_out, d_in)."""
        return self.scale * (self.b.float() @ self.a.float())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give a (r, d_in) and scale · b (d_out, r) in float32."""
        return self.a.float(), self.scale * self.b.float()


class LowRankBank(Bank):
    """The factors of E experts at one site, stacked along the ranks: a (R, d_in), b (R, d_out).

    `owner[j]` is the expert of row j; `rows[i]` lists the rows of expert i, padded where `is_row` is False.
    Ranks may differ and an expert may be absent. The factors keep their values from disk; the scale is
    applied to the mixing weights, so that packing loses nothing.
    """

    def __init__(self, weights: Sequence[LowRankWeights | None], site: Site) -> None:
        super().__init__()
        present = [w for w in weights if w is not None]
        for w in present:
            _check_widths(w, site)
        self._hold(
            torch.cat([w.a for w in present]),
            torch.cat([w.b.T for w in present]).contiguous(),
            ranks=[0 if w is None else w.rank for w in weights],
            scale=torch.tensor([0.0 if w is None else w.scale for w in weights]),
        )

    def _hold(self, a: Tensor, b: Tensor, *, ranks: Sequence[int], scale: Tensor) -> None:
        """Store the factors as they are, a (R, d_in), b (R, d_out), and whose rows are where."""
        self.a = nn.Parameter(a, requires_grad=False)  # (R, d_in)
        self.b = nn.Parameter(b, requires_grad=False)  # (R, d_out)
        owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))
        rows, is_row = _rows_by_expert(ranks)
        present = torch.tensor([i for i, r in enumerate(ranks) if r])
        self.register_buffer("owner", owner.to(a.device), persistent=False)  # (R,)
        self.register_buffer("scale", scale, persistent=False)  # (E,)
        self.register_buffer("present", present.to(a.device), persistent=False)  # (P,)
        self.register_buffer("rows", rows.to(a.device), persistent=False)  # (E, r_max)
        self.register_buffer("is_row", is_row.to(a.device), persistent=False)  # (E, r_max)
        self.derive()

    owner: Tensor
    scale: Tensor
    present: Tensor
    rows: Tensor
    is_row: Tensor
    rooms: tuple[Room | None, Room | None] = (None, None)
    """Where a and b lie, if there is memory to spare behind them."""

    def derive(self) -> None:
        """Work out what follows from the stored fields; to be called after changing them."""
        self.n_experts = len(self.rows)
        self.ranks = tuple(self.is_row.sum(1).tolist())
        self.is_full = len(self.present) == self.n_experts
        found = {r for r in self.ranks if r}
        self.common_rank = found.pop() if len(found) == 1 else None
        scales = set(self.scale[self.present].tolist())
        self.common_scale = scales.pop() if len(scales) == 1 else None
        in_order = torch.arange(len(self.a), device=self.rows.device).equal(self.rows.flatten().long())
        self.is_even = in_order and bool(self.is_row.all()) and self.common_scale is not None
        self.plan = Plan(len(self.owner), self.rows.shape[1], forced_strategy())

    n_experts: int
    ranks: tuple[int, ...]
    """Rank of each expert, 0 for one that is absent."""
    is_full: bool
    """True if every expert is present."""
    common_rank: int | None
    """The one rank of all experts that are present, or None if they differ."""
    common_scale: float | None
    """Their one scale, or None if they differ."""
    is_even: bool
    """True if all experts are present, in order, with one rank and one scale."""
    plan: Plan

    @torch.no_grad()
    def tune(self, n_kept: int | None) -> None:
        """Find the fastest way to mix n_kept of the experts on this machine: known already, or measured now."""
        self.plan = replace(self.plan, n_kept=n_kept)
        if n_kept is None or self.a.device.type != "cpu" or not measures():
            return
        d_in, d_out = self.a.shape[1], self.b.shape[1]
        self.plan = replace(self.plan, measured=measured(self.plan, d_in, d_out, self.a.dtype, self._trial))

    def _trial(self, n_tokens: int) -> Callable[[Strategy], Tensor]:
        """Make a call with random tokens and experts that can be timed with each strategy."""
        generator, n_kept = torch.Generator().manual_seed(0), self.plan.n_kept or 1
        x = torch.randn(1, n_tokens, self.a.shape[1], generator=generator).to(self.a.dtype)
        y = torch.zeros(1, n_tokens, self.b.shape[1], dtype=self.a.dtype)
        experts = torch.rand(1, n_tokens, self.n_experts, generator=generator).topk(n_kept)[1]
        weights = torch.full((1, 1, 1, n_kept), 1 / n_kept)
        return lambda strategy: mix_low_rank(self, x, y, weights, experts, "outputs", strategy)

    def cast(self, dtype: torch.dtype) -> "LowRankBank":
        """Store the factors in the dtype the base computes in; scales stay float32."""
        self.a.data, self.b.data = self.a.data.to(dtype), self.b.data.to(dtype)
        return self

    def insert(self, index: int, weights: LowRankWeights | None, site: Site) -> "LowRankBank":
        """Make a bank with one more expert, the `index`-th; equal to one packed anew. This one stays as it is.

        Behind the last one it costs that expert; anywhere else the rows are copied. Raises E-SHAPE.
        """
        a, b, rooms, rank, scale = self.a.detach(), self.b.detach(), self.rooms, 0, 0.0
        if weights is not None:
            _check_widths(weights, site)
            at, rank, scale = sum(self.ranks[:index]), weights.rank, weights.scale
            a, room_a = insert_rows(a, at, weights.a.to(a), rooms[0])
            b, room_b = insert_rows(b, at, weights.b.T.to(b), rooms[1])
            rooms = (room_a, room_b)
        scales = torch.cat([self.scale[:index], self.scale.new_tensor([scale]), self.scale[index:]])
        return _bank_of(a, b, [*self.ranks[:index], rank, *self.ranks[index:]], scales, rooms)

    def remove(self, index: int) -> "LowRankBank":
        """Make a bank without one expert; equal to one packed anew. This one stays as it is."""
        start, n = sum(self.ranks[:index]), self.ranks[index]
        a, b = _without(self.a.detach(), start, n), _without(self.b.detach(), start, n)
        ranks = [*self.ranks[:index], *self.ranks[index + 1 :]]
        return _bank_of(a, b, ranks, _without(self.scale, index, 1), (None, None) if n else self.rooms)

    def unpack(self, index: int) -> LowRankWeights:
        """Take one expert out again, with its present values."""
        rows = self.owner == index
        return LowRankWeights(
            self.a.detach()[rows].clone(), self.b.detach()[rows].T.contiguous(), float(self.scale[index])
        )

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix) -> Tensor:
        """Add the mixed experts' answer to y (B, T, d_out); see `mixing` for the two formulas."""
        return mix_low_rank(self, x, y, weights, experts, mix)


def _bank_of(
    a: Tensor, b: Tensor, ranks: Sequence[int], scale: Tensor, rooms: tuple[Room | None, Room | None]
) -> LowRankBank:
    bank = LowRankBank.__new__(LowRankBank)
    nn.Module.__init__(bank)
    bank._hold(a, b, ranks=ranks, scale=scale)
    bank.rooms = rooms
    return bank


def _without(rows: Tensor, start: int, n: int) -> Tensor:
    return torch.cat([rows[:start], rows[start + n :]]) if n else rows


def _check_widths(weights: LowRankWeights, site: Site) -> None:
    found = f"{weights.d_in} -> {weights.d_out}"
    if (weights.d_in, weights.d_out) != (site.d_in, site.d_out):
        raise AdapterError(
            "E-SHAPE",
            f"site {site.name!r}: expert is {found}, the base is {site.d_in} -> {site.d_out}.",
            "Was it trained on another base?",
        )


def _rows_by_expert(ranks: Sequence[int]) -> tuple[Tensor, Tensor]:
    n = torch.tensor(ranks, dtype=torch.int32).unsqueeze(1)  # (E, 1)
    nth = torch.arange(max(ranks), dtype=torch.int32)
    is_row = nth < n  # (E, r_max)
    return (n.cumsum(0, dtype=torch.int32) - n + nth) * is_row, is_row
