"""What a study measured, as a file: made once, and read again only as what it was made from.

A file holds one JSON object: format; origin, by which a file of another run is told; found, what was measured.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lorary.disk.reading import open_file
from lorary.disk.strict_json import parse_object
from lorary.disk.writing import ELSEWHERE, disk_errors, write_whole
from lorary.errors import EvaluationError
from lorary.hashing import hash_json
from lorary.studies.contract import Bench, Measure

FORMAT = 1


def kept(measure: Measure, bench: Bench, into: Path) -> Any:
    """Read what was measured, or measure it and keep it; `into` is the directory of the run.

    Raises E-RUN for a file that holds something else, E-EVAL if what was measured is no finite number, what `compute`
    raises, E-DISK, E-PERM.
    """
    path, origin = into / measure.path, _origin(measure, bench)
    if (data := _data(path)) is not None:
        return _read(data, path, measure.form, origin)
    data = _written(measure.compute(bench), path, measure.form, origin)
    with disk_errors(repr(str(path)), ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return _read(data, path, measure.form, origin)  # the same, whether it was just made or not


def read_kept(measure: Measure, into: Path) -> Any:
    """Read what was measured and checked before. Raises E-RUN for a file that isn't there or holds something else."""
    path = into / measure.path
    if (data := _data(path)) is None:
        raise EvaluationError("E-RUN", f"{path}: no such file.", "Run the study again.")
    return _read(data, path, measure.form, None)


def _origin(measure: Measure, bench: Bench) -> dict[str, Any]:
    """Give all that decides what is measured, as plain JSON."""
    origin = {
        "options": dict(measure.options),
        "base": bench.base.identity,
        "libraries": {path: bench.libraries[path].hash for path in measure.libraries},
        "tasks": {name: hash_json(task)[:16] for name, task in measure.tasks.items()},
        "after": {path: hash_json(bench.measured[path])[:16] for path in measure.after},
    }
    plain: dict[str, Any] = json.loads(json.dumps(origin))  # tuples become lists, as a file gives them back
    return plain


def _written(found: Any, path: Path, form: type, origin: Mapping[str, Any]) -> bytes:
    assert isinstance(found, form), f"{path.name}: {type(found).__name__}, expected {form.__name__}"
    adapter: TypeAdapter[Any] = TypeAdapter(form)
    plain = adapter.dump_python(found)
    try:
        text = json.dumps({"format": FORMAT, "origin": origin, "found": plain}, ensure_ascii=False, allow_nan=False)
    except ValueError:
        hint = "Look for NaN in the experts' weights (`lorary show`), or load the base in a wider dtype."
        raise EvaluationError("E-EVAL", f"{path}: what was measured is not a finite number.", hint) from None
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _data(path: Path) -> bytes | None:
    try:
        with disk_errors(repr(str(path)), ELSEWHERE), open_file(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EvaluationError("E-RUN", f"{path}: {error.strerror}.", "Remove it; run again.") from None


def _read(data: bytes, path: Path, form: type, origin: Mapping[str, Any] | None) -> Any:
    try:
        content = parse_object(data, str(path), "E-RUN")
    except EvaluationError as error:
        raise error.reworded(error.message, "Delete it; run again.") from None
    if content.keys() != {"format", "origin", "found"} or content["format"] != FORMAT:
        raise EvaluationError("E-RUN", f"{path}: no file of a measure, format {FORMAT}.", "Delete it; run again.")
    if origin is not None and content["origin"] != origin:
        differing = ", ".join(_differing(content["origin"], origin))
        hint = "Write to another directory, or delete this file to measure anew."
        raise EvaluationError("E-RUN", f"{path}: holds another measure: other {differing}.", hint)
    try:
        return TypeAdapter(form).validate_json(json.dumps(content["found"]), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("found", *first["loc"])))
        message = f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}."
        raise EvaluationError("E-RUN", message, "Delete it; run again.") from None


def _differing(before: Any, now: Mapping[str, Any]) -> list[str]:
    known = before if isinstance(before, dict) else {}
    return [key for key in now if known.get(key) != now[key]] or ["entries"]
