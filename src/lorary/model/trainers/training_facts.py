"""What a trainer of transformers tells of a training, as expert.json and metrics.jsonl have it.

Nothing of it says where on a disk, or under whose account, anything is: libraries are passed on.
"""

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

_ALWAYS = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs")
_WORDS = ("optim", "lr_scheduler_type", "loss_type")
"""The options with words in them that are told. Others may hold a path, a name of a run, or a token."""
_UNTOLD = ("seed", "local_rank", "disable_tqdm", "push_to_hub")
_MEANS = ("dataloader_", "logging_", "save_", "hub_")
"""How options begin that decide nothing of what is trained."""
_OURS = {"learning_rate": "lr", "eval_loss": "valid_loss", "num_tokens": "n_tokens"}


def arguments_of(args: object) -> dict[str, object]:
    """Tell the trainer's arguments that were changed, and those that every training is known by."""
    told: dict[str, Any] = {"class": type(args).__name__}
    for field in dataclasses.fields(args) if dataclasses.is_dataclass(args) else ():
        value = getattr(args, field.name, None)
        value = value.value if isinstance(value, Enum) else value
        is_word = field.name in _WORDS and isinstance(value, str)
        if field.name in _UNTOLD or field.name.startswith(_MEANS) or not (is_word or _is_number(value)):
            continue
        if field.name in _ALWAYS or is_word or value != (field.default or False):
            told[field.name] = value
    return told


def data_of(loader: object) -> dict[str, object]:
    """Tell the number of the examples, and what `datasets` knows them by."""
    data = getattr(loader, "dataset", None)
    told: dict[str, Any] = {}
    if data is not None and hasattr(data, "__len__"):
        told["examples"] = len(data)
    if isinstance(found := getattr(data, "_fingerprint", None), str):
        told["dataset_fingerprint"] = found
    return told


def rows_of(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Make a row of each step that was logged, in order; what was logged of a step apart goes into one."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        if "train_runtime" in entry:  # the sum of all
            continue
        step = int(entry.get("step", 0))
        rows.setdefault(step, {"step": step}).update(
            {_OURS.get(key, key): value for key, value in entry.items() if key != "step" and _is_number(value)}
        )
    return [rows[step] for step in sorted(rows)]


def metrics_of(state: Any, rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Tell the losses of the whole: the mean in training, the last and the best of those it was judged by."""
    found: dict[str, Any] = {}
    for entry in state.log_history:
        found |= {key: entry[key] for key in ("train_loss",) if key in entry}
    for row in rows:
        found |= {key: row[key] for key in ("valid_loss",) if key in row}
    if state.best_metric is not None:
        found |= {"best_metric": state.best_metric, "best_step": state.best_global_step}
    return {key: float(value) for key, value in found.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, numbers.Real) and math.isfinite(value))
