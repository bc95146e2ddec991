"""What a study will cost, from its plan: nothing is built, scored or written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorary.building.contract import Builder, plan_jobs
from lorary.building.estimate import estimate
from lorary.building.finetune import FullFineTuning
from lorary.building.training.job import CHARACTERS_PER_TOKEN, training_job
from lorary.model.base.base_model import BaseModel
from lorary.studies.contract import GIVEN, Build, Cell, Measure, Study, Subject
from lorary.studies.run import repeated
from lorary.tasks.example import Example


@dataclass(frozen=True)
class Cost:
    """What one library, file of scores or measure costs.

    path: where it will be, below the directory of the study. n_experts: None if that isn't known before earlier
    libraries are built. steps: optimiser steps of all its experts. tokens: passed through the base in training,
    validation left out, or read and written while it is scored.
    """

    path: str
    n_experts: int | None
    n_examples: int | None
    steps: int
    tokens: int


def foresee(
    study: Study, subject: Subject, base: BaseModel | None, base_name: str, seeds: Sequence[int] | None = None
) -> list[Cost]:
    """Foresee a study, part by part. `base`: real or in outline; None if it isn't at hand.

    Raises what the plan raises, E-OPTION for seeds that the study can't take.
    """
    return [cost for place, one in repeated(study, seeds).items() for cost in _costs(one, subject, base, place)]


def _costs(study: Study, subject: Subject, base: BaseModel | None, place: str) -> Iterator[Cost]:
    plan, below = study.plan(subject), f"{place}/" if place else ""
    for one in plan.builds:
        yield _of_build(one, subject, base, below + one.path)
    for cell in plan.cells:
        yield _of_cell(cell, base, below + cell.path)
    for measure in plan.measures:
        yield _of_measure(measure, base, below + measure.path)


def _of_build(one: Build, subject: Subject, base: BaseModel | None, path: str) -> Cost:
    if isinstance(one.builder, FullFineTuning):
        job = training_job(one.builder, "full", list(one.tasks.values()))
        return Cost(path, None, None, job.n_steps, job.n_tokens(base))
    is_known = isinstance(one.builder, Builder) and one.source in (None, GIVEN)
    builder, tasks = (one.builder, one.tasks) if is_known else one.like or (None, one.tasks)
    if not isinstance(builder, Builder):
        return Cost(path, None, None, 0, 0)
    jobs = plan_jobs(builder, tasks, subject.source if one.source == GIVEN else None)
    found = estimate(builder, jobs, base, "")
    n_experts = sum(len(job.experts) for job in jobs) if is_known else None
    return Cost(path, n_experts, None, sum(job.n_steps for job in jobs), found.tokens)


def _of_cell(cell: Cell, base: BaseModel | None, path: str) -> Cost:
    examples = [example for task in cell.tasks.values() for example in task.test[: cell.limit]]
    written = len(examples) * getattr(cell.evaluator, "max_new_tokens", 0)
    return Cost(path, None, len(examples), 0, _read(examples, base) + written)


def _of_measure(measure: Measure, base: BaseModel | None, path: str) -> Cost:
    tokens = round(measure.passes * _read(measure.examples, base))
    return Cost(path, None, len(measure.examples) or None, measure.steps, tokens)


def _read(examples: Sequence[Example], base: BaseModel | None) -> int:
    if base is None:
        return round(sum(len(e.whole_prompt) + len(e.answer) for e in examples) / CHARACTERS_PER_TOKEN)
    return sum(map(len, base.encode(examples, quiet=True)))
