"""Task and part of rows, from the name of their file."""

import re
from pathlib import Path, PurePath

PARTS = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
# "race.train", "train", and the Hub's "train-00000-of-00002"
_PART_SUFFIX = re.compile(rf"^(?:(?P<name>.*)\.)?(?P<part>{'|'.join(PARTS)})(?:-\d+-of-\d+)?$")
# "train", "train[:10%]", "train_sft"; "train+test" is of no part
_SPLIT = re.compile(rf"^(?P<part>{'|'.join(sorted(PARTS, key=len, reverse=True))})(?:[_\[][^+]*)?$")


def name_and_part(path: PurePath, suffixes: tuple[str, ...]) -> tuple[str, str | None]:
    """Read "race.train.jsonl" as task "race", part "train"; a file "train.jsonl" is of the task of its folder."""
    suffix = next(s for s in sorted(suffixes, key=len, reverse=True) if path.name.endswith(s))
    stem = path.name.removesuffix(suffix)
    match = _PART_SUFFIX.match(stem)
    if match is None:
        return stem, None
    return match["name"] or _folder(path), PARTS[match["part"]]


def _folder(path: PurePath) -> str:
    return (path.absolute() if isinstance(path, Path) else path).parent.name


def part_of_split(split: str) -> str | None:
    """Say which part a data set's split is: "train", "validation", "train[:10%]", "test_sft"; None for any other."""
    match = _SPLIT.match(split)
    return PARTS[match["part"]] if match else None
