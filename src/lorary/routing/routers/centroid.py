"""Per token and layer, the experts whose own data looks like the hidden state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.hashing import SKIP_DEFAULT
from lorary.routing.contract import Gate, Probe, State
from lorary.routing.members import stack_members
from lorary.routing.scored import ScoredGate, ScoredRouter


@dataclass(frozen=True)
class Centroid(ScoredRouter):
    """Match each token with the mean hidden state of every expert's own data (the paper's CM).

    Centroid c_i (d_in,): mean over training prompts of the last token's input to the site, with expert i at work.
    score="cosine": cos(h, c_i), as the paper says. score="dot": h · c_i / (|c_i| sqrt(d_in)), as its code does.
    Softmax over the top_k best scores at `temperature`; top_k None keeps all experts, as the paper does.
    Source: Ostapenko et al. 2024 (2405.11157) section 4.2.
    Differs: its code reads the answer, too, and takes the token that ends it, which is the same for all experts
    (`after_answer`); here it is the one where the answer begins, with the prompt known and no answer, as when an answer
    is asked for. Its 100 examples are of each task (`per_task`), here of an expert's tasks together.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"examples"})

    n_examples: int = 100
    """Training prompts of each expert."""
    score: Literal["cosine", "dot"] = "cosine"
    """How to compare: cosine, or the scaled dot product of the paper's code."""
    top_k: int | None = None
    """Experts kept at each token; None: all."""
    temperature: float = 1.0
    """Temperature of the softmax over the kept."""
    after_answer: bool = field(default=False, metadata=SKIP_DEFAULT)
    """Read the answers of the examples, too, and take the token that ends them."""
    per_task: bool = field(default=False, metadata=SKIP_DEFAULT)
    """Read n_examples of each task of an expert, not of all together."""

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Ask the probe for each expert's mean inputs."""
        if probe is None:
            raise RoutingError("E-PROBE", "centroid needs each expert's training prompts.", "Pass tasks=...")
        means = {
            name: probe.mean_inputs(
                name, n_examples=self.n_examples, per_task=self.per_task, after_answer=self.after_answer
            )
            for name in sorted(experts)
        }
        state: State = {}
        for site in sites:
            vectors = {
                index: torch.nn.functional.normalize(means[name][site].float(), dim=0)
                for index, name in enumerate(sorted(experts))
                if site in experts[name]
            }
            state |= stack_members(site, vectors)
        return state

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from its centroids."""
        score = _cosine if self.score == "cosine" else _scaled_dot
        return ScoredGate(score, site, state, n_experts=len(names), top_k=self.top_k, temperature=self.temperature)


def _cosine(h: Tensor, vectors: Tensor) -> Tensor:
    return torch.matmul(torch.nn.functional.normalize(h.float(), dim=-1), vectors.T)  # (B, T, P)


def _scaled_dot(h: Tensor, vectors: Tensor) -> Tensor:
    scale: float = vectors.shape[-1] ** -0.5
    return torch.matmul(h.float(), vectors.T) * scale  # (B, T, P)
