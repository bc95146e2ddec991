"""Which of the tasks that the user names are trained on, which are held out, and which benchmarks are scored."""

from collections.abc import Mapping, Sequence
from typing import Any

from lorary.errors import OptionError, TaskError
from lorary.evaluation.benchmarking.read import ALL, read_benchmarks
from lorary.library.library import Library
from lorary.studies.contract import Benchmark, Subject
from lorary.tasks.builtin import builtin_heldout, builtin_tasks
from lorary.tasks.read import read_tasks
from lorary.tasks.rows.files import Source
from lorary.tasks.task import Tasks


def choose_tasks(
    source: str | None, heldout: Sequence[str], only: Sequence[str], reading: Mapping[str, Any] | None = None
) -> tuple[Tasks, Tasks]:
    """Choose the tasks to train on and those to hold out. Raises E-TASK for an unknown name."""
    if source is None:
        found = Tasks([*builtin_tasks().values(), *builtin_heldout().values()])
        heldout = heldout or list(builtin_heldout())
    else:
        found = read_tasks(source, **(reading or {}))
    if only:
        found = found.only(dict.fromkeys([*only, *(name for name in heldout if source is not None)]))
        heldout = [name for name in heldout if name in found]
    held = list(found.only(heldout)) or list(found)[4::5] or list(found)[-1:]
    for name in found:
        if not found[name].test or not (name in held or found[name].train):
            raise TaskError("E-TASK", f"task {name!r} has no test or no training examples.", "Leave it out.")
    return found.only(name for name in found if name not in held), found.only(held)


def choose_subject(
    tasks: str | None,
    heldout: Sequence[str] = (),
    only: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    library: Library | None = None,
) -> Subject:
    """Choose as `choose_tasks`; with a library, what one of its experts was trained on is trained, the rest held out.

    Raises E-TASK for an unknown name.
    """
    if library is None:
        return Subject(*choose_tasks(tasks, heldout, only, reading))
    builtin = Tasks([*builtin_tasks().values(), *builtin_heldout().values()])
    found = builtin if tasks is None else read_tasks(tasks, **(reading or {}))
    found = found.only([*only, *heldout]) if only else found
    found.only(heldout)  # must be known
    owned = {task for expert in library.values() for task in expert.provenance.tasks} - {*heldout}
    trained = found.only(name for name in found if name in owned)
    return Subject(trained, found.only(name for name in found if name not in owned), library)


def choose_benchmarks(source: Source, which: Sequence[str] = ()) -> dict[str, Benchmark]:
    """Read benchmarks, by their specs; all that the directory has if none is named.

    Raises E-NAME for one that is named twice, with whatever options, since the mean would count its questions twice;
    what `read_benchmarks` raises.
    """
    exams = read_benchmarks(source, which or ALL)
    names = [name for exam in exams.values() for name in exam.tasks]
    for name in names:
        if names.count(name) > 1:
            hint = "Choose one of its forms; another goes into a run of its own."
            raise OptionError("E-NAME", f"benchmark {name!r} is given twice.", hint)
    return {name: (exam.evaluator, exam.tasks) for name, exam in exams.items()}
