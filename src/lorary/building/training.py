"""Options that all trained experts share, and the job that trains one."""

import json
import math
import re
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lorary.adapters.kinds.lora import LoRA
from lorary.adapters.low_rank import LowRankWeights
from lorary.adapters.peft_format import write_weights
from lorary.building.base import Builder, Job, Made, Report, check_positive
from lorary.building.train import Curve, train
from lorary.errors import BuildError
from lorary.hashing import hash_json, short_key
from lorary.model.base_model import BaseModel
from lorary.model.tokens import encode
from lorary.options import as_dict
from lorary.tasks.example import Example
from lorary.tasks.task import Task

TOKENS_PER_STEP = 512
"""A step of about this many tokens uses a CPU well; a larger one wins nothing more (measured: docs/log.md)."""


@dataclass(frozen=True, kw_only=True)
class TrainedBuilder(Builder, ABC):
    """Options of a builder that trains LoRAs.

    rank, alpha, rslora, targets: the adapter; targets are last parts of module paths, or "attention" (ATT+O).
    steps: optimiser steps per expert; None = `epochs` over its data. batch_size: examples per step.
    lr: peak learning rate; warm-up over the first `warmup` of the steps, then linear decay to 0. clip: largest norm
    of the gradient. dropout: on the adapter's input. n_evaluations: how often the validation loss is measured, on at
    most max_valid examples; the best weights are kept.
    Source: Ostapenko et al. 2024 (2405.11157) section 9 and its code's configurations: rank 4, alpha 16, lr 1e-4,
    dropout 0.05, AdamW without weight decay, warm-up 6 %, clip 0.1, 5 epochs, batch 16, ATT+O.
    Differs: clip 1.0, which small models with few steps need; batch 8.
    """

    rank: int = 4
    alpha: float = 16.0
    rslora: bool = False
    targets: tuple[str, ...] = ("attention",)
    steps: int | None = None
    epochs: float = 5.0
    batch_size: int = 8
    lr: float = 1e-4
    warmup: float = 0.06
    clip: float = 1.0
    dropout: float = 0.05
    n_evaluations: int = 4
    max_valid: int = 64
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        check_positive(self, "rank", "steps", "epochs", "batch_size", "lr", "clip", "n_evaluations", "max_valid")

    @property
    def kind(self) -> LoRA:
        """The form of the experts."""
        return LoRA(rank=self.rank, alpha=self.alpha, rslora=self.rslora)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Group jobs of equal length of run, short rows with short rows, until a step has about TOKENS_PER_STEP.

        A function of the jobs alone, so that a second call groups them as the first did.
        """
        width = {job.name: _typical_length(job, base) for job in jobs}
        packs: list[list[Job]] = []
        for job in sorted(jobs, key=lambda j: (j.n_steps, width[j.name], j.name)):
            last = packs[-1] if packs else []
            fits = last and last[0].n_steps == job.n_steps
            if fits and (len(last) + 1) * self.batch_size * width[job.name] <= TOKENS_PER_STEP:
                last.append(job)
            else:
                packs.append([job])
        return packs

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the pack."""
        jobs = [job for job in pack if isinstance(job, TrainingJob)]
        made = train(jobs, base, work, report)
        return Made({job.name: partial(_write, job, *made[job.name], base.name) for job in jobs})

    def job(self, name: str, tasks: list[Task]) -> "TrainingJob":
        """Plan one expert on the union of tasks. Raises E-DATA if there is nothing to train on."""
        examples = tuple(e for task in tasks for e in task.train)
        valid = _deal([task.valid for task in tasks], self.max_valid)
        if not examples:
            raise BuildError("E-DATA", f"expert {name!r}: its tasks have no training examples.", "Check their splits.")
        return TrainingJob(name, tuple(task.name for task in tasks), examples, valid, self)


def _write(
    job: "TrainingJob", weights: dict[str, LowRankWeights], curve: Curve, base_name: str, stage: Path
) -> dict[str, Any]:
    return job.write(stage, weights, curve, base_name)


def _typical_length(job: Job, base: BaseModel) -> int:
    assert isinstance(job, TrainingJob)
    lengths = sorted(len(row) for row in encode(base.tokenizer, job.train[:200], max_tokens=base.max_tokens))
    return lengths[len(lengths) * 3 // 4]  # rows are padded to the longest of a batch


def expert_name(task: str) -> str:
    """Make a task's name an expert's: letters, digits, "_" and "-", at most 64."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", task).strip("-_")[:64] or "task"


def _deal(parts: list[tuple[Example, ...]], n: int) -> tuple[Example, ...]:
    """Take n examples from all parts in turn, so that each part is heard."""
    longest = max((len(part) for part in parts), default=0)
    return tuple(part[i] for i in range(longest) for part in parts if i < len(part))[:n]


@dataclass(frozen=True)
class TrainingJob:
    """Train one LoRA on examples."""

    name: str
    tasks: tuple[str, ...]
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    options: TrainedBuilder

    @property
    def experts(self) -> tuple[str, ...]:
        """The one expert it makes."""
        return (self.name,)

    @property
    def n_steps(self) -> int:
        """Optimiser steps in all."""
        o = self.options
        return o.steps or math.ceil(o.epochs * len(self.train) / o.batch_size)

    @property
    def data_hash(self) -> str:
        """sha256 of all examples it sees, in order."""
        return hash_json([self.train, self.valid])

    def key(self, base_fingerprint: Mapping[str, Any]) -> str:
        """Hash of all that decides the result."""
        return short_key(self._deciding_options(), self.n_steps, self.tasks, self.data_hash, base_fingerprint)

    def _deciding_options(self) -> dict[str, Any]:
        # Which clusters there are besides its own doesn't change what this job makes.
        return {key: value for key, value in as_dict(self.options).items() if key not in ("clusters", "epochs")}

    def describe(self) -> dict[str, Any]:
        """What --dry-run prints."""
        examples = {"train": len(self.train), "valid": len(self.valid)}
        return {"expert": self.name, "tasks": list(self.tasks), "steps": self.n_steps, "examples": examples}

    def write(self, stage: Path, weights: dict[str, LowRankWeights], curve: Curve, base_name: str) -> dict[str, Any]:
        """Write the PEFT files and metrics.jsonl; give the provenance's fields."""
        write_weights(stage, self.options.kind, weights, base_name=base_name)
        lines = [json.dumps(row, sort_keys=True) + "\n" for row in curve.rows]
        (stage / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        return {
            "tasks": self.tasks,
            "data_hash": self.data_hash,
            "builder": {k: list(v) if isinstance(v, tuple) else v for k, v in self._deciding_options().items()},
            "seed": self.options.seed,
            "steps": self.n_steps,
            "metrics": {"valid_loss": curve.best_loss, "best_step": float(curve.best_step)},
        }
