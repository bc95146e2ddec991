"""The format on disk, version 1. This file is the only one that knows paths inside a library.

    mylib/
      library.json       schema_version, base (fingerprint or null), created_by, experts (a summary, never read back)
      README.md          model card, generated after changes while it carries our mark
      experts/<name>/    adapter_config.json  adapter_model.safetensors  expert.json: a plain PEFT adapter directory
                         metrics.jsonl, how its training went; chat_template.jinja, if one came with it
      derived/           <kind>-<key>.<suffix>: rebuildable, named by the hash of their origins and by who made them
      learned/           <kind>-<key>.<suffix>: not rebuildable without data; never collected
      .work/             what a build that isn't done keeps there: see work/worklist.py
      .staging/          <name>.<mark of the writer>/: adapters on their way in or out; garbage once the writer is dead

The directories are the truth, library.json is a note about them: a writer may be killed between the two, and nothing
has to be mended. An expert arrives by one rename of its whole directory, so it is there whole or not at all, and the
first writer of a name wins without a lock. No file is ever written over: a reader may have it mapped. None of these
directories may be a link: what is written and deleted stays in the library, whoever made it.

A directory that others made opens too, read-only: one with experts/ but no library.json, or one whose subdirectories
are PEFT adapters.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lorary.disk.processes import WORK
from lorary.disk.reading import near_path, require_plain_directory
from lorary.errors import LibraryError, OptionError, quote

SCHEMA_VERSION = 1
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
PROVENANCE = "expert.json"
METRICS = "metrics.jsonl"
EXPERTS = "experts"
MODEL = "model.json"
MANIFEST = "library.json"
CARD = "README.md"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PEFT_WORDS = {"lora", "weight", "default", "base"}
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Layout:
    """Where things are in one library directory. `is_ours` is False for a directory that others made."""

    root: Path
    is_ours: bool = True

    @property
    def manifest(self) -> Path:
        """The note: library.json."""
        return self.root / MANIFEST

    @property
    def card(self) -> Path:
        """The model card."""
        return self.root / CARD

    @property
    def experts(self) -> Path:
        """The parent of the adapter directories."""
        nested = self.root / EXPERTS
        return nested if self.is_ours or nested.is_dir() else self.root

    @property
    def derived(self) -> Path:
        """What can be rebuilt."""
        return self.root / "derived"

    @property
    def learned(self) -> Path:
        """What can't be rebuilt without data."""
        return self.root / "learned"

    @property
    def staging(self) -> Path:
        """Adapters on their way in or out."""
        return self.root / ".staging"

    @property
    def work(self) -> Path:
        """What a build that isn't done keeps."""
        return self.root / WORK

    def require_plain(self) -> None:
        """Raise E-PATH if one of these folders is a link or a file: before anything is written or deleted there."""
        for folder in (self.experts, self.derived, self.learned, self.staging, self.work):
            require_plain_directory(folder)

    def expert(self, name: str) -> Path:
        """The directory of one expert. Raises E-NAME for a name that could lead elsewhere."""
        check_name(name)
        return self.experts / name

    def expert_names(self) -> list[str]:
        """List what claims to be an expert, sorted: every visible directory (or link) where experts live.

        Beside strangers' adapters other directories may stand, so there it must hold an adapter's file.
        """
        try:
            with os.scandir(self.experts) as entries:  # which asks the disk once for all: a library may hold thousands
                names = [e.name for e in entries if not e.name.startswith(".") and (e.is_dir() or e.is_symlink())]
        except (FileNotFoundError, NotADirectoryError):
            return []
        if self.experts == self.root:
            names = [name for name in names if is_adapter(self.experts / name)]
        return sorted(names)


def is_adapter(directory: Path) -> bool:
    """Tell whether a directory looks like a PEFT adapter, sound or not."""
    return any((directory / file).exists() for file in (CONFIG, WEIGHTS, PICKLE))


def is_saved_model(directory: Path) -> bool:
    """Tell whether a directory holds a saved model, whose copied experts open as a library too."""
    return (directory / MODEL).is_file()


def inner_adapters(directory: Path) -> list[str]:
    """List the adapters in folders of an adapter's own directory, where PEFT puts all but the one called "default"."""
    if not directory.is_dir() or directory.is_symlink():
        return []
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return sorted(name for name in names if is_adapter(directory / name))


def place_of(named: Path) -> Path | None:
    """Find the directory that LIBRARY/EXPERT means, sound or not; None for a path that stands for itself."""
    experts = named.parent / EXPERTS
    return experts / named.name if not named.exists() and experts.is_dir() else None


def find_layout(path: Path) -> Layout:
    """Recognise a library, ours or others'. Raises E-LIBRARY, which says what the path is instead."""
    name = quote(path.name)
    if not path.is_dir():
        what = f"there is no directory {quote(str(path), 200)}."
        raise LibraryError("E-LIBRARY", what, near_path(path) or "Check the path.")
    if (path / MANIFEST).exists():
        return Layout(path)
    if is_adapter(path):
        others = inner_adapters(path)
        what = f"{len(others) + 1} adapters, one in another," if others else "one adapter,"
        raise LibraryError("E-LIBRARY", f"{name} is {what} not a library.", f"`lorary add LIBRARY {path}` makes one.")
    layout = Layout(path, is_ours=False)
    if not layout.expert_names():
        hint = "A library has library.json; a folder of PEFT adapters opens too."
        raise LibraryError("E-LIBRARY", f"{name} is not a library: no library.json, no adapters in it.", hint)
    return layout


def home_of(expert: Path) -> Layout:
    """Find the library that an expert's directory stands in, sound or not: where what was learned with it would be."""
    parent = expert.parent
    root = parent.parent if parent.name == Layout(parent).experts.name else parent
    return Layout(root, is_ours=(root / MANIFEST).exists())


def check_name(name: str) -> None:
    """Raise E-NAME unless `name` is safe as a directory, a module name, a URL part and a PEFT adapter name."""
    if not _NAME.fullmatch(name):
        near = f" {quote(fitting_name(name))} would do." if fitting_name(name) else ""
        hint = f"Use 1 to 64 letters (A-Z, a-z), digits, _ or -, starting with a letter or digit.{near}"
        raise OptionError("E-NAME", f"expert name {quote(name)} is refused.", hint)
    if name.lower() in _PEFT_WORDS:
        raise OptionError("E-NAME", f"expert name {quote(name)} is reserved: it occurs inside PEFT's tensor keys.")
    if name.lower() in _DEVICES:
        raise OptionError("E-NAME", f"expert name {quote(name)} is reserved: it is a device on Windows.")


def is_name(name: str) -> bool:
    """Tell whether `name` is made as experts' are."""
    return _NAME.fullmatch(name) is not None


def fitting_name(text: str) -> str:
    """Make the nearest name of an expert: letters, digits, "_" and "-", at most 64; empty if nothing is left."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64]


def check_free(name: str, taken: Iterable[str]) -> None:
    """Raise E-NAME for a bad name, E-EXISTS for one that is taken, or that differs from one only by case."""
    check_name(name)
    twins = [other for other in taken if other.lower() == name.lower()]
    if name in twins:
        raise LibraryError(
            "E-EXISTS", f"expert {quote(name)} exists already.", "Choose another name, or replace it (--replace)."
        )
    if twins:
        message = (
            f"expert {quote(name)} differs from {quote(twins[0])} only by case, which some disks can't tell apart."
        )
        raise LibraryError("E-EXISTS", message, "Choose another name.")
