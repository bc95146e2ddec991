"""Weights over blocks of the experts that a known task has learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.adapters.contract import Experts, Site
from lorary.routing.contract import Gate, Probe, Router, State
from lorary.routing.task_skills import learned_state, task_gate


@dataclass(frozen=True)
class MHRRouter(Router):
    """Mix the experts block by block as the row's task was trained to: weights per task, layer and block.

    The weights are Poly's, with one set for each of S blocks of the input side and of the output side; needs
    mix="factors". For libraries of the builder mhr, which keeps them under learned/, and for the tasks that it saw;
    others: `uniform`, which is MHR-mu. Raises E-LEARNED for a library without such weights, E-TASK for an unknown task.
    Source: Caccia et al. 2023 (2211.03831); Ostapenko et al. 2024 (2405.11157) section 3.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"task", "learned"})

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Learn nothing: fetch what the builder learned."""
        return learned_state("mhr", experts, sites, probe)

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from its logits."""
        return task_gate("mhr", site, state, len(names))
