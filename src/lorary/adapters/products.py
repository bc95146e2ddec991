"""The products B A of whole experts, compared and added up without ever being formed.

Everything here sees scale · B A only: it is the same however the factors are written, for any ranks, and for experts
that are missing at a site (they add zero there).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lorary.adapters.base import Weights
from lorary.adapters.low_rank import LowRankWeights
from lorary.errors import AdapterError

BLOCK_BYTES = 32 << 20
STRIP_ROWS = 128
"""Below the diagonal nothing is computed, in steps of so many rows; smaller steps make slower matrix products."""

SKETCH_SHARE, OVERSAMPLED = 8, 16

Expert = Mapping[str, Weights]
Side = Callable[[LowRankWeights, slice], Tensor]
"""Reads some columns of one factor of an expert, (r, columns)."""


def inner_products(
    experts: Sequence[Expert], others: Sequence[Expert] | None = None, *, block_bytes: int = BLOCK_BYTES
) -> Tensor:
    """Compute <s B A, s' B' A'> = s s' tr((B^T B') (A' A^T)) for all pairs, (N, M) float64; `others`: as `experts`.

    Factors are read in blocks of columns: memory is N M numbers and about two blocks. Products are float32, sums over
    sites float64. Raises E-SHAPE for experts of different widths at a site.
    """
    columns = experts if others is None else others
    total = torch.zeros(len(experts), len(columns), dtype=torch.float64)
    for site in sorted({name for expert in (*experts, *columns) for name in expert}):
        left = _at_site(experts, site)
        right = left if others is None else _at_site(columns, site)
        if left and right:
            _check_widths([*left.values(), *right.values()], site)
            _add_site(total, left, right, is_upper=others is None, block_bytes=block_bytes)
    return total if others is not None else total.triu() + total.triu(1).T


def cosines(inner: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Turn inner products (N, M) into cosines, given both sides' squared norms (N,) and (M,); zero for a zero norm."""
    norms = left.clamp(min=0).sqrt().unsqueeze(1) * right.clamp(min=0).sqrt()  # (N, M)
    return torch.where(norms > 0, inner / norms.clamp(min=torch.finfo(norms.dtype).tiny), torch.zeros_like(inner))


def _at_site(experts: Sequence[Expert], site: str) -> dict[int, LowRankWeights]:
    found = {}
    for index, expert in enumerate(experts):
        if site in expert:
            weights = expert[site]
            assert isinstance(weights, LowRankWeights), type(weights)
            found[index] = weights
    return found


def _check_widths(weights: Sequence[LowRankWeights], site: str) -> None:
    if len({(w.d_in, w.d_out) for w in weights}) > 1:
        found = sorted({(w.d_in, w.d_out) for w in weights})
        shapes = " and ".join(f"{d_in} -> {d_out}" for d_in, d_out in found)
        raise AdapterError("E-SHAPE", f"site {site!r}: experts are {shapes}.", "Were they trained on different bases?")


def _add_site(
    total: Tensor,
    left: Mapping[int, LowRankWeights],
    right: Mapping[int, LowRankWeights],
    *,
    is_upper: bool,
    block_bytes: int,
) -> None:
    """Add one site's inner products to total (N, M); with `is_upper` those on and above the diagonal."""
    rows, columns = list(left), list(right)
    n_columns = sum(w.rank for w in right.values())
    for start, stop in runs([w.rank for w in left.values()], max(1, block_bytes // (12 * n_columns))):
        rest = columns[start if is_upper else 0 :]
        tile = [left[i] for i in rows[start:stop]]
        both = [
            _side_products(tile, [right[i] for i in rest], side, width, is_upper=is_upper, block_bytes=block_bytes)
            for side, width in ((_input_side, tile[0].d_in), (_output_side, tile[0].d_out))
        ]
        found = _sum_blocks(both[0].mul_(both[1]), [w.rank for w in tile], [right[i].rank for i in rest])
        scales = torch.tensor([w.scale for w in tile], dtype=torch.float64).unsqueeze(1)
        found = found * scales * torch.tensor([right[i].scale for i in rest], dtype=torch.float64)
        total[torch.tensor(rows[start:stop]).unsqueeze(1), torch.tensor(rest)] += found


def _input_side(weights: LowRankWeights, columns: slice) -> Tensor:
    return weights.a[:, columns]


def _output_side(weights: LowRankWeights, columns: slice) -> Tensor:
    return weights.b[columns].T


def _side_products(
    tile: Sequence[LowRankWeights],
    rest: Sequence[LowRankWeights],
    side: Side,
    width: int,
    *,
    is_upper: bool,
    block_bytes: int,
) -> Tensor:
    """Multiply all rows of one side's factors, (R_tile, R_rest) float32; the tile comes first in `rest` if is_upper."""
    ranks = [w.rank for w in tile]
    out = torch.zeros(sum(ranks), sum(w.rank for w in rest))
    step = max(1, block_bytes // (4 * out.shape[1]))
    for start in range(0, width, step):
        columns = slice(start, min(start + step, width))
        block = torch.cat([side(w, columns).float() for w in rest])  # (R_rest, columns)
        own = block[: out.shape[0]] if is_upper else torch.cat([side(w, columns).float() for w in tile])
        add_products(out, own, block, ranks, is_upper=is_upper)
    return out


def add_products(out: Tensor, left: Tensor, right: Tensor, sizes: Sequence[int], *, is_upper: bool) -> None:
    """Add left @ right^T to out (R, Q); with `is_upper`, whose left is right's start, nothing left of the diagonal.

    `sizes`: how many rows belong together and are not cut apart.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    for start, stop in runs(sizes, STRIP_ROWS):
        low, high = int(offsets[start]), int(offsets[stop])
        first = low if is_upper else 0
        out[low:high, first:].addmm_(left[low:high], right[first:].T)


def runs(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Cut a sequence into runs [start, stop) whose sizes add up to at most `most`; a larger one stands alone."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > most:
            yield start, index
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield start, len(sizes)


def _sum_blocks(values: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Add up blocks of rows x columns: (R, Q) -> (N, M) float64."""
    found = values.numpy()
    for axis, sizes in ((1, columns), (0, rows)):
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        found = np.add.reduceat(found, starts, axis=axis, dtype=np.float64)
    return torch.from_numpy(found)


@dataclass(frozen=True, eq=False)
class ThinSVD:
    """The leading singular values of one site's product: u (d_out, k), s (k,) descending, v (d_in, k), float64.

    norm2: the squared Frobenius norm of the whole, all singular values included.
    """

    u: Tensor
    s: Tensor
    v: Tensor
    norm2: float

    @property
    def rank(self) -> int:
        """How many singular values are more than rounding."""
        return int((self.s > 1e-6 * self.s[:1]).sum())

    def keep(self, rank: int) -> tuple[LowRankWeights, float]:
        """Keep the `rank` largest, with balanced factors and scale 1.

        Also gives the squared Frobenius norm of what is left out.
        """
        root = self.s[:rank].sqrt()
        a = (root.unsqueeze(1) * self.v[:, :rank].T).float()
        b = (self.u[:, :rank] * root).float()
        return LowRankWeights(a, b, 1.0), max(0.0, self.norm2 - float(self.s[:rank].pow(2).sum()))


def padded(weights: LowRankWeights, rank: int) -> LowRankWeights:
    """Add rows and columns of zeros up to a rank; the product stays the same."""
    missing = rank - weights.rank
    a = torch.nn.functional.pad(weights.a, (0, 0, 0, missing))
    return LowRankWeights(a, torch.nn.functional.pad(weights.b, (0, missing)), weights.scale)


def svd_of_sum(parts: Sequence[LowRankWeights], shares: Sequence[float]) -> ThinSVD:
    """Decompose sum_i share_i s_i B_i A_i exactly, by QR of the stacked factors: O(d R^2) for R ranks in all."""
    a = torch.cat([w.a.double() for w in parts])  # (R, d_in)
    b = torch.cat([share * w.scale * w.b.double() for w, share in zip(parts, shares, strict=True)], dim=1)  # (d_out, R)
    q_out, r_out = torch.linalg.qr(b)
    q_in, r_in = torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(r_out @ r_in.T, full_matrices=False)
    return ThinSVD(q_out @ u, s, q_in @ vh.T, float(s.pow(2).sum()))


def svd_of(delta: Tensor, rank: int | None = None) -> ThinSVD:
    """Decompose a product that is no longer thin, (d_out, d_in).

    For a rank of at most an eighth of the widths by subspace iteration, which finds the nearest of that rank to about
    a thousandth of the error that it has to make anyway (Halko et al. 2011); otherwise exactly.
    """
    norm2 = float(delta.double().pow(2).sum())
    if rank is not None and SKETCH_SHARE * rank <= min(delta.shape):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, s, v = torch.svd_lowrank(delta, q=rank + OVERSAMPLED, niter=4)
        return ThinSVD(u.double(), s.double(), v.double(), norm2)
    u, s, vh = torch.linalg.svd(delta.double(), full_matrices=False)
    return ThinSVD(u, s, vh.T, norm2)
