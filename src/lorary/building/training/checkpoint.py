"""A training run's state in one file, written by atomic replace: there is no half a checkpoint.

It bears a hash of all that is in it. After a power cut a file may have its size and not its content, and a disk may
return other bits than it was given: a run that went on from them would end in another expert, and nobody would notice.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, optim

from lorary.building.training.curve import Curve
from lorary.building.training.stack import Stack
from lorary.formats.tensor_file import write_tensors
from lorary.hashing import hash_json
from lorary.model.base.fingerprint import tensor_facts

_CODE = "W-CHECKPOINT"
_ADAM = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(
    path: Path, stacks: Mapping[str, Stack], optimizer: optim.Optimizer, step: int, curves: Sequence[Curve]
) -> None:
    """Write weights, best weights, AdamW's state, the step that they are of and each pupil's curve."""
    tensors: dict[str, Tensor] = {}
    for name, stack in stacks.items():
        tensors |= {f"now/{name}": stack.values.detach(), f"best/{name}": stack.best}
        tensors |= {f"{key}/{name}": optimizer.state[stack.values][key] for key in _ADAM}
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".tmp")
    saved = {name: t.cpu().contiguous() for name, t in tensors.items()}
    facts = {"step": step, "curves": [asdict(curve) for curve in curves]}
    header = {"facts": json.dumps(facts), "sha256": _hash(facts, saved)}
    write_tensors(saved, staged, metadata=header)
    staged.replace(path)


def checkpoint_bytes(stacks: Mapping[str, Stack]) -> int:
    """Say about how large the checkpoint of a run will be."""
    return sum(4 * stack.values.numel() * stack.values.element_size() for stack in stacks.values())


def load_checkpoint(
    path: Path, stacks: Mapping[str, Stack], optimizer: optim.Optimizer
) -> tuple[int, list[Curve]] | None:
    """Restore what was saved and give the step and the curves; None if there is no checkpoint.

    A damaged one, or one of another run, counts as none, with a warning: the run starts anew, which costs time and
    changes no result.
    """
    try:
        step, curves, tensors = _read(path)
        if not _fits(tensors, stacks, len(curves)):
            raise ValueError("it holds what another run trains")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        what = f"{path}: this checkpoint can't be used ({type(error).__name__}: {error})."
        hint = "The training starts anew, which costs time and changes no result."
        warnings.warn(f"warning[{_CODE}] {what} {hint}", RuntimeWarning, stacklevel=2)
        return None
    for name, stack in stacks.items():
        stack.values.data.copy_(tensors[f"now/{name}"])
        stack.best.copy_(tensors[f"best/{name}"])
        optimizer.state[stack.values] = {key: tensors[f"{key}/{name}"].to(stack.values.device) for key in _ADAM}
    return step, curves


def _read(path: Path) -> tuple[int, list[Curve], dict[str, Tensor]]:
    """Read what was saved. Raises ValueError if anything of it is not what it was, and what parsers do."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    facts = json.loads(header["facts"])
    if header["sha256"] != _hash(facts, tensors):
        raise ValueError("it is not what was saved")
    return int(facts["step"]), [Curve(**curve) for curve in facts["curves"]], tensors


def _hash(facts: Any, tensors: Mapping[str, Tensor]) -> str:
    return hash_json([facts, tensor_facts(tensors)])


def _fits(tensors: Mapping[str, Tensor], stacks: Mapping[str, Stack], n_curves: int) -> bool:
    """Tell whether tensors are all that stacks need, before any of it is changed."""
    expected: dict[str, torch.Size] = {}
    for name, stack in stacks.items():
        expected |= {f"{key}/{name}": stack.values.shape for key in ("now", "best", "exp_avg", "exp_avg_sq")}
        expected[f"step/{name}"] = torch.Size()
    n_pupils = {len(stack.values) for stack in stacks.values()}
    return {key: tensor.shape for key, tensor in tensors.items()} == expected and n_pupils == {n_curves}
