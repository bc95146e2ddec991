"""How many tokens examples have: counted once for a base, since plans ask for the same examples over and over."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from lorary.model.base.base_model import BaseModel
from lorary.tasks.example import Example

_KNOWN: WeakKeyDictionary[BaseModel, dict[tuple[str, Example], int]] = WeakKeyDictionary()


def count_tokens(base: BaseModel, examples: Sequence[Example]) -> list[int]:
    """Count each example's tokens, its answer's among them. Raises E-LENGTH, E-CHAT as `BaseModel.encode`."""
    known = _KNOWN.setdefault(base, {})
    reading = f"{base.max_tokens} {base.template_options!r}"  # both may be set anew
    if new := [example for example in dict.fromkeys(examples) if (reading, example) not in known]:
        rows = base.encode(new, quiet=True)
        known.update(((reading, example), len(row)) for example, row in zip(new, rows, strict=True))
    return [known[reading, example] for example in examples]
