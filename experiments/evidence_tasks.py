"""Which tasks the study of evidence trains on, in which order, and which it only tests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lorary.tasks.read import read_tasks
from lorary.tasks.rows.files import rows_of
from lorary.tasks.task import Task, Tasks

UNSEEN = (
    "task033_winogrande_answer_generation",
    "task1358_xlsum_title_generation",
    "task1411_dart_subject_identification",
    "task1508_wordnet_antonyms",
    "task1557_jfleg_answer_generation",
    "task227_clariq_classification",
    "task613_politifact_text_generation",
    "task670_ambigqa_question_generation",
)
"""The eight shortest of the twelve tasks that the data sets aside for testing."""

MOST = 96
"""The most tasks to train on; those after them are kept to test on."""

MAX_CHARACTERS = 420
"""Longest median of prompt and completion of a task to train on: about 100 tokens, for a CPU's sake."""


@dataclass(frozen=True)
class StudyTasks:
    """order: the tasks to train on; a library of n experts holds the first n, so that larger ones hold smaller ones.

    Never trained on: unseen, tasks of kinds that the data sets aside; alike, the tasks after the first MOST, of the
    collections and often of the kinds of those trained on; other, tasks of another collection. english: plain
    paragraphs.
    """

    tasks: Tasks
    order: tuple[str, ...]
    unseen: Tasks
    alike: Tasks
    other: Tasks
    english: tuple[str, ...]


def read_study_tasks(data: Path) -> StudyTasks:
    """Read `data`/sni, p3, induction and zeroshot: 16 tasks of sni, 16 of p3, 16 of sni, and so on while there are any.

    Within a collection: the shortest task of each category first, then the second shortest, and so on. Categories
    take turns so that a library is not all question answering.
    """
    sni, p3 = read_tasks(data / "sni"), read_tasks(data / "p3")
    heldout = set(read_tasks(data / "sni" / "heldout.jsonl.gz"))
    first = in_turns([t for t in sni.values() if t.name not in heldout and _is_cheap(t)], _families(data / "sni"))
    second = in_turns([t for t in p3.values() if _is_cheap(t)], _families(data / "p3"))
    starts = range(0, max(len(first), len(second)), 16)
    order = tuple(name for i in starts for name in (*first[i : i + 16], *second[i : i + 16]))
    cheap = Tasks([*sni.values(), *p3.values()])
    return StudyTasks(
        tasks=cheap.only(order[:MOST]),
        order=order[:MOST],
        unseen=sni.only(UNSEEN),
        alike=cheap.only(order[MOST:]),
        other=read_tasks(data / "induction"),
        english=_paragraphs(data / "zeroshot" / "boolq.jsonl.gz"),
    )


def in_turns(tasks: Sequence[Task], family_of: Mapping[str, str]) -> list[str]:
    """Order tasks: the shortest of each family, then the second shortest of each; in each round the shortest first."""
    families: dict[str, list[str]] = {}
    length = {task.name: _length(task) for task in tasks}
    for name in sorted(length, key=lambda name: (length[name], name)):
        families.setdefault(family_of[name], []).append(name)
    rounds = {name: place for names in families.values() for place, name in enumerate(names)}
    return sorted(rounds, key=lambda name: (rounds[name], length[name], name))


def halves(names: Tasks | tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Deal names out in turn: constants are chosen on the first half and reported on the second."""
    listed = tuple(names)
    return {"choose": listed[0::2], "report": listed[1::2]}


def _paragraphs(source: Path) -> tuple[str, ...]:
    """Take the passages of a reading task, each once."""
    return tuple(dict.fromkeys(row.values["passage"] for row in rows_of(source)))


def _families(source: Path) -> dict[str, str]:
    return {row.values["task_name"]: row.values["category"] for row in rows_of(source)}


def _is_cheap(task: Task) -> bool:
    return len(task.train) >= 100 and _length(task) <= MAX_CHARACTERS


def _length(task: Task) -> float:
    return median(len(e.prompt) + len(e.completion) for e in task.train)
