"""Library: experts on disk, as a mapping. See `layout` for the format and for what a crash can leave behind."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.disk.reading import identity, require_plain_directory
from lorary.disk.writing import ELSEWHERE, check_writable, code_of, disk_errors
from lorary.errors import LibraryError, LoraryError, OptionError, error_of, known_names, listed, quote
from lorary.library import staging
from lorary.library.adapter.check import BaseFacts
from lorary.library.adapter.config import BASE_NAME
from lorary.library.adapter.expert import Accepted, Expert, accept, hash_experts, read_expert
from lorary.library.adapter.opened import open_adapter
from lorary.library.adapter.provenance import Provenance, require_same_base
from lorary.library.arrivals import Arrival, accept_stage, arriving_expert, copy_in, warn_of_inner
from lorary.library.base_names import distinct_names
from lorary.library.card import write_card
from lorary.library.layout import Layout, check_free, find_layout
from lorary.library.manifest import Manifest, read_manifest, this_version, write_manifest
from lorary.library.notes import Notes
from lorary.library.pretrained import Pretrained

_MANY = 20
_MOST_READS = 8  # of one expert, if others replace it again and again


class UnknownExpertError(OptionError, KeyError):
    """No expert of that name; also a KeyError, so that `in` and `get` behave as for any mapping."""

    __str__ = Exception.__str__  # KeyError would show the sentence quoted


class Library(Pretrained, Mapping[str, Expert]):
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
        self._notes = Notes(lambda: _note_all(layout, manifest, self._experts, self.base))
        self._is_clean = False
        self.bad = dict(bad)

    @classmethod
    def open(cls, path: Path | str, *, skip_bad: bool = False) -> "Library":
        """Open a library, or a directory of PEFT adapters that others made (read-only). Writes nothing, takes no lock.

        Raises E-LIBRARY, E-SCHEMA, E-PATH when its experts are elsewhere, and whatever is wrong with the
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
    def create(cls, path: Path | str, *, base: Mapping[str, object] | None = None, exist_ok: bool = False) -> "Library":
        """Make an empty library for one base (its fingerprint); with `exist_ok`, open the one that is there.

        Raises E-EXISTS, E-BASE when the one that is there has another base, E-PATH, E-PERM, E-DISK.
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

    def __getitem__(self, name: str) -> Expert:
        if name not in self._experts:
            raise UnknownExpertError("E-NAME", f"unknown expert {quote(name)}.", _near(name, list(self._experts)))
        return self._experts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._experts  # Mapping's own would word an error to learn it

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
        calls its base. What would let PEFT import code is neutralised in the copy. The source is not modified. Adapters
        in folders of it are left, with a warning (W-INNER): `lorary.add` takes all.
        Raises all that `check` finds, numbers included, E-NAME, E-EXISTS, E-BASE, E-DISK, E-PERM, E-PATH.
        """
        return self._take_from(source, name, base, provenance, base_name, replace=False)

    def take(
        self, accepted: Accepted, *, provenance: Provenance | None = None, base_name: str | None = None,
        replace: bool = False, metrics: Sequence[Mapping[str, object]] = (),
    ) -> Expert:  # fmt: skip
        """Copy in an adapter that was judged, while its files are open, and the rows of its metrics.jsonl, if any."""
        self._require(accepted.expert.name, replace=replace)
        return self._put(accepted, provenance, base_name, metrics, replace=replace)

    @contextlib.contextmanager
    def stage(self, name: str, *, base: BaseFacts | None = None) -> Iterator[Path]:
        """Give a builder an empty directory for a new expert; it becomes the expert when the `with` block ends.

        The block writes adapter_config.json, adapter_model.safetensors and, if it likes, expert.json. If it raises, or
        what it wrote doesn't pass `check`, nothing remains. Raises as `add` does.
        """
        self._require(name, replace=False)
        with arriving_expert(self._layout, name, replaces=False) as arrival:
            yield arrival.stage
            arrival.expert = accept_stage(arrival.stage, name, self.base, base)
        self._register(arrival)

    def replace(
        self, source: Path | str, name: str, *, provenance: Provenance | None = None, base: BaseFacts | None = None,
        base_name: str | None = None,
    ) -> Expert:  # fmt: skip
        """Put an adapter in an expert's place, even a bad one's; who has the old one open keeps it. Raises as `add`."""
        return self._take_from(source, name, base, provenance, base_name, replace=True)

    def remove(self, name: str) -> None:
        """Remove an expert, sound or bad, and delete its files; readers that have them open keep them.

        Raises E-NAME, E-PATH, E-PERM.
        """
        self._require(name, replace=True)
        with disk_errors(f"expert {quote(name)}"), contextlib.suppress(FileNotFoundError):  # another was first
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

    def _require(self, name: str, *, replace: bool) -> None:
        """Refuse a name that is taken, or to `replace` one that isn't. Raises as `_require_ours`, too."""
        self._require_writable()
        if not replace:
            check_free(name, self._layout.expert_names())
        elif name not in self.bad:
            self[name]

    def _take_from(self, source: Path | str, name: str, base: BaseFacts | None, *how: Any, replace: bool) -> Expert:
        self._require(name, replace=replace)  # before anything is read
        warn_of_inner(Path(source))
        with open_adapter(Path(source)) as adapter:
            return self._put(accept(adapter, name, base=base), *how, replace=replace)

    def _put(self, accepted: Accepted, *how: Any, replace: bool) -> Expert:
        with arriving_expert(self._layout, accepted.expert.name, replaces=replace) as arrival:
            arrival.expert = copy_in(accepted, arrival.stage, self.base, *how)
        return self._register(arrival)

    def _register(self, arrival: Arrival) -> Expert:
        self._experts = dict(sorted({**self._experts, arrival.expert.name: arrival.expert}.items()))
        self.bad.pop(arrival.expert.name, None)
        self._notes.changed()
        return arrival.expert


def _require_ours(layout: Layout) -> None:
    if not layout.is_ours:
        message = f"{quote(layout.root.name)} is a folder of adapters without library.json, opened read-only."
        raise LibraryError("E-PERM", message, "Create a library elsewhere and add them.")
    layout.require_plain()


def _note_all(layout: Layout, manifest: Manifest, known: Mapping[str, Expert], base: Mapping[str, Any] | None) -> None:
    # Notes, not the truth: when they can't be written nothing is lost, and the next change writes them.
    with contextlib.suppress(OSError, LoraryError):
        for _ in range(_MOST_READS):
            seen = layout.expert_names()
            experts, _bad = _read_experts(layout, manifest.base, known)
            write_manifest(layout, manifest, experts.values())
            write_card(layout, base, list(experts.values()))
            if seen == layout.expert_names():
                break  # else another writer's change, and perhaps its notes, came before ours were written


def names_of_base(library: Library) -> list[str]:
    """List how a library's experts call its base, sorted; "" if they don't.

    Those that carry its fingerprint were made on it: where some do, the others' names don't count.
    """
    made_on_it = [expert for expert in library.values() if expert.provenance.base_fingerprint]
    return distinct_names(str(e.config.get(BASE_NAME) or "") for e in made_on_it or library.values())


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
) -> tuple[dict[str, Expert], dict[str, LoraryError]]:
    experts: dict[str, Expert] = {}
    bad: dict[str, LoraryError] = {}
    lowered: dict[str, str] = {}
    for name in layout.expert_names():
        try:
            check_free(name, [lowered[name.lower()]] if name.lower() in lowered else [])
            expert = known.get(name) or _read_standing(layout.expert(name), name)
            require_same_base(expert.provenance.base_fingerprint, base, name)
            base = base or expert.provenance.base_fingerprint  # when the library names none, the first one's counts
            experts[name] = expert
            lowered[name.lower()] = name
        except (LoraryError, OSError) as error:
            caught = error if isinstance(error, LoraryError) else _unreadable(name, error)
            if (layout.experts / name).is_symlink() or (layout.experts / name).exists():  # else it was just removed
                bad[name] = caught
    return experts, bad


def _unreadable(name: str, error: OSError) -> LoraryError:
    what = f"expert {quote(name)}: its directory can't be read ({error.strerror})."
    return error_of(code_of(error) or "E-FILE", what, "Restore it, or leave the expert out.")


def _read_standing(directory: Path, name: str) -> Expert:
    """Read an expert that others may replace meanwhile, as it was at one instant. Raises as `read_expert`."""
    for _ in range(_MOST_READS):
        before, caught = identity(directory), None
        try:
            expert = read_expert(directory, name)
        except LoraryError as error:
            caught = error
        if identity(directory) == before:
            break  # what was read, or is wrong, is of one and the same directory
    if caught is not None:
        raise caught
    return expert


def _first_bad(bad: Mapping[str, LoraryError], layout: Layout) -> LoraryError:
    (name, first), *others = bad.items()
    more = f"{len(others)} more experts are bad: {listed([other for other, _ in others])}." if others else ""
    # What the command line can do to it; Python can also open without.
    mend = f"`lorary remove {layout.root} {name}` takes it out"
    if not layout.is_ours:
        mend = f"`lorary add LIBRARY {layout.root}` makes a library of those that pass"
    hint = " ".join(part for part in (first.hint, more, f"{mend}; Library.open(..., skip_bad=True) skips it.") if part)
    return first.reworded(first.message, hint)


def _near(name: str, names: list[str]) -> str:
    if len(names) <= _MANY:
        return known_names(name, names)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return (f"Did you mean {', '.join(map(repr, near))}? " if near else "") + f"{len(names)} experts are known."
