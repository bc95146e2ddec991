"""Routers that decide once for a whole prompt, by its features: functions that they share."""

import torch
from torch import Tensor

from lorary.errors import RoutingError
from lorary.routing.contract import Context
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
