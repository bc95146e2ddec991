"""What a study will cost, from its plan: nothing is built, scored or written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lorary.building.contract import Builder, plan_jobs
from lorary.building.estimate import estimate
from lorary.building.finetune import FullFineTuning
from lorary.building.lengths import count_tokens
from lorary.building.training.job import CHARACTERS_PER_TOKEN, training_job
from lorary.evaluation.evaluators.choice import Choice
from lorary.model.base.base_model import BaseModel
from lorary.studies.contract import GIVEN, Build, Cell, Measure, Study, Subject
from lorary.studies.run_study import repeated
from lorary.tasks.example import Example

_SAMPLE = 200  # examples of a cell or a measure whose tokens are counted; the others' follow from their characters


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
    plan, below, reader = study.plan(subject), f"{place}/" if place else "", _Reader(base)
    for one in plan.builds:
        yield _of_build(one, subject, base, below + one.path)
    for cell in plan.cells:
        yield _of_cell(cell, reader, below + cell.path)
    for measure in plan.measures:
        yield _of_measure(measure, reader, below + measure.path)


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


def _of_cell(cell: Cell, reader: "_Reader", path: str) -> Cost:
    n, read = reader.of_cell(cell)
    return Cost(path, None, n, 0, read + n * getattr(cell.evaluator, "max_new_tokens", 0))


def _of_measure(measure: Measure, reader: "_Reader", path: str) -> Cost:
    tokens = round(measure.passes * reader.count(measure.examples))
    return Cost(path, None, len(measure.examples) or None, measure.steps, tokens)


@dataclass(frozen=True)
class _Reader:
    """Counts what of one plan is read; rows on the same examples are counted once."""

    base: BaseModel | None
    _known: dict[tuple[int, int, bool], tuple[int, int]] = field(default_factory=dict)

    def of_cell(self, cell: Cell) -> tuple[int, int]:
        """Give the number of examples, and of their tokens: of a question the prompt once, and all options."""
        choosing = isinstance(cell.evaluator, Choice)
        this = (id(cell.tasks), cell.limit, choosing)
        if this not in self._known:
            examples = [example for task in cell.tasks.values() for example in task.test[: cell.limit]]
            self._known[this] = len(examples), self.count(examples, choosing=choosing)
        return self._known[this]

    def count(self, examples: Sequence[Example], *, choosing: bool = False) -> int:
        """Count tokens, of many examples on a sample."""
        n_characters = sum(_n_characters(example, choosing=choosing) for example in examples)
        if self.base is None or not examples:
            return round(n_characters / CHARACTERS_PER_TOKEN)
        sample = examples[:: -(-len(examples) // _SAMPLE)]
        n_tokens = sum(count_tokens(self.base, sample))
        return round(n_tokens * n_characters / max(1, sum(_n_characters(example) for example in sample)))


def _n_characters(example: Example, *, choosing: bool = False) -> int:
    if choosing and example.contexts:
        return sum(len(context) + len(example.completion) for context in example.contexts)
    answers = example.choices if choosing and example.choices else (example.answer,)
    return len(example.whole_prompt) + sum(map(len, answers))
