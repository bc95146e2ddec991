"""Library: experts on disk, as a mapping. See `layout` for the format and for what a crash can leave behind."""

import contextlib
import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lorary.disk.reading import identity, require_plain_directory
from lorary.disk.writing import ELSEWHERE, check_writable, code_of, disk_errors, need_space, write_whole
from lorary.errors import LibraryError, known_names, listed, quote
from lorary.hashing import hash_file
from lorary.library import staging
from lorary.library.adapter.check import BaseFacts
from lorary.library.adapter.config import config_bytes, neutralised
from lorary.library.adapter.expert import Expert, copy_adapter, hash_experts, read_expert
from lorary.library.adapter.findings import raise_errors
from lorary.library.adapter.numbers import check_numbers
from lorary.library.adapter.provenance import Provenance, read_provenance, require_same_base
from lorary.library.card import write_card
from lorary.library.layout import CONFIG, PROVENANCE, WEIGHTS, Layout, check_free, find_layout
from lorary.library.manifest import Manifest, read_manifest, this_version, write_manifest
from lorary.library.notes import Notes

_MANY = 20
_MOST_READS = 8  # of one expert, if others replace it again and again


class UnknownExpertError(LibraryError, KeyError):
    """No expert of that name; also a KeyError, so that `in` and `get` behave as for any mapping."""

    __str__ = Exception.__str__  # KeyError would show the sentence quoted


class Library(Mapping[str, Expert]):
    """Experts by name, sorted, as they were on disk when it was opened, with its own changes since.

    Other writers' changes show after opening again. `bad` names the experts that could not be read, and why; it is
    empty unless the library was opened with `skip_bad=True`.
    """

    def __init__(
        self, layout: Layout, manifest: Manifest, experts: Mapping[str, Expert], bad: Mapping[str, str]
    ) -> None:
        self._layout = layout
        self._manifest = manifest
        self._experts = dict(experts)
        self._notes = Notes(self._write_notes)
        self._is_clean = False
        self.bad = dict(bad)

    @classmethod
    def open(cls, path: Path | str, *, skip_bad: bool = False) -> "Library":
        """Open a library, or a directory of PEFT adapters that others made (read-only). Writes nothing, takes no lock.

        Raises LibraryError: E-LIBRARY, E-SCHEMA, E-PATH when its experts are elsewhere, and whatever is wrong with the
        first bad expert.
        """
        layout = find_layout(Path(path).absolute())
        if layout.experts != layout.root:
            require_plain_directory(layout.experts)
        manifest = read_manifest(layout) if layout.is_ours else Manifest(None, "")
        experts, bad = _read_experts(layout, manifest.base, {})
        if bad and not skip_bad:
            raise _first_bad(bad, layout)
        return cls(layout, manifest, experts, {name: str(caught) for name, caught in bad.items()})

    @classmethod
    def create(cls, path: Path | str, *, base: Mapping[str, Any] | None = None, exist_ok: bool = False) -> "Library":
        """Make an empty library for one base (its fingerprint); with `exist_ok`, open the one that is there.

        Raises LibraryError: E-EXISTS, E-BASE when the one that is there has another base, E-PATH, E-PERM, E-DISK.
        """
        layout = Layout(Path(path).absolute())
        if layout.manifest.exists() and exist_ok:
            library = cls.open(layout.root)
            require_same_base(base, library.base, layout.root.name)
            library._require_writable()
            return library
        try:
            _check_empty(layout)
        except LibraryError:
            if exist_ok and layout.manifest.exists():  # another process made it since we looked
                return cls.create(path, base=base, exist_ok=True)
            raise
        manifest = Manifest(dict(base) if base is not None else None, this_version())
        layout.require_plain()
        with disk_errors(f"library {quote(layout.root.name)}", ELSEWHERE):
            layout.experts.mkdir(parents=True, exist_ok=True)
            write_manifest(layout, manifest, [])
        return cls.open(layout.root)

    # ---- the mapping ----------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Expert:
        if name not in self._experts:
            raise UnknownExpertError("E-NAME", f"unknown expert {quote(name)}.", _near(name, list(self._experts)))
        return self._experts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._experts)

    def __len__(self) -> int:
        return len(self._experts)

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r}, {len(self)} experts)"

    @property
    def path(self) -> Path:
        """The library's directory, absolute."""
        return self._layout.root

    @property
    def layout(self) -> Layout:
        """Where things are in it."""
        return self._layout

    @property
    def base(self) -> dict[str, Any] | None:
        """The fingerprint of the base: the library's, or else that of its first expert that has one."""
        if self._manifest.base is not None:
            return self._manifest.base
        return next((e.provenance.base_fingerprint for e in self.values() if e.provenance.base_fingerprint), None)

    @property
    def hash(self) -> str:
        """Identity: the names and hashes of all experts. Reads all weights once; order and paths don't matter."""
        return hash_experts(self._experts)

    # ---- changes --------------------------------------------------------------------------------

    def add(
        self, source: Path | str, name: str, *, provenance: Provenance | None = None, base: BaseFacts | None = None,
        base_name: str | None = None,
    ) -> Expert:  # fmt: skip
        """Check an adapter directory and copy it in, whole or not at all; the first writer of a name wins.

        `provenance` replaces the source's expert.json; with `base`, the sites must fit it; `base_name`: what the copy
        calls its base. What would let PEFT import code is neutralised in the copy. The source is not modified.
        Raises LibraryError: all that `check` finds, numbers included, E-NAME, E-EXISTS, E-BASE, E-DISK, E-PERM, E-PATH.
        """
        self._require_writable()
        check_free(name, self._layout.expert_names())
        checked = read_expert(Path(source), name, base=base)
        with self._arriving(name, base, staging.commit) as stage:
            _copy_in(self._layout, checked, stage, provenance, base_name)
        return self[name]

    @contextlib.contextmanager
    def stage(self, name: str, *, base: BaseFacts | None = None) -> Iterator[Path]:
        """Give a builder an empty directory for a new expert; it becomes the expert when the `with` block ends.

        The block writes adapter_config.json, adapter_model.safetensors and, if it likes, expert.json. If it raises, or
        what it wrote doesn't pass `check`, nothing remains. Raises LibraryError as `add` does.
        """
        self._require_writable()
        check_free(name, self._layout.expert_names())
        with self._arriving(name, base, staging.commit) as stage:
            yield stage

    def replace(
        self, source: Path | str, name: str, *, provenance: Provenance | None = None, base: BaseFacts | None = None,
        base_name: str | None = None,
    ) -> Expert:  # fmt: skip
        """Put an adapter in an expert's place, even a bad one's; readers of the old one keep it. Raises as `add`."""
        self._require_known(name)
        checked = read_expert(Path(source), name, base=base)
        with self._arriving(name, base, staging.commit_over) as stage:
            _copy_in(self._layout, checked, stage, provenance, base_name)
        return self[name]

    def remove(self, name: str) -> None:
        """Remove an expert, sound or bad, and delete its files; readers that have them open keep them.

        Raises E-NAME, E-PATH, E-PERM.
        """
        self._require_known(name)
        gone_already = contextlib.suppress(FileNotFoundError)  # another writer was first
        with disk_errors(f"expert {quote(name)}"), gone_already:
            staging.take_out(self._layout.experts / name, self._layout.staging)
        self._experts.pop(name, None)
        self.bad.pop(name, None)
        self._notes.changed()

    def gc(self) -> list[str]:
        """Delete what killed writers left, rewrite library.json and the card; return what was done, sorted."""
        _require_ours(self._layout)
        with disk_errors(f"library {quote(self.path.name)}"):
            done = staging.clean(self._layout)
        self._notes.take()
        return done

    def noted_once(self) -> contextlib.AbstractContextManager[None]:
        """Make many changes in a `with` block at the cost of one note: library.json and the card follow at its end.

        Otherwise each change rewrites them, so that N changes cost N x N. Blocks may be nested, and any number of
        processes may be in one. A process killed in it only leaves the notes out of date; the next change updates them.
        """
        return self._notes.once()

    def _require_writable(self) -> None:
        """Raise as `_require_ours`; before the first change, collect what writers that were killed left."""
        _require_ours(self._layout)
        if not self._is_clean:
            self._is_clean = True
            with contextlib.suppress(OSError):  # by the way: what the disk refuses, the change will say
                staging.clean(self._layout)

    def _require_known(self, name: str) -> None:
        self._require_writable()
        if name not in self.bad:
            self[name]

    @contextlib.contextmanager
    def _arriving(self, name: str, base: BaseFacts | None, commit: Callable[[Path, Path], None]) -> Iterator[Path]:
        doing, target = f"expert {quote(name)}", self._layout.expert(name)
        with disk_errors(doing):
            stage = staging.new_stage(self._layout.staging, name)
            target.parent.mkdir(exist_ok=True)
        try:
            yield stage
            with disk_errors(doing):
                expert = _sealed(stage, name, self.base, base)
                commit(stage, target)
        finally:
            staging.discard(stage)
        self._experts = dict(sorted({**self._experts, name: dataclasses.replace(expert, directory=target)}.items()))
        self.bad.pop(name, None)
        self._notes.changed()

    def _write_notes(self) -> None:
        _note_all(self._layout, self._manifest, self._experts, self.base)


def _require_ours(layout: Layout) -> None:
    if not layout.is_ours:
        message = f"{quote(layout.root.name)} is a folder of adapters without library.json, opened read-only."
        raise LibraryError("E-PERM", message, "Create a library elsewhere and add them.")
    layout.require_plain()


def _note_all(layout: Layout, manifest: Manifest, known: Mapping[str, Expert], base: Mapping[str, Any] | None) -> None:
    # Notes, not the truth: when they can't be written nothing is lost, and the next change writes them.
    with contextlib.suppress(OSError, LibraryError):
        for _ in range(_MOST_READS):
            seen = layout.expert_names()
            experts, _bad = _read_experts(layout, manifest.base, known)
            write_manifest(layout, manifest, experts.values())
            write_card(layout, base, list(experts.values()))
            if seen == layout.expert_names():
                break  # else another writer's change, and perhaps its notes, came before ours were written


def _copy_in(layout: Layout, source: Expert, stage: Path, provenance: Provenance | None, base_name: str | None) -> None:
    with disk_errors(f"expert {quote(source.name)}"):
        need_space(layout.root, source.weights_path.stat().st_size)
        copy_adapter(source.directory, stage)
        if provenance is not None:
            if provenance.weights_sha256 == source.provenance.weights_sha256:  # the copy's may be another
                provenance = dataclasses.replace(provenance, weights_sha256=read_provenance(stage).weights_sha256)
            write_whole(stage / PROVENANCE, provenance.to_json())
        if base_name is not None:
            write_whole(stage / CONFIG, config_bytes({**source.config, "base_model_name_or_path": base_name}))


def _sealed(stage: Path, name: str, library_base: Mapping[str, Any] | None, base: BaseFacts | None) -> Expert:
    """Check what was staged, not what was promised; neutralise its config, write its sha256 into expert.json."""
    expert = read_expert(stage, name, base=base)
    raise_errors(check_numbers(expert.weights_path, expert.header), name)
    require_same_base(expert.provenance.base_fingerprint, library_base, name)
    expert.hash  # noqa: B018 - raises when expert.json promises other bytes
    provenance = dataclasses.replace(
        expert.provenance,
        weights_sha256=expert.provenance.weights_sha256 or hash_file(stage / WEIGHTS),
        created_by=expert.provenance.created_by or this_version(),
    )
    write_whole(stage / PROVENANCE, provenance.to_json())
    config = neutralised(expert.config)
    if config != expert.config:
        write_whole(stage / CONFIG, config_bytes(config))
    return dataclasses.replace(expert, provenance=provenance, config=config)


def standing(path: Path | str) -> Library | None:
    """Open the library that `create` would, bad experts and all; None if it has yet to be made.

    Raises what `create` would, E-EXISTS, E-PATH, E-PERM, before any long work.
    """
    layout = Layout(Path(path).absolute())
    if layout.manifest.exists():
        return Library.open(layout.root, skip_bad=True)
    _check_empty(layout)
    layout.require_plain()
    check_writable(layout.root)
    return None


def _check_empty(layout: Layout) -> None:
    ours = {path.name for path in (layout.experts, layout.derived, layout.learned)}
    if layout.root.exists() and not (layout.root.is_dir() and _content(layout) <= ours):
        what = f"{quote(str(layout.root), 200)} exists and isn't empty."
        raise LibraryError("E-EXISTS", what, "Choose another path.")


def _content(layout: Layout) -> set[str]:
    """List a library's directory without hidden names: another process may be at work there."""
    return {path.name for path in layout.root.iterdir() if not path.name.startswith(".")}


def _read_experts(
    layout: Layout, base: Mapping[str, Any] | None, known: Mapping[str, Expert]
) -> tuple[dict[str, Expert], dict[str, LibraryError]]:
    experts: dict[str, Expert] = {}
    bad: dict[str, LibraryError] = {}
    lowered: dict[str, str] = {}
    for name in layout.expert_names():
        try:
            check_free(name, [lowered[name.lower()]] if name.lower() in lowered else [])
            expert = known.get(name) or _read_standing(layout.expert(name), name)
            require_same_base(expert.provenance.base_fingerprint, base, name)
            base = base or expert.provenance.base_fingerprint  # when the library names none, the first one's counts
            experts[name] = expert
            lowered[name.lower()] = name
        except (LibraryError, OSError) as error:
            caught = error if isinstance(error, LibraryError) else _unreadable(name, error)
            if (layout.experts / name).is_symlink() or (layout.experts / name).exists():  # else it was just removed
                bad[name] = caught
    return experts, bad


def _unreadable(name: str, error: OSError) -> LibraryError:
    what = f"expert {quote(name)}: its directory can't be read ({error.strerror})."
    return LibraryError(code_of(error) or "E-FILE", what, "Restore it, or leave the expert out.")


def _read_standing(directory: Path, name: str) -> Expert:
    """Read an expert that others may replace meanwhile, as it was at one instant. Raises as `read_expert`."""
    for _ in range(_MOST_READS):
        before, caught = identity(directory), None
        try:
            expert = read_expert(directory, name)
        except LibraryError as error:
            caught = error
        if identity(directory) == before:
            break  # what was read, or is wrong, is of one and the same directory
    if caught is not None:
        raise caught
    return expert


def _first_bad(bad: Mapping[str, LibraryError], layout: Layout) -> LibraryError:
    (name, first), *others = bad.items()
    more = f"{len(others)} more experts are bad: {listed([other for other, _ in others])}." if others else ""
    # What the command line can do to it; Python can also open without.
    mend = f"`lorary remove {layout.root} {name}` takes it out"
    if not layout.is_ours:
        mend = f"`lorary add LIBRARY {layout.root}` makes a library of those that pass"
    hint = " ".join(part for part in (first.hint, more, f"{mend}; Library.open(..., skip_bad=True) skips it.") if part)
    return LibraryError(first.code, first.message, hint)


def _near(name: str, names: list[str]) -> str:
    if len(names) <= _MANY:
        return known_names(name, names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return (f"Did you mean {', '.join(map(repr, near))}? " if near else "") + f"{len(names)} experts are known."
