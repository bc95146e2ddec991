"""A training run's state in one file, written by atomic replace: there is no half a checkpoint.

It bears a hash of all that is in it. After a power cut a file may have its size and not its content, and a disk may
return other bits than it was given: a run that went on from them would end in another expert, and nobody would notice.
For the same reason it bears this user's seal of that hash and of the run: libraries are passed on with their .work/,
and weights that a stranger put there would be committed as ours. The header tells it, so nothing else of such a file is
read.
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
from lorary.disk.reading import open_file
from lorary.disk.seal import is_sealed, seal
from lorary.formats.tensor_file import write_tensors
from lorary.hashing import hash_json
from lorary.model.base.fingerprint import tensor_facts

_CODE = "W-CHECKPOINT"
_ABOUT = "checkpoint"
_ADAM = ("step", "exp_avg", "exp_avg_sq")
FOREIGN = "it was not written by you on this machine for this run (or before lorary sealed them, or the key is lost)"
"""Why what somebody else left isn't gone on from."""


class _UnusableError(Exception):
    """Why a checkpoint that is there isn't used."""


def save_checkpoint(
    path: Path, run: str, stacks: Mapping[str, Stack], optimizer: optim.Optimizer, step: int, curves: Sequence[Curve]
) -> None:
    """Write weights, best weights, AdamW's state, the step that they are of and each pupil's curve.

    run: the key of what is trained; the seal is good for that alone.
    """
    tensors: dict[str, Tensor] = {}
    for name, stack in stacks.items():
        tensors |= {f"now/{name}": stack.values.detach(), f"best/{name}": stack.best}
        tensors |= {f"{key}/{name}": optimizer.state[stack.values][key] for key in _ADAM}
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".tmp")
    saved = {name: t.cpu().contiguous() for name, t in tensors.items()}
    facts = {"step": step, "curves": [asdict(curve) for curve in curves]}
    content = _hash(facts, saved)
    header = {"facts": json.dumps(facts), "sha256": content, "seal": seal(_ABOUT, run, content)}
    write_tensors(saved, staged, metadata=header)
    staged.replace(path)


def checkpoint_bytes(stacks: Mapping[str, Stack]) -> int:
    """Say about how large the checkpoint of a run will be."""
    return sum(4 * stack.values.numel() * stack.values.element_size() for stack in stacks.values())


def load_checkpoint(
    path: Path, run: str, stacks: Mapping[str, Stack], optimizer: optim.Optimizer
) -> tuple[int, list[Curve]] | None:
    """Restore what was saved and give the step and the curves; None if there is no checkpoint.

    A damaged one, one of another run, or one that this user's lorary didn't write counts as none, with a warning: the
    run starts anew, which costs time and changes no result.
    """
    try:
        step, curves, tensors = _read(path, run)
        if not _fits(tensors, stacks, len(curves)):
            raise _UnusableError("it holds what another run trains")
    except FileNotFoundError:
        return None
    except (_UnusableError, OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = str(error) if isinstance(error, _UnusableError) else f"{type(error).__name__}: {error}"
        warn_unusable(path, why)
        return None
    for name, stack in stacks.items():
        stack.values.data.copy_(tensors[f"now/{name}"])
        stack.best.copy_(tensors[f"best/{name}"])
        optimizer.state[stack.values] = {key: tensors[f"{key}/{name}"].to(stack.values.device) for key in _ADAM}
    return step, curves


def warn_unusable(path: Path, why: str) -> None:
    """Say that work that was broken off starts anew, whatever is left of it (W-CHECKPOINT)."""
    hint = "The training starts anew, which costs time and changes no result."
    warnings.warn(
        f"warning[{_CODE}] {path}: this checkpoint can't be used ({why}). {hint}", RuntimeWarning, stacklevel=3
    )


def _read(path: Path, run: str) -> tuple[int, list[Curve], dict[str, Tensor]]:
    """Read what was saved. Raises _UnusableError if it isn't ours, or not what it was, and what parsers do."""
    open_file(path, through_links=False).close()  # a FIFO would hang
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        content = header.get("sha256")
        if not is_sealed(header.get("seal"), _ABOUT, run, content):
            raise _UnusableError(FOREIGN)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    facts = json.loads(header["facts"])
    if content != _hash(facts, tensors):
        raise _UnusableError("it is not what was saved")
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
