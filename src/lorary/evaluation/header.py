"""What a file of a run says of how it was made: two of the same run agree in everything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorary.errors import EvaluationError


def check_same(path: Path, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a file of another run: say in what its header differs. Raises E-RUN."""
    before, now = _flat(found), _flat(wanted)
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if keys:
        shown = "; ".join(f"{key} was {_shown(before, key)}, now {_shown(now, key)}" for key in keys[:3])
        more = f" (and {len(keys) - 3} more)" if len(keys) > 3 else ""
        raise EvaluationError(
            "E-RUN",
            f"{path}: holds another run: {shown}{more}.",
            "Write to another file, or delete this one to start again.",
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {f"{prefix}{key}": inner}
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key], ensure_ascii=False) if key in flat else "absent"
