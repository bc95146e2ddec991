"""The expert of the known task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import TaskError
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State


@dataclass(frozen=True)
class Oracle(Router):
    """Use only the expert that was trained on the example's task (for a cluster expert: its cluster).

    Raises E-TASK where the task is unknown or no expert was trained on it.
    Source: Ostapenko et al. 2024 (2405.11157) section 5.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"task"})

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Learn nothing."""
        return {}

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that reads `Context.experts`."""
        return _OracleGate(len(names))


class _OracleGate(Gate):
    one_hot: Tensor

    def __init__(self, n_experts: int) -> None:
        super().__init__()
        self.register_buffer("one_hot", torch.eye(n_experts), persistent=False)

    def forward(self, h: Tensor, context: Context) -> Routing:
        if context.experts is None:
            raise TaskError("E-TASK", "the oracle needs the task of every row.", "Pass tasks=[...], or examples.")
        return Routing(self.one_hot[context.experts.to(self.one_hot.device)][:, None, None])  # (B, 1, 1, E)
