"""The unit of a builder's work that trains."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.building.lengths import count_tokens
from lorary.building.training.curve import Curve
from lorary.building.training.options import TrainingOptions
from lorary.building.training.trainable import Pupil
from lorary.errors import ModelError, TaskError
from lorary.formats.peft import write_weights
from lorary.hashing import hash_json, short_key
from lorary.library.adapter.expert import Expert, copy_adapter
from lorary.library.adapter.provenance import write_metrics
from lorary.library.layout import fitting_name
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.text.encoded_rows import encode_rows
from lorary.options import as_dict
from lorary.tasks.example import Example
from lorary.tasks.joined import chosen, joined
from lorary.tasks.task import Task

CHARACTERS_PER_TOKEN = 4.0
"""For English and usual vocabularies; only where no tokenizer is at hand, and then said so."""
_SAMPLE = 200  # examples whose length is measured
_ROUNDING = ("pack_tokens", "pass_tokens")
_NOT_DECIDING = ("clusters", "epochs", *_ROUNDING)


@dataclass(frozen=True)
class TrainingJob:
    """Train one expert, or several jointly, on examples; train_tasks and valid_tasks number the task of each.

    made: the experts, if they aren't one of the job's name. start: names of experts of `source` that it starts from.
    """

    name: str
    tasks: tuple[str, ...]
    train: Sequence[Example]
    valid: Sequence[Example]
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

    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result."""
        parts = [self._deciding_options(), self.n_steps, self.tasks, self.data_hash, base_facts]
        return short_key(*parts, self.experts, self.parents)

    def _deciding_options(self) -> dict[str, Any]:
        # Neither the clusters besides its own nor the jobs that share its pack change what this job makes.
        return {key: value for key, value in as_dict(self.options).items() if key not in _NOT_DECIDING}

    def _told_options(self) -> dict[str, Any]:
        options = as_dict(self.options)
        return self._deciding_options() | {key: options[key] for key in _ROUNDING if key in options}

    def describe(self) -> dict[str, object]:
        """What --dry-run prints."""
        examples = {"train": len(self.train), "valid": len(self.valid)}
        return {"expert": self.name, "tasks": list(self.tasks), "steps": self.n_steps, "examples": examples}

    def n_tokens(self, base: BaseModel | None) -> int:
        """Count the tokens that it passes through the base, from the mean length of examples of all its tasks."""
        sample = self.train[:: -(-len(self.train) // _SAMPLE)]
        if base is None:
            characters = sum(len(example.whole_prompt) + len(example.answer) for example in sample)
            length = characters / CHARACTERS_PER_TOKEN / len(sample)
        else:
            length = sum(count_tokens(base, sample)) / len(sample)
        return round(self.n_steps * self.n_rows * length)

    def pupil(self, base: BaseModel) -> Pupil:
        """Encode its data. Raises E-LENGTH and E-CHAT as `encode`."""
        parts = (self.train, self.valid)
        try:
            train, valid = (encode_rows(base, part) for part in parts)
        except ModelError as error:
            raise error.reworded(f"expert {self.name!r}: {error.message}", error.hint) from None
        return Pupil(self.name, train, valid, self.train_tasks, self.valid_tasks)

    def typical_length(self, base: BaseModel) -> int | None:
        """Tell how long the rows of its batches are: they are padded to the longest.

        None for data that this base can't be given, which is said when the job runs.
        """
        try:
            lengths = count_tokens(base, self.train[:_SAMPLE])
        except ModelError:
            return None
        return sorted(lengths)[len(lengths) * 3 // 4]

    def write(
        self, stage: Path, kind: LoRA, weights: Mapping[str, Weights], curve: Curve, base: BaseModel
    ) -> dict[str, object]:
        """Write one expert's PEFT files and metrics.jsonl; give the provenance's fields."""
        write_weights(stage, kind, weights, base_name=base.name)
        return self.write_facts(stage, curve)

    def write_copy(self, expert: Expert, curve: Curve, stage: Path) -> dict[str, object]:
        """Write an expert as it is, beside which something was learned; give the provenance's fields."""
        copy_adapter(expert.directory, stage)
        return self.write_facts(stage, curve)

    def write_facts(self, stage: Path, curve: Curve) -> dict[str, Any]:
        """Write metrics.jsonl beside an expert's weights; give the provenance's fields."""
        write_metrics(stage, curve.rows)
        return {
            "tasks": self.tasks,
            "data_hash": self.data_hash,
            "builder": {k: list(v) if isinstance(v, tuple) else v for k, v in self._told_options().items()},
            "seed": self.options.seed,
            "steps": self.n_steps,
            "metrics": {"valid_loss": curve.best_loss, "best_step": float(curve.best_step)},
            "parents": self.parents,
        }


def training_job(options: TrainingOptions, name: str, tasks: Sequence[Task], **more: Any) -> TrainingJob:
    """Plan one job on the union of tasks. Raises E-DATA if there is nothing to train on."""
    train = joined([task.train for task in tasks])
    dealt = _deal([len(task.valid) for task in tasks], options.max_valid)
    if not train:
        raise TaskError("E-DATA", f"expert {name!r}: its tasks have no training examples.", "Check their splits.")
    return TrainingJob(
        name,
        tuple(task.name for task in tasks),
        train,
        chosen([task.valid for task in tasks], [row for _, row in dealt]),
        options,
        train_tasks=tuple(i for i, task in enumerate(tasks) for _ in range(len(task.train))),
        valid_tasks=tuple(i for i, _ in dealt),
        **more,
    )


def expert_name(task: str) -> str:
    """Make a task's name an expert's: letters, digits, "_" and "-", at most 64."""
    return fitting_name(task) or "task"


def _deal(sizes: Sequence[int], n: int) -> list[tuple[int, int]]:
    """Take n rows from all parts in turn, so that each part is heard: (part, row, counted over all parts)."""
    starts = [0, *itertools.accumulate(sizes)]
    turns = ((part, starts[part] + i) for i in range(max(sizes, default=0)) for part, m in enumerate(sizes) if i < m)
    return list(itertools.islice(turns, n))
