"""Exams of metrics and tasks, as benchmarks are of themselves."""

from collections.abc import Mapping, Sequence

from lorary.evaluation.benchmarking.contract import Exam
from lorary.evaluation.contract import Evaluator
from lorary.folder import EVALUATORS
from lorary.options import require, require_each, to_spec
from lorary.tasks.task import Tasks


def as_exams(given: Sequence[Evaluator | Exam | str] | Mapping[str, Exam], tasks: Tasks | None) -> tuple[Exam, ...]:
    """Take exams, and make others of metrics, or their specs, and `tasks`. Raises E-OPTION, E-NAME."""
    given = tuple(given.values()) if isinstance(given, Mapping) else given
    found = tuple(EVALUATORS.parse(one) if isinstance(one, str) else one for one in given)
    require_each("evaluators", found, (Evaluator, Exam), "metrics, as RougeL(), or exams")
    exams = []
    for one in found:
        if isinstance(one, Evaluator):
            require("tasks", tasks, Tasks, "tasks", "read_tasks(path) reads them.")
            assert tasks is not None
            one = Exam(to_spec(one), one, tasks)
        exams.append(one)
    return tuple(exams)
