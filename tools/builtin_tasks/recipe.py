"""What a recipe is, and how its drafts become the rows of a task.

Only the standard library's seeded `random` is used: no data package, whose next release would change the bytes.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SIZES = {"train": 220, "valid": 30, "test": 50}


@dataclass(frozen=True)
class Draft:
    """One example before the split; all drafts with one `key` (a fact, a person, a sentence) go to one part."""

    prompt: str
    completion: str
    key: str


@dataclass(frozen=True)
class Recipe:
    """One task: what it is, how it's made, and the function that makes more drafts than are needed."""

    name: str
    kind: str
    what: str
    how: str
    draft: Callable[[random.Random], list[Draft]]


Row = dict[str, str]


def rows_of(recipe: Recipe) -> list[Row]:
    """Make the rows of a task, the same at every run; no prompt and no key stands in two parts."""
    chance = random.Random(f"lorary builtin {recipe.name}")
    by_key: dict[str, dict[str, Draft]] = {}
    for draft in recipe.draft(chance):
        by_key.setdefault(draft.key, {}).setdefault(draft.prompt, draft)
    keys = _mixed(chance, by_key)
    rows: list[Row] = []
    for part, size in SIZES.items():
        found: list[Row] = []
        while len(found) < size:
            for draft in by_key[keys.pop()].values():
                found.append(
                    {"task": recipe.name, "split": part, "prompt": f"{draft.prompt} ", "completion": draft.completion}
                )
        chance.shuffle(found)
        rows += found[:size]
    return rows


def _mixed(chance: random.Random, by_key: dict[str, dict[str, Draft]]) -> list[str]:
    """Shuffle the keys; where answers are labels, so that each stretch holds the labels in about equal shares."""
    keys = sorted(by_key)
    chance.shuffle(keys)
    by_label: dict[str, list[str]] = {}
    for key in keys:
        by_label.setdefault(next(iter(by_key[key].values())).completion, []).append(key)
    if len(by_label) > 8:
        return keys
    place = {key: (i + 0.5) / len(same) for same in by_label.values() for i, key in enumerate(same)}
    return sorted(keys, key=place.__getitem__)


def filled(chance: random.Random, template: str, **slots: Sequence[str]) -> str:
    """Fill a template's slots, each with one of its words."""
    return template.format(**{slot: chance.choice(words) for slot, words in slots.items()})


def spread(chance: random.Random, items: Sequence[str], n: int) -> list[str]:
    """Draw n items so that each comes about equally often."""
    drawn: list[str] = []
    while len(drawn) < n:
        drawn += chance.sample(items, len(items))
    return drawn[:n]
