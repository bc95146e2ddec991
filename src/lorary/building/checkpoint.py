"""A training run's state in one file, written by atomic replace: there is no half a checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, optim

from lorary.adapters.tensor_file import write_tensors
from lorary.building.stack import Stack

_ADAM = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(
    path: Path, stacks: Mapping[str, Stack], optimizer: optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write weights, best weights, AdamW's state and `facts` (plain JSON)."""
    tensors: dict[str, Tensor] = {}
    for name, stack in stacks.items():
        tensors |= {f"now/{name}": stack.values.detach(), f"best/{name}": stack.best}
        tensors |= {f"{key}/{name}": optimizer.state[stack.values][key] for key in _ADAM}
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".tmp")
    header = {"facts": json.dumps(facts)}
    write_tensors({name: t.cpu().contiguous() for name, t in tensors.items()}, staged, metadata=header)
    staged.replace(path)


def checkpoint_bytes(stacks: Mapping[str, Stack]) -> int:
    """Say about how large the checkpoint of a run will be."""
    return sum(4 * stack.values.numel() * stack.values.element_size() for stack in stacks.values())


def load_checkpoint(path: Path, stacks: Mapping[str, Stack], optimizer: optim.Optimizer) -> dict[str, Any] | None:
    """Restore what was saved and give its facts; None if there is no checkpoint.

    A damaged one counts as none: the run starts anew, which costs time and changes no result.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
    for name, stack in stacks.items():
        stack.values.data.copy_(tensors[f"now/{name}"])
        stack.best.copy_(tensors[f"best/{name}"])
        optimizer.state[stack.values] = {key: tensors[f"{key}/{name}"].to(stack.values.device) for key in _ADAM}
    return facts
