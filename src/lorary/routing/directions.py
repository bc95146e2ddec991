"""Directions that a low-rank expert listens to: functions that routers share."""

import torch
from torch import Tensor

from lorary.adapters.base import Weights


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
