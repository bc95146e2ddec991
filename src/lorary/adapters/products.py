"""The products B A of whole experts, compared and added up without ever being formed.

Everything here sees scale · B A only: it is the same however the factors are written, for any ranks, and for experts
that are missing at a site (they add zero there).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lorary.adapters.contract import Weights
from lorary.errors import AdapterError

BLOCK_BYTES = 32 << 20
STRIP_ROWS = 128
"""Below the diagonal nothing is computed, in steps of so many rows; smaller steps make slower matrix products."""

SKETCH_SHARE, OVERSAMPLED = 8, 16

Expert = Mapping[str, Weights]
Side = Callable[[Weights, slice], Tensor]
"""Reads some columns of one factor of an expert, (r, columns)."""


def inner_products(experts: Sequence[Expert], *, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Compute <s B A, s' B' A'> = s s' tr((B^T B') (A' A^T)) for all pairs of N experts, (N, N) float64.

    Factors are read in blocks of columns: memory is N^2 numbers and about two blocks. Products are float32, sums over
    sites float64. Raises E-SHAPE for experts of different widths at a site.
    """
    total = torch.zeros(len(experts), len(experts), dtype=torch.float64)
    for site in sorted({name for expert in experts for name in expert}):
        present = _at_site(experts, site)
        check_widths(list(present.values()), site)
        _add_site(total, present, block_bytes)
    return total.triu() + total.triu(1).T


def sketch(weights: Weights, n: int) -> Tensor:
    """Let n numbers (n,) float32 stand for s B A: inner products of sketches are those of the products, about.

    Number j is u_j^T (s B A) v_j / sqrt(n) with fixed random signs u_j, v_j. The mean is right; the standard deviation
    of a squared norm is sqrt(8 / n) of it at rank 1, towards sqrt(2 / n) at high ranks. Equal experts, equal sketches.
    """
    a, b = weights.factors()
    left, right = _signs(b.shape[0], n, 0), _signs(a.shape[1], n, 1)  # (d_out, n), (d_in, n)
    products: Tensor = (a.cpu() @ right) * (b.cpu().T @ left)  # (r, n)
    return products.sum(0) / math.sqrt(n)


@lru_cache
def _signs(width: int, n: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(2 * width + side)
    return torch.randint(0, 2, (width, n), generator=generator).float() * 2 - 1


def _at_site(experts: Sequence[Expert], site: str) -> dict[int, Weights]:
    return {index: expert[site] for index, expert in enumerate(experts) if site in expert}


def check_widths(weights: Sequence[Weights], site: str) -> None:
    """Refuse experts of different widths at a site (E-SHAPE)."""
    if len({(w.d_in, w.d_out) for w in weights}) > 1:
        found = sorted({(w.d_in, w.d_out) for w in weights})
        shapes = " and ".join(f"{d_in} -> {d_out}" for d_in, d_out in found)
        raise AdapterError("E-SHAPE", f"site {site!r}: experts are {shapes}.", "Were they trained on different bases?")


def _add_site(total: Tensor, present: Mapping[int, Weights], block_bytes: int) -> None:
    """Add one site's inner products to total (N, N), on and above the diagonal: a tile of experts at a time."""
    indices, weights = list(present), list(present.values())
    for start, stop in runs([w.rank for w in weights], max(1, block_bytes // (12 * sum(w.rank for w in weights)))):
        tile, rest = weights[start:stop], weights[start:]
        inner = _side_products(rest, len(tile), _input_side, rest[0].d_in, block_bytes)
        inner *= _side_products(rest, len(tile), _output_side, rest[0].d_out, block_bytes)
        found = _sum_blocks(inner, [w.rank for w in tile], [w.rank for w in rest])
        scales = torch.tensor([w.scale for w in rest], dtype=torch.float64)
        found = found * scales[: len(tile)].unsqueeze(1) * scales
        total[torch.tensor(indices[start:stop]).unsqueeze(1), torch.tensor(indices[start:])] += found


def _input_side(weights: Weights, columns: slice) -> Tensor:
    return weights.a[:, columns]


def _output_side(weights: Weights, columns: slice) -> Tensor:
    return weights.b[columns].T


def _side_products(weights: Sequence[Weights], n_tile: int, side: Side, width: int, block_bytes: int) -> Tensor:
    """Multiply the rows of the first n_tile experts' factors with those of all, (R_tile, R) float32."""
    ranks = [w.rank for w in weights]
    out = torch.zeros(sum(ranks[:n_tile]), sum(ranks))
    step = max(1, block_bytes // (4 * out.shape[1]))
    for start in range(0, width, step):
        columns = slice(start, min(start + step, width))
        add_upper_products(out, torch.cat([side(w, columns).float() for w in weights]), ranks[:n_tile])
    return out


def add_upper_products(out: Tensor, block: Tensor, sizes: Sequence[int]) -> None:
    """Add rows @ block^T to out (R, Q), the rows being the first R of block (Q, columns); little below the diagonal.

    `sizes`: how many of the rows belong together and are not cut apart.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    for start, stop in runs(sizes, STRIP_ROWS):
        low, high = int(offsets[start]), int(offsets[stop])
        out[low:high, low:].addmm_(block[low:high], block[low:].T)


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

    def with_zeros(self, rank: int) -> "ThinSVD":
        """Add singular values of zero up to a rank; the product stays the same."""
        missing = max(0, rank - len(self.s))
        u, s, v = (torch.nn.functional.pad(part, (0, missing)) for part in (self.u, self.s, self.v))
        return ThinSVD(u, s, v, self.norm2)

    def keep(self, rank: int) -> tuple[Weights, float]:
        """Keep the `rank` largest, with balanced factors and scale 1.

        Also gives the squared Frobenius norm of what is left out.
        """
        root = self.s[:rank].sqrt()
        a = (root.unsqueeze(1) * self.v[:, :rank].T).float()
        b = (self.u[:, :rank] * root).float()
        return Weights(a, b, 1.0), max(0.0, self.norm2 - float(self.s[:rank].pow(2).sum()))


def padded(weights: Weights, rank: int) -> Weights:
    """Add rows and columns of zeros up to a rank; the product stays the same."""
    missing = rank - weights.rank
    a = torch.nn.functional.pad(weights.a, (0, 0, 0, missing))
    return Weights(a, torch.nn.functional.pad(weights.b, (0, missing)), weights.scale)


def svd_of_sum(parts: Sequence[Weights], shares: Sequence[float]) -> ThinSVD:
    """Decompose sum_i share_i s_i B_i A_i exactly: O(d R^2) for R ranks in all."""
    a = torch.cat([w.a.double() for w in parts])  # (R, d_in)
    b = torch.cat([share * w.scale * w.b.double() for w, share in zip(parts, shares, strict=True)], dim=1)  # (d_out, R)
    return thin_svd(a, b)


def thin_svd(a: Tensor, b: Tensor) -> ThinSVD:
    """Decompose b a exactly, a (R, d_in) and b (d_out, R) float64, by QR of both and an SVD of the core: O(d R^2)."""
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
