"""How large studies are: presets of options by name, which every study takes as far as it has them."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from lorary.errors import OptionError, known_names
from lorary.folder import STUDIES
from lorary.options import make, split_spec
from lorary.studies.contract import Study, Subject
from lorary.tasks.task import Tasks

Scale = Literal["tiny", "mini", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "steps": 2, "new_steps": 2, "batch_size": 2, "n_clusters": 2, "n_few": 4, "n_fit": 4, "limit": 2,
        "n_score": 2, "n_score_new": 2, "n_answer": 2, "n_answer_new": 2, "n_benchmark": 4, "max_new_tokens": 4,
        "shares": (1.0, 0.1), "epochs": 0.5, "n_pairs": 3, "k": 2, "ks": (1, 2), "dimensions": (4, 16),
    },
    "mini": {
        "steps": 20, "new_steps": 20, "batch_size": 8, "lr": 1e-3, "n_clusters": 8, "n_skills": 8, "n_few": 64,
        "n_fit": 24, "limit": 8, "n_score": 8, "n_score_new": 16, "n_answer": 4, "n_answer_new": 16,
        "n_benchmark": 100, "max_new_tokens": 24, "n_pairs": 40, "k": 8, "n_train": 48,
        "dimensions": (10, 100, 1000), "again": ("private", "mbc"),
    },
    "paper": {
        "steps": None, "new_steps": None, "epochs": 5.0, "batch_size": 16, "lr": 1e-4, "full_lr": 3e-5, "rank": 4,
        "n_clusters": 10, "k": 10, "n_skills": 8, "n_fit": 100, "limit": 1000, "n_score": 1000, "n_score_new": 1000,
        "n_answer": 1000, "n_answer_new": 1000, "n_benchmark": 20_000, "max_new_tokens": 64, "paper_training": True,
        "n_pairs": 100, "ks": (1, 5, 10, 25),
    },
}  # fmt: skip
"""Options by scale. tiny: minutes, for a check that all works; mini: on real tasks, some 40 million tokens of training
and half as many of scoring, ten hours of two cores that multiply in bfloat16; paper: its own settings, for GPUs."""
N_TASKS: Mapping[str, tuple[int, int]] = {"tiny": (4, 2), "mini": (48, 12), "paper": (256, 12)}
"""Tasks to train on and to hold out, at most."""
SEEDS: Mapping[str, Sequence[int]] = {"mini": (42, 43, 44)}
"""Seeds of the studies that claim what may be under one point; others have one."""
CLOSE = ("upstream", "zero_shot")
"""Those studies."""


def at_scale(spec: str, scale: str | None) -> Study:
    """Make a study of its spec, whose options stand over those of a scale; None: the study's own defaults.

    Raises E-NAME, E-OPTION, as for a scale that there isn't.
    """
    name, given = split_spec(spec)
    cls = STUDIES.load(name)
    preset = {} if scale is None else _preset(cls, check_scale(scale))
    return make(cls, {**preset, **given}, called=name)  # type: ignore[no-any-return]


def _preset(cls: type[Study], scale: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    found = {**OPTIONS[scale], **getattr(cls, "presets", {}).get(scale, {})}
    return {key: value for key, value in found.items() if key in known and _may_be(value, known[key])}


def _may_be(value: Any, hint: Any) -> bool:
    """Tell whether an option takes a value: steps that follow from the epochs, not all can have."""
    return value is not None or type(None) in typing.get_args(hint)


def check_scale(scale: str) -> str:
    """Refuse a scale that there isn't. Raises E-OPTION."""
    if scale not in SCALES:
        raise OptionError("E-OPTION", f"scale={scale!r}.", known_names(scale, list(SCALES)))
    return scale


def seeds_at(name: str, scale: str | None) -> Sequence[int] | None:
    """Give the seeds that a study is repeated with at a scale; None: its own one."""
    return SEEDS.get(scale or "") if name in CLOSE else None


def cut_to(subject: Subject, scale: str | None) -> Subject:
    """Keep as many tasks as a scale has, spread over all of them in the order of their names."""
    if scale is None:
        return subject
    n_own, n_new = N_TASKS[check_scale(scale)]
    return dataclasses.replace(subject, tasks=_spread(subject.tasks, n_own), heldout=_spread(subject.heldout, n_new))


def _spread(tasks: Tasks, n: int) -> Tasks:
    names = list(tasks)
    if len(names) <= n:
        return tasks
    return tasks.only(names[place * len(names) // n] for place in range(n))
