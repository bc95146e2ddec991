"""Directions that a low-rank expert listens to: functions that routers share."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Weights
from lorary.adapters.tied import one_below_the_other

_ROUNDING = 1e-7  # singular values below this share of ||A|| ||B|| are what is left of numbers that cancel out
_NUMBERS_AT_ONCE = 1 << 17  # what a batch of factors may hold and still lie in a core's cache as float64


def right_singular(weights: Weights) -> tuple[Tensor, Tensor]:
    """Compute the right singular vectors (r, d_in) and singular values (r,) of B A from its thin factors, float32.

    From A^T = Q R: eigenvectors of R B^T B R^T, turned by Q, in float64: exact to 1e-7 for the directions of more than
    1e-4 of the largest value, and never builds (d_out, d_in). Each vector's largest entry is positive, so that equal
    experts give equal vectors.
    """
    a, b = weights.factors()
    vectors, values = _decompose(a.unsqueeze(0), b.unsqueeze(0))
    return vectors[0], values[0]


def _firsts(weights: Iterable[Weights]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Find the first of each of many, those of one shape together: which of them (N,), vectors (N, d_in), values (N,).

    The same bits, sooner; few are held at a time.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
    for index, w in enumerate(weights):
        shape = (w.rank, w.d_in, w.d_out)
        waiting[shape].append((index, *w.factors()))
        if (len(waiting[shape]) + 1) * w.rank * (w.d_in + w.d_out) > _NUMBERS_AT_ONCE:
            yield _together(waiting.pop(shape))
    for batch in waiting.values():
        yield _together(batch)


def _together(batch: Sequence[tuple[int, Tensor, Tensor]]) -> tuple[list[int], Tensor, Tensor]:
    indices, a, b = zip(*batch, strict=True)
    vectors, values = _decompose(torch.stack(a), torch.stack(b), n=1)
    return list(indices), vectors[:, 0], values[:, 0]


def _decompose(a: Tensor, b: Tensor, n: int | None = None) -> tuple[Tensor, Tensor]:
    """Decompose b a: a (N, r, d_in), b (N, d_out, r) -> (N, r, d_in), (N, r), or the first n of r.

    Values that are nothing but rounding are 0: a b that maps all of a to nothing has no direction.
    """
    q, r = torch.linalg.qr(a.double().mT)  # (N, d_in, r), (N, r, r)
    b = b.double()
    nothing = _ROUNDING * a.double().norm(dim=(1, 2)) * b.norm(dim=(1, 2))  # (N,)
    squares, right = torch.linalg.eigh(r @ (b.mT @ b) @ r.mT)  # (N, r) upwards, (N, r, r)
    squares, right = squares.flip(1)[:, :n], right.flip(2)[:, :, :n]
    vectors = right.mT @ q.mT  # (N, n, d_in)
    largest = vectors.gather(2, vectors.abs().argmax(2, keepdim=True))
    vectors = (vectors * torch.where(largest < 0, -1.0, 1.0)).float()
    values = squares.clamp(min=0).sqrt()
    return vectors, values.where(values > nothing.unsqueeze(1), 0.0).float()


def prototypes(experts: Experts, sites: Iterable[str]) -> dict[str, dict[int, Tensor]]:
    """Find what each expert listens to at each site: first right singular vectors (d_in,), by place in order of names.

    Experts without weights at a site, or that change nothing there, have none.
    """
    return group_prototypes(experts, [[site] for site in sites])


def group_prototypes(experts: Experts, groups: Sequence[Sequence[str]]) -> dict[str, dict[int, Tensor]]:
    """Find prototypes of groups of sites that stand for one layer each: all sites of a group get the group's.

    As `prototypes`; an expert has none at a site without weights of its own, and one where it changes the group only.
    """
    names = sorted(experts)
    places = [
        (index, here)
        for group in groups
        for index, name in enumerate(names)
        if (here := [site for site in group if site in experts[name]])
    ]
    found: dict[str, dict[int, Tensor]] = {site: {} for group in groups for site in group}
    for batch, vectors, values in _firsts(_joined(experts[names[index]], here) for index, here in places):
        for n, value in enumerate(values.tolist()):
            if value > 0:
                index, here = places[batch[n]]
                for site in here:
                    found[site][index] = vectors[n]
    return found


def _joined(expert: Mapping[str, Weights], sites: Sequence[str]) -> Weights:
    return expert[sites[0]] if len(sites) == 1 else one_below_the_other([expert[site] for site in sites])


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


def calibration(products: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find mean and deviation of products (P, n), then mean and 1 / deviation of |standardised|, each (P,).

    Without products nothing is shifted or scaled.
    """
    zeros, ones = products.new_zeros(len(products)), products.new_ones(len(products))
    if not products.shape[1]:
        return zeros, ones, zeros, ones
    offset, spread = products.mean(1), products.std(1, correction=0).clamp(min=1e-6)
    sizes = ((products - offset.unsqueeze(1)) / spread.unsqueeze(1)).abs()
    return offset, spread, sizes.mean(1), 1 / sizes.std(1, correction=0).clamp(min=1e-6)
