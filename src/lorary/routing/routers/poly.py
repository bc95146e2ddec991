"""Weights over the experts that a known task has learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.adapters.contract import Experts, Site
from lorary.routing.contract import Gate, Probe, Router, State
from lorary.routing.task_skills import learned_state, task_gate


@dataclass(frozen=True)
class PolyRouter(Router):
    """Mix the experts as the row's task was trained to: weights per task and layer, learned with the experts.

    w_k = sigmoid(z_tk) / sum_j sigmoid(z_tj), or z_tk itself if it was learned so, the same for all tokens. For
    libraries of the builders poly, lib_poly and lib_polyz, which keep z under learned/, and for the tasks that these
    saw; others: `uniform`, which is Poly-mu.
    Raises E-LEARNED for a library without such weights, E-TASK for an unknown task.
    Source: Ponti et al. 2023 (2202.13914); Ostapenko et al. 2024 (2405.11157) section 3.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"task", "learned"})

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Learn nothing: fetch what the builder learned."""
        return learned_state("poly", experts, sites, probe)

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from its logits."""
        return task_gate("poly", site, state, len(names))
