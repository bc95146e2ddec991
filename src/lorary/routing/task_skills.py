"""Learned weights of a known task over experts, per site: what Poly and MHR share.

State: "<site>.logits" (T, S, E) for T tasks, S blocks, E experts in order of their names, and "tasks", the names of the
tasks as JSON in bytes. Where the numbers are the weights themselves, "<site>.weights" in the place of the logits.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError, TaskError
from lorary.routing.contract import Context, Gate, Probe, Routing, State

TASKS = "tasks"
_CALLED = {"poly": "Poly", "mhr": "MHR"}
_MOST_LETTERS = 10_000_000  # of the names of all tasks together


class TaskGate(Gate):
    """Weigh experts by the row's task t: w_k = sigmoid(z_tk) / sum_j sigmoid(z_tj), for each block; if raw, w_k = z_tk.

    `Context.experts` holds the number of each row's task.
    """

    def __init__(self, logits: Tensor, *, raw: bool = False) -> None:
        super().__init__()
        self.raw = raw
        self.logits = nn.Parameter(logits.float(), requires_grad=False)  # (T, S, E)

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Look up each row's weights, (B, 1, S, E)."""
        if context.experts is None:
            raise TaskError("E-TASK", "learned routing needs the task of every row.", "Pass tasks=[...], or examples.")
        chosen = self.logits[context.experts.to(self.logits.device)]
        return Routing((chosen if self.raw else skill_weights(chosen)).unsqueeze(1))

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        """Leave the weights of the allowed; raw ones are no shares, so nobody gets those of the others."""
        routing = self(h, context)
        return Routing(routing.weights * allowed.unsqueeze(2)) if self.raw else routing.among(allowed)


def skill_weights(logits: Tensor) -> Tensor:
    """Normalise sigmoids over the last axis; a softmax of their logarithms, so that no logit is too small."""
    return torch.softmax(nn.functional.logsigmoid(logits), dim=-1)


def pack_state(logits: Mapping[str, Tensor], tasks: Sequence[str], *, raw: bool = False) -> State:
    """Make a state of each site's logits, or raw weights, (T, S, E) and the names of the T tasks."""
    state = {f"{site}.{_part(raw)}": value.detach().cpu().clone() for site, value in logits.items()}
    return {**state, TASKS: torch.frombuffer(bytearray(json.dumps(list(tasks)).encode()), dtype=torch.uint8)}


def _part(raw: bool) -> str:
    return "weights" if raw else "logits"


def task_numbers(state: State) -> dict[str, int] | None:
    """Number the tasks that a state knows; None if it is no state of learned weights."""
    if TASKS not in state:
        return None
    written, names = state[TASKS], None
    if written.dtype == torch.uint8 and written.dim() == 1 and len(written) <= _MOST_LETTERS:
        with contextlib.suppress(ValueError, RecursionError):
            names = json.loads(bytes(written.tolist()))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RoutingError("E-STATE", "the learned weights don't name their tasks.", "Build the library again.")
    return {name: i for i, name in enumerate(names)}


def task_gate(name: str, site: Site, state: State, n_experts: int) -> TaskGate:
    """Make the gate of one site from what the builder `name` left.

    Raises E-LEARNED for logits that aren't of these tasks, blocks and experts.
    """
    raw = f"{site.name}.{_part(True)}" in state
    logits, n_tasks = state.get(f"{site.name}.{_part(raw)}", torch.zeros(0, 1, 0)), len(task_numbers(state) or ())
    n_splits = logits.shape[1] if logits.dim() == 3 else 0
    fits = n_splits and n_tasks and logits.is_floating_point() and logits.shape == (n_tasks, n_splits, n_experts)
    if not fits or site.d_in % n_splits or site.d_out % n_splits or not logits.isfinite().all():
        raise RoutingError(
            "E-LEARNED",
            f"the {_CALLED[name]} weights of {site.name!r} are {tuple(logits.shape)}, expected finite numbers for "
            f"{n_tasks} tasks, blocks that divide {site.d_in} and {site.d_out}, and {n_experts} experts.",
            "The file is damaged, or not of these experts: build the library again.",
        )
    return TaskGate(logits, raw=raw)


def learned_state(name: str, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
    """Ask the probe for what the builder `name` left. Raises E-LEARNED if there is nothing, or it doesn't fit."""
    state = probe.learned(name) if probe is not None else None
    if state is None:
        hint = f"Build it with --method {name}."
        raise RoutingError("E-LEARNED", f"this library has no {_CALLED[name]} weights for its experts.", hint)
    for site in sites.values():
        task_gate(name, site, state, len(experts))
    return state
