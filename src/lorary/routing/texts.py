"""Routers that decide once for a whole prompt, by its features: functions that they share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorary.errors import RoutingError
from lorary.routing.contract import Context, Gate
from lorary.routing.scored import keep_best


def required_features(context: Context, n_features: int, router: str) -> Tensor:
    """Give what is told of the prompts, (B, F). Raises E-TEXT if nothing is, E-STATE for another number of features."""
    if context.features is None:
        raise RoutingError("E-TEXT", f"{router} needs the features of every prompt.", "Call the routed model.")
    if context.features.shape[-1] != n_features:
        told = f"{n_features} features, the encoder gives {context.features.shape[-1]}"
        raise RoutingError("E-STATE", f"the {router.replace('_', ' ')}'s state is for {told}.", "Fit anew.")
    return context.features


def best_shares(scores: Tensor, k: int) -> Tensor:
    """Share 1 among the k best of scores (..., E) that aren't negative, in proportion; the others get 0, (..., E).

    If all are 0, all get 0.
    """
    kept, index = keep_best(scores, k)
    weights = torch.zeros_like(scores).scatter(-1, index, kept)
    total = weights.sum(-1, keepdim=True)
    return (weights / total).where(total > 0, 0.0)


def task_centroids(features: Tensor, labels: Sequence[str]) -> tuple[list[str], Tensor]:
    """Average the features (N, F) of each label, of length 1: the labels, sorted, and their means (C, F)."""
    names = sorted(set(labels))
    means = [features[[label == name for label in labels]].float().mean(0) for name in names]
    return names, torch.nn.functional.normalize(torch.stack(means), dim=-1)


class NearestTexts(Gate):
    """What gates have in common that compare whole prompts with centroids (C, F), unit rows, by their cosines."""

    centroids: Tensor

    def __init__(self, centroids: Tensor, router: str) -> None:
        super().__init__()
        self.register_buffer("centroids", centroids, persistent=False)
        self.router = router

    def cosines(self, context: Context) -> Tensor:
        """Compare each row's prompt with every centroid: (B, 1, C), float32. Raises E-TEXT, E-STATE."""
        features = required_features(context, self.centroids.shape[1], self.router).to(self.centroids)
        cosines: Tensor = torch.nn.functional.normalize(features, dim=-1) @ self.centroids.T
        return cosines[:, None]
