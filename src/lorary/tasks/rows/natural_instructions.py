"""Tasks as Super-NaturalInstructions publishes them: a JSON file a task, its definition beside its instances."""

from collections.abc import Mapping
from typing import Any

from lorary.errors import TaskError

_TEXTS = ("Positive Examples", "Negative Examples")
"""What a task says besides; all else describes where it comes from and of which kind it is."""


def is_task(content: Mapping[str, Any]) -> bool:
    """Tell such a file from another object of JSON."""
    return isinstance(content.get("Instances"), list) and "Definition" in content


def rows_of_task(content: Mapping[str, Any], where: str) -> list[Any]:
    """Give each instance the task's definition; further definitions and the examples stay fields that aren't read.

    Raises E-DATA for a definition that is no text.
    """
    definition = content["Definition"]
    first, *others = definition if isinstance(definition, list) and definition else [definition]
    if not isinstance(first, str):
        what = f"{where}: 'Definition' must be a text or a list of texts, found {type(first).__name__}."
        raise TaskError("E-DATA", what, "Fix the file.")
    told = {"definition": first, "Definition": others, **{name: content.get(name) for name in _TEXTS}}
    instances = content["Instances"]
    return [{**told, **row} if isinstance(row, Mapping) else row for row in instances]
