"""Directions that a low-rank expert listens to: functions that routers share."""

import torch
from torch import Tensor

from lorary.adapters.base import Experts, Weights


def right_singular(weights: Weights) -> tuple[Tensor, Tensor]:
    """Compute the right singular vectors (r, d_in) and singular values (r,) of B A from its thin factors, float32.

    QR of both factors, then an SVD of the small core R_B R_A^T, in float64: exact to 1e-7, and never builds
    (d_out, d_in). Each vector's largest entry is positive, so that equal experts give equal vectors.
    """
    a, b = weights.factors()
    q_a, r_a = torch.linalg.qr(a.double().T)  # (d_in, r), (r, r)
    r_b = torch.linalg.qr(b.double(), mode="r").R  # (r, r)
    _, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    vectors = (q_a @ right.T).T  # (r, d_in)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * torch.where(largest < 0, -1.0, 1.0)).float(), values.float()


def prototypes(experts: Experts, site: str) -> dict[int, Tensor]:
    """Find what each expert listens to at a site: place in the order of names -> first right singular vector (d_in,).

    Experts without weights there, or that change nothing, have none.
    """
    found: dict[int, Tensor] = {}
    for index, name in enumerate(sorted(experts)):
        if site in experts[name]:
            directions, values = right_singular(experts[name][site])
            if values[0] > 0:
                found[index] = directions[0]
    return found


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
