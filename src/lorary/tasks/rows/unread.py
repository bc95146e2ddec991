"""The fields of a row that aren't read: text in them is an error, unless it is a name or note about the row.

A field is read if its shape reads it, if all rows may have it (`task`, `split`, `choices`, `tests`), or if its text
stands whole in the example that was made. Of the others:

- numbers, dates, truth values and what is empty are left out;
- so are the notes in `NOTES`, and names that end as in `NOTE_ENDS`, as long as they are short or hold no blanks;
- all else is text that would be lost, and is refused unless the reader said to leave it.

What is left out is counted by field, for `look`.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from typing import Any

from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.shapes import Shape
from lorary.tasks.rows.turns import TURN_FIELDS

OF_ALL_SHAPES = frozenset(("task", "task_name", "split", "choices", "tests"))
_NOTES = (
    "_template author canary categories category config created created_at creator data_source dataset dataset_name "
    "date difficulty domain file file_name filename format generator group hash href id ids idx index key lang "
    "language languages level licence license link links locale md5 meta metadata model model_name name origin origins "
    "paper_category paper_task path prompt_name provenance quality rating row_id score sha256 source sources "
    "subject subset subtask tag tags template template_name template_type timestamp topic topics type uid "
    "updated_at uri uris url urls user uuid version"
)
NOTES = frozenset(_NOTES.split())
"""Names that data sets give to notes about a row: its author, date, origin and kind."""
NOTE_ENDS = ("_hash", "_id", "_ids", "_idx", "_index", "_key", "_lang", "_path", "_source", "_type", "_uri", "_url")
LONGEST_NOTE = 200
_SHOWN = 12  # of many fields, in a sentence
_UNNAMED = re.compile(r"(unnamed: \d+)?")  # the column of row numbers that pandas writes
_NUMBER = re.compile(r"\s*([-+]?(\d+([.,]\d+)*|\.\d+)([eE][-+]?\d+)?%?|true|false|nan|null|none)?\s*", re.IGNORECASE)


def unread_of(row: Row, shape: Shape, example: Example) -> dict[str, bool]:
    """List the fields of a row that aren't in the example that was made of it -> whether that loses text."""
    known = OF_ALL_SHAPES.union(shape.fields)
    found = {}
    for name, value in (*row.values.items(), *_in_turns(row, shape)):
        name = str(name)
        if name in known or value is None:
            continue
        if _is_note(name, value):
            found[name] = False
        elif not (isinstance(value, str) and _stands_in(example, value.strip())):
            found[name] = holds_text(value)
    return found


def _stands_in(example: Example, text: str) -> bool:
    whole = (example.prompt + example.completion, example.whole_prompt, *example.answers)
    return any(text in part for part in whole)


def _in_turns(row: Row, shape: Shape) -> Iterator[tuple[str, Any]]:
    """Go through what turns hold besides what is read of them, by names as "messages[].weight"."""
    for field in shape.needs:
        turns = row.values.get(field)
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, Mapping):
                yield from ((f"{field}[].{key}", turn[key]) for key in turn if key not in TURN_FIELDS)


def _is_note(name: str, value: Any) -> bool:
    name = name.rpartition("[].")[2].lower()
    named = name in NOTES or name.endswith(NOTE_ENDS) or _UNNAMED.fullmatch(name) is not None
    return named and all(len(text) <= LONGEST_NOTE or not re.search(r"\s", text) for text in _texts_in(value))


def holds_text(value: object) -> bool:
    """Tell whether a value holds words, or what could: pictures and sounds too, but no numbers and nothing empty."""
    return any(_NUMBER.fullmatch(text) is None for text in _texts_in(value))


def _texts_in(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif value is not None and not isinstance(value, (bool, int, float, complex, date, time, timedelta)):
            yield f"a {type(value).__name__}"  # bytes, a picture: more than a number


def in_words(counts: Mapping[str, int]) -> str:
    """Write counts by field: "'id' (800 rows), 'url' (12 rows)"."""
    shown = [f"{name!r} ({n:,} row{'s' if n != 1 else ''})" for name, n in list(counts.items())[:_SHOWN]]
    more = len(counts) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
