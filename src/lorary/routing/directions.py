"""Directions that a low-rank expert listens to: functions that routers share."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lorary.adapters.base import Experts, Weights

_NUMBERS_AT_ONCE = 1 << 17  # what a batch of factors may hold and still lie in a core's cache as float64


def right_singular(weights: Weights) -> tuple[Tensor, Tensor]:
    """Compute the right singular vectors (r, d_in) and singular values (r,) of B A from its thin factors, float32.

    From A^T = Q R: eigenvectors of R B^T B R^T, turned by Q, in float64: exact to 1e-7 for the directions of more than
    1e-4 of the largest value, and never builds (d_out, d_in). Each vector's largest entry is positive, so that equal
    experts give equal vectors.
    """
    return right_singular_of_each([weights])[0]


def right_singular_of_each(weights: Sequence[Weights]) -> list[tuple[Tensor, Tensor]]:
    """Do the same for all experts of a site, those of one rank in batches: the same bits, sooner."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for batch in _by_rank(weights):
        factors = [weights[i].factors() for i in batch]
        vectors, values = _decompose(torch.stack([a for a, _ in factors]), torch.stack([b for _, b in factors]))
        found |= {i: (vectors[n], values[n]) for n, i in enumerate(batch)}
    return [found[i] for i in range(len(weights))]


def _by_rank(weights: Sequence[Weights]) -> Iterator[list[int]]:
    for rank in sorted({w.rank for w in weights}):
        alike = [i for i, w in enumerate(weights) if w.rank == rank]
        size = max(1, _NUMBERS_AT_ONCE // (rank * (weights[alike[0]].d_in + weights[alike[0]].d_out)))
        yield from (alike[n : n + size] for n in range(0, len(alike), size))


def _decompose(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Decompose b a: a (N, r, d_in), b (N, d_out, r) -> (N, r, d_in), (N, r)."""
    q, r = torch.linalg.qr(a.double().mT)  # (N, d_in, r), (N, r, r)
    b = b.double()
    squares, right = torch.linalg.eigh(r @ (b.mT @ b) @ r.mT)  # (N, r) upwards, (N, r, r)
    vectors = right.flip(2).mT @ q.mT  # (N, r, d_in)
    largest = vectors.gather(2, vectors.abs().argmax(2, keepdim=True))
    vectors = (vectors * torch.where(largest < 0, -1.0, 1.0)).float()
    return vectors, squares.flip(1).clamp(min=0).sqrt().float()


def prototypes(experts: Experts, site: str) -> dict[int, Tensor]:
    """Find what each expert listens to at a site: place in the order of names -> first right singular vector (d_in,).

    Experts without weights there, or that change nothing, have none.
    """
    present = [index for index, name in enumerate(sorted(experts)) if site in experts[name]]
    each = right_singular_of_each([experts[name][site] for name in sorted(experts) if site in experts[name]])
    return {index: v[0] for index, (v, values) in zip(present, each, strict=True) if values[0] > 0}


def without_common(vectors: Tensor, n: int) -> Tensor:
    """Find the map (P, P) that takes the n leading common directions out of unit rows (P, d) and makes them unit again.

    The common directions are the first right singular vectors of the rows, so neither the order nor the signs of the
    rows matter. What is linear in the rows, such as their products with inputs, is cleaned by the same map. Two rows
    would become one and its opposite: fewer than n + 2 rows keep as many directions as they need to differ.
    """
    n = max(0, min(n, len(vectors) - 2))
    gram = vectors.double() @ vectors.double().T  # (P, P)
    left = torch.linalg.eigh(gram).eigenvectors[:, len(vectors) - n :]  # (P, n), the largest eigenvalues
    remove = torch.eye(len(vectors), dtype=torch.float64, device=vectors.device) - left @ left.T  # (P, P)
    lengths = (remove @ gram @ remove).diagonal().clamp(min=0).sqrt()  # (P,)
    cleaner: Tensor = remove / lengths.clamp(min=1e-6).unsqueeze(1)
    return cleaner.float()
