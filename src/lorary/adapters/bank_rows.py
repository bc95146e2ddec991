"""Whose rows are where in a bank: what sites with the same ranks and scales share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """E experts whose factors are stacked along their ranks, R rows in all; immutable.

    ranks: of each expert, 0 for one that is absent. scales: theirs, 0 for one that is absent.
    owner (R,): the expert of each row. scale (E,). present (P,): who is there. rows (E, r_max): the rows of each
    expert, padded where is_row (E, r_max) is False.
    common_rank: the one rank of all experts that are present, None if they differ. common_scale: likewise.
    is_full: every expert is present. is_even: they have one rank and one scale, too.
    """

    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    owner: Tensor
    scale: Tensor
    present: Tensor
    rows: Tensor
    is_row: Tensor
    common_rank: int | None
    common_scale: float | None
    is_full: bool
    is_even: bool

    @classmethod
    def of(cls, ranks: Sequence[int], scales: Sequence[float], device: torch.device) -> "Layout":
        """Lay out experts of these ranks and scales."""
        n = torch.tensor(ranks, dtype=torch.int32)  # (E,)
        nth = torch.arange(max(ranks), dtype=torch.int32)
        is_row = nth < n.unsqueeze(1)  # (E, r_max)
        rows = ((n.cumsum(0, dtype=torch.int32) - n).unsqueeze(1) + nth) * is_row  # (E, r_max)
        owner = torch.repeat_interleave(torch.arange(len(ranks)), n)  # (R,)
        scale, present = torch.tensor(scales), n.nonzero()[:, 0]
        found_ranks, found_scales = {rank for rank in ranks if rank}, set(scale[present].tolist())
        common_rank = found_ranks.pop() if len(found_ranks) == 1 else None
        common_scale = found_scales.pop() if len(found_scales) == 1 else None
        return cls(
            tuple(ranks),
            tuple(scales),
            owner.to(device),
            scale.to(device),
            present.to(device),
            rows.to(device),
            is_row.to(device),
            common_rank,
            common_scale,
            is_full=all(ranks),
            is_even=all(ranks) and common_rank is not None and common_scale is not None,
        )

    def to(self, device: torch.device) -> "Layout":
        """Give it on a device."""
        return self if self.owner.device == device else Layout.of(self.ranks, self.scales, device)
