"""Tasks as Super-NaturalInstructions publishes them: a JSON file a task, its definition beside its instances."""

from collections.abc import Mapping
from typing import Any

from lorary.errors import TaskError

ROWS = "Instances"
_TEXTS = ("Positive Examples", "Negative Examples")
"""What a task says besides; all else describes where it comes from and of which kind it is."""


def is_task(content: Mapping[str, Any]) -> bool:
    """Tell such a file from another object of JSON."""
    return isinstance(content.get(ROWS), list) and "Definition" in content


def said_of_all(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Give what the task says of each of its instances; of that, further definitions and the examples aren't read.

    Raises E-DATA for a definition that is no text.
    """
    definition = content["Definition"]
    first, *others = definition if isinstance(definition, list) and definition else [definition]
    if not isinstance(first, str):
        what = f"{where}: 'Definition' must be a text or a list of texts, found {type(first).__name__}."
        raise TaskError("E-DATA", what, "Fix the file.")
    return {"definition": first, "Definition": others, **{name: content.get(name) for name in _TEXTS}}
