"""The bank of all experts at a site."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lorary.adapters.bank_rows import Layout
from lorary.adapters.contract import Bank, Mix, Site, Weights
from lorary.adapters.growing_rows import Room, in_room, splice
from lorary.adapters.mixing.mix import mix_low_rank
from lorary.adapters.mixing.tuning import Plan, Strategy, forced_strategy, measured, measures
from lorary.errors import AdapterError


class LowRankBank(Bank):
    """The factors of E experts at one site, stacked along the ranks: a (R, d_in), b (R, d_out).

    Ranks may differ and an expert may be absent; `layout` tells whose rows are where. The factors keep their values
    from disk, whatever their dtypes; the scale is applied to the mixing weights, so that packing loses nothing.
    """

    layout: Layout
    plan: Plan
    rooms: tuple[Room | None, Room | None]
    """Where a and b lie, with memory to spare behind them."""

    def __init__(self, weights: Sequence[Weights | None], site: Site) -> None:
        super().__init__()
        present = [w for w in weights if w is not None]
        for w in present:
            _check_widths(w, site)
        a, b = in_room([w.a for w in present]), in_room([w.b.T for w in present])
        self._hold(a, b, Layout.of(_ranks(weights), _scales(weights), a[0].device))

    def _hold(self, a: "Roomy", b: "Roomy", layout: Layout, plan: Plan | None = None) -> None:
        """Store the factors as they are, a (R, d_in), b (R, d_out), and whose rows are where."""
        self.a = nn.Parameter(a[0], requires_grad=False)  # (R, d_in)
        self.b = nn.Parameter(b[0], requires_grad=False)  # (R, d_out)
        self.rooms = (a[1], b[1])
        self.layout, self.n_experts = layout, len(layout.ranks)
        self.plan = plan or Plan(len(a[0]), max(layout.ranks), forced_strategy())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LowRankBank":
        """Move the layout, too, when the bank is moved to another device or precision."""
        places = self.a.data_ptr(), self.b.data_ptr()
        super()._apply(fn, recurse)
        self.layout = self.layout.to(self.a.device)
        if (self.a.data_ptr(), self.b.data_ptr()) != places:
            self.rooms = (None, None)  # lets go of the memory where they lay
        return self

    @torch.no_grad()
    def tune(self, n_kept: int | None) -> None:
        """Find the fastest way to mix n_kept of the experts on this machine: known already, or measured now."""
        if n_kept is None or self.a.device.type not in ("cpu", "cuda") or not measures():
            self.plan = replace(self.plan, n_kept=n_kept, measured=None)
        elif self.plan.n_kept != n_kept or self.plan.measured is None:
            self.plan = replace(self.plan, n_kept=n_kept)
            d_in, d_out = self.a.shape[1], self.b.shape[1]
            found = measured(self.plan, d_in, d_out, self.a.dtype, self.a.device, self._trial)
            self.plan = replace(self.plan, measured=found)

    def _trial(self, n_tokens: int) -> Callable[[Strategy], Tensor]:
        """Make a call with random tokens and experts that can be timed with each strategy."""
        generator, n_kept = torch.Generator().manual_seed(0), self.plan.n_kept or 1
        x = torch.randn(1, n_tokens, self.a.shape[1], generator=generator).to(self.a)
        y = x.new_zeros(1, n_tokens, self.b.shape[1])
        experts = torch.rand(1, n_tokens, self.n_experts, generator=generator).topk(n_kept)[1].to(x.device)
        weights = torch.full((1, 1, 1, n_kept), 1 / n_kept, device=x.device)
        return lambda strategy: mix_low_rank(self, x, y, weights, experts, "outputs", strategy)

    def cast(self, dtype: torch.dtype) -> "LowRankBank":
        """Store the factors in the dtype the base computes in; scales stay float32."""
        if {self.a.dtype, self.b.dtype} != {dtype}:
            a, b = (in_room([t.detach().to(dtype)]) for t in (self.a, self.b))
            self.a.data, self.b.data, self.rooms = a[0], b[0], (a[1], b[1])
        return self

    def splice(
        self,
        index: int,
        leaving: int,
        coming: Sequence[Weights | None],
        site: Site,
        *,
        like: "LowRankBank | None" = None,
    ) -> "LowRankBank":
        """Make a bank with others in the place of the `leaving` experts from the `index`-th on.

        Equal to one packed anew; this one stays as it is. Behind the last one it costs those that come; anywhere else
        the rows are copied.
        like: a bank of another site after the same change, whose layout is taken where it is the same.
        Raises E-SHAPE.
        """
        old, new = self.layout, [w for w in coming if w is not None]
        for w in new:
            _check_widths(w, site)
        start = sum(old.ranks[:index])
        stop = start + sum(old.ranks[index : index + leaving])
        a, b = self.a.detach(), self.b.detach()
        ranks = (*old.ranks[:index], *_ranks(coming), *old.ranks[index + leaving :])
        scales = (*old.scales[:index], *_scales(coming), *old.scales[index + leaving :])
        layout = like.layout if like is not None else None
        if layout is None or (layout.ranks, layout.scales) != (ranks, scales):
            layout = Layout.of(ranks, scales, a.device)
        bank = LowRankBank.__new__(LowRankBank)
        nn.Module.__init__(bank)
        bank._hold(
            splice(a, start, stop, torch.cat([a[:0], *(w.a.to(a) for w in new)]), self.rooms[0]),
            splice(b, start, stop, torch.cat([b[:0], *(w.b.T.to(b) for w in new)]), self.rooms[1]),
            layout,
            self.plan.grown(sum(ranks), max(ranks)),
        )
        return bank

    def unpack(self, index: int) -> Weights:
        """Take one expert out again, with its present values."""
        rows = self.layout.owner == index
        return Weights(
            self.a.detach()[rows].clone(), self.b.detach()[rows].T.contiguous(), float(self.layout.scale[index])
        )

    def forward(self, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix) -> Tensor:
        """Add the mixed experts' answer to y (B, T, d_out); see `mixing` for the two formulas."""
        return mix_low_rank(self, x, y, weights, experts, mix)


Roomy = tuple[Tensor, Room | None]


def _ranks(weights: Sequence[Weights | None]) -> list[int]:
    return [0 if w is None else w.rank for w in weights]


def _scales(weights: Sequence[Weights | None]) -> list[float]:
    return [0.0 if w is None else w.scale for w in weights]


def _check_widths(weights: Weights, site: Site) -> None:
    found = f"{weights.d_in} -> {weights.d_out}"
    if (weights.d_in, weights.d_out) != (site.d_in, site.d_out):
        raise AdapterError(
            "E-SHAPE",
            f"site {site.name!r}: expert is {found}, the base is {site.d_in} -> {site.d_out}.",
            "Was it trained on another base?",
        )
