"""Files and data sets -> Tasks."""

from collections.abc import Iterable

from lorary.errors import OptionError, known_names
from lorary.tasks.example import Example, short
from lorary.tasks.gather import gather
from lorary.tasks.on_disk import tasks_on_disk
from lorary.tasks.rows.files import Source, is_dataset, places_of, rows_at, rows_of
from lorary.tasks.rows.row import Answers
from lorary.tasks.task import Task, Tasks

ANSWERS = ("last", "all")


def read_tasks(
    source: Source, *, only: Iterable[str] | None = None, ignore: Iterable[str] = (), answers: Answers = "last"
) -> Tasks:
    """Read tasks from a directory, a glob, a file, hf://datasets/USER/NAME, a list of those, or a `datasets` object.

    Rows: see `lorary.tasks.rows.shapes`. A row's task is its `task` or `task_name`, else the file's name; its part is
    its `split`, else the end of the file's name ("race.train.jsonl"), else follows from a hash of the prompt
    (80/10/10), so that one prompt is never in two parts. No row is skipped: the first that can't be read raises E-DATA
    with file and line. So do fields with text that no example would hold (see `lorary.tasks.rows.unread`), with their
    counts. `only`: keep these tasks. `ignore`: fields to read as if they weren't there; "*" means all unknown ones.
    `answers`: "last" makes one example of a conversation; "all" makes one of each answer, in the same part as the last.
    Of files that hold more than 64 MiB of text, the examples stay on disk (see `lorary.tasks.on_disk`).
    Names of the Hub: see `lorary.tasks.rows.hub_rows`; they raise E-HUB.
    Parquet without pyarrow, and such names without datasets, raise E-EXTRA; an unknown name in `only` E-TASK.
    """
    ignored = _checked(ignore, answers)
    if is_dataset(source):
        rows, tasks = rows_of(source), None
    else:
        places = places_of(source)
        rows, tasks = rows_at(places), tasks_on_disk(places, ignored, answers)
    if tasks is None:
        parts: dict[str, dict[str, list[Example]]] = {}

        def keep(task: str, part: str, examples: tuple[Example, ...]) -> None:
            parts.setdefault(task, {}).setdefault(part, []).extend(examples)

        origins = gather(rows, ignored, answers, keep)
        tasks = Tasks(
            Task(name, **{part: tuple(examples) for part, examples in parts[name].items()}, origin=origin)
            for name, origin in origins.items()
        )
    return tasks if only is None else tasks.only(only)


def _checked(ignore: Iterable[str], answers: str) -> tuple[str, ...]:
    if answers not in ANSWERS:
        raise OptionError("E-OPTION", f"answers={short(answers)}.", known_names(answers, ANSWERS))
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    for name in ignored:
        if not isinstance(name, str):
            raise OptionError("E-OPTION", f"ignore holds {short(name)}, expected names of fields.")
    return ignored
