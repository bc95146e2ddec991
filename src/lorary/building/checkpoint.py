"""A training run's state in one file, written by atomic replace: there is no half a checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, optim

_ADAM = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(
    path: Path,
    parameters: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write weights, best weights, AdamW's state and `facts` (plain JSON)."""
    tensors = {f"now/{name}": p.detach() for name, p in parameters.items()}
    tensors |= {f"best/{name}": p for name, p in best.items()}
    for name, p in parameters.items():
        tensors |= {f"{key}/{name}": optimizer.state[p][key] for key in _ADAM}
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".tmp")
    header = {"facts": json.dumps(facts)}
    save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, staged, metadata=header)
    staged.replace(path)


def load_checkpoint(
    path: Path, parameters: Mapping[str, Tensor], best: dict[str, Tensor], optimizer: optim.Optimizer
) -> dict[str, Any] | None:
    """Restore what was saved and give its facts; None if there is no checkpoint.

    A damaged one counts as none: the run starts anew, which costs time and changes no result.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
    for name, p in parameters.items():
        p.data.copy_(tensors[f"now/{name}"])
        best[name].copy_(tensors[f"best/{name}"])
        # AdamW keeps its step count on the CPU.
        optimizer.state[p] = {key: tensors[f"{key}/{name}"].to("cpu" if key == "step" else p.device) for key in _ADAM}
    return facts
