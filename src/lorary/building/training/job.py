"""How long and how fast experts train, and the unit of a builder's work that does it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lorary.adapters.kinds.lora import LoRA
from lorary.adapters.low_rank import LowRankWeights
from lorary.building.limits import check_positive, check_share
from lorary.building.training.curve import Curve
from lorary.building.training.learner import Pupil
from lorary.errors import BuildError, ModelError, OptionError
from lorary.formats.peft import write_weights
from lorary.hashing import hash_json, short_key
from lorary.library.adapter.expert import Expert, copy_adapter
from lorary.library.layout import fitting_name
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.options import Options, as_dict, name_of
from lorary.tasks.example import Example
from lorary.tasks.task import Task

T = TypeVar("T")

_ROUNDING = ("pack_tokens", "pass_tokens")
_NOT_DECIDING = ("clusters", "epochs", *_ROUNDING)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """Options of everything that trains.

    A step of more than `pass_tokens` is made in several passes whose gradients are added up (equal up to rounding),
    which bounds memory. A row that alone is longer is a pass of its own.
    Source: Ostapenko et al. 2024 (2405.11157) section 9 and its code's configurations: lr 1e-4, AdamW without weight
    decay, warm-up 6 %, clip 0.1, 5 epochs, batch 16.
    Differs: clip 1.0, which small models with few steps need; batch 8.
    """

    steps: int | None = None
    """Optimiser steps of each training run; None: `epochs` over its data."""
    epochs: float = 5.0
    """Passes over the data where `steps` is None."""
    batch_size: int = 8
    """Examples in each step."""
    lr: float = 1e-4
    """Peak learning rate of AdamW, which warms up and then decays linearly to 0."""
    warmup: float = 0.06
    """Share of the steps in which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient; a large one, as 1e9, never clips."""
    n_evaluations: int = 4
    """How often the validation loss is measured; the best weights are kept."""
    max_valid: int = 64
    """Validation examples that the loss is measured on, at most."""
    patience: int | None = None
    """Stop after so many evaluations in a row without a new best; None: never."""
    pass_tokens: int = 1024
    """Padded tokens that go through the base at once; a larger step is made in several passes."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        positive = ("steps", "epochs", "batch_size", "lr", "clip", "n_evaluations", "max_valid", "patience")
        check_positive(self, *positive, "pass_tokens")
        check_share(self, "warmup")
        dropout = getattr(self, "dropout", 0.0)
        if not 0 <= dropout < 1:
            raise OptionError("E-OPTION", f"{name_of(self)}: dropout={dropout}, expected 0 or more, below 1.")

    def job(self, name: str, tasks: Sequence[Task], **more: Any) -> "TrainingJob":
        """Plan one job on the union of tasks. Raises E-DATA if there is nothing to train on."""
        train = [(e, i) for i, task in enumerate(tasks) for e in task.train]
        valid = _deal([[(e, i) for e in task.valid] for i, task in enumerate(tasks)], self.max_valid)
        if not train:
            raise BuildError("E-DATA", f"expert {name!r}: its tasks have no training examples.", "Check their splits.")
        return TrainingJob(
            name,
            tuple(task.name for task in tasks),
            tuple(e for e, _ in train),
            tuple(e for e, _ in valid),
            self,
            train_tasks=tuple(i for _, i in train),
            valid_tasks=tuple(i for _, i in valid),
            **more,
        )


@dataclass(frozen=True)
class TrainingJob:
    """Train one expert, or several jointly, on examples; train_tasks and valid_tasks number the task of each.

    made: the experts, if they aren't one of the job's name. start: names of experts of `source` that it starts from.
    """

    name: str
    tasks: tuple[str, ...]
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    options: TrainingOptions
    train_tasks: tuple[int, ...]
    valid_tasks: tuple[int, ...]
    made: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    source: Library | None = field(default=None, compare=False)

    @property
    def experts(self) -> tuple[str, ...]:
        """The experts it makes."""
        return self.made or (self.name,)

    @property
    def n_steps(self) -> int:
        """Optimiser steps in all."""
        o = self.options
        return o.steps or math.ceil(o.epochs * len(self.train) / self.n_rows)

    @property
    def n_rows(self) -> int:
        """Examples per step: all there are, if they are fewer than a batch."""
        return min(self.options.batch_size, len(self.train))

    @property
    def data_hash(self) -> str:
        """sha256 of all examples it sees, in order."""
        return hash_json([self.train, self.valid])

    @property
    def parents(self) -> tuple[str, ...]:
        """The experts it starts from, as expert.json has them: name@hash."""
        return tuple(f"{name}@{self.source[name].hash[:12]}" for name in self.start) if self.source else ()

    def key(self, base_facts: Mapping[str, Any]) -> str:
        """Hash of all that decides the result."""
        parts = [self._deciding_options(), self.n_steps, self.tasks, self.data_hash, base_facts]
        return short_key(*parts, self.experts, self.parents)

    def _deciding_options(self) -> dict[str, Any]:
        # Which clusters there are besides its own, and who shares a pack with it, doesn't change what this job makes.
        return {key: value for key, value in as_dict(self.options).items() if key not in _NOT_DECIDING}

    def _told_options(self) -> dict[str, Any]:
        options = as_dict(self.options)
        return self._deciding_options() | {key: options[key] for key in _ROUNDING if key in options}

    def describe(self) -> dict[str, Any]:
        """What --dry-run prints."""
        examples = {"train": len(self.train), "valid": len(self.valid)}
        return {"expert": self.name, "tasks": list(self.tasks), "steps": self.n_steps, "examples": examples}

    def pupil(self, base: BaseModel) -> Pupil:
        """Encode its data. Raises E-LENGTH and E-CHAT as `encode`."""
        parts = (self.train, self.valid)
        try:
            train, valid = (base.encode(part) for part in parts)
        except ModelError as error:
            raise ModelError(error.code, f"expert {self.name!r}: {error.message}", error.hint) from None
        return Pupil(self.name, train, valid, self.train_tasks, self.valid_tasks)

    def typical_length(self, base: BaseModel) -> int | None:
        """Tell how long the rows of its batches are: they are padded to the longest.

        None for data that this base can't be given, which is said when the job runs.
        """
        try:
            rows = base.encode(self.train[:200], quiet=True)
        except ModelError:
            return None
        return sorted(map(len, rows))[len(rows) * 3 // 4]

    def write(
        self, stage: Path, kind: LoRA, weights: Mapping[str, LowRankWeights], curve: Curve, base: BaseModel
    ) -> dict[str, Any]:
        """Write one expert's PEFT files and metrics.jsonl; give the provenance's fields."""
        write_weights(stage, kind, weights, base_name=base.name)
        return self.write_facts(stage, curve)

    def write_copy(self, expert: Expert, curve: Curve, stage: Path) -> dict[str, Any]:
        """Write an expert as it is, beside which something was learned; give the provenance's fields."""
        copy_adapter(expert.directory, stage)
        return self.write_facts(stage, curve)

    def write_facts(self, stage: Path, curve: Curve) -> dict[str, Any]:
        """Write metrics.jsonl beside an expert's weights; give the provenance's fields."""
        lines = [json.dumps(row, sort_keys=True) + "\n" for row in curve.rows]
        (stage / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        return {
            "tasks": self.tasks,
            "data_hash": self.data_hash,
            "builder": {k: list(v) if isinstance(v, tuple) else v for k, v in self._told_options().items()},
            "seed": self.options.seed,
            "steps": self.n_steps,
            "metrics": {"valid_loss": curve.best_loss, "best_step": float(curve.best_step)},
            "parents": self.parents,
        }


def expert_name(task: str) -> str:
    """Make a task's name an expert's: letters, digits, "_" and "-", at most 64."""
    return fitting_name(task) or "task"


def _deal(parts: Sequence[Sequence[T]], n: int) -> tuple[T, ...]:
    """Take n things from all parts in turn, so that each part is heard."""
    longest = max((len(part) for part in parts), default=0)
    return tuple(part[i] for i in range(longest) for part in parts if i < len(part))[:n]
