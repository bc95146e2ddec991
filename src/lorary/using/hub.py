"""Libraries to and from the Hub: what is sent is shared in one commit, what is fetched is checked before it stands."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorary.disk.arrival import arriving
from lorary.disk.processes import scratch
from lorary.disk.reading import files_below
from lorary.disk.writing import disk_errors, need_space
from lorary.errors import LibraryError, OptionError, listed, quote
from lorary.hashing import short_key
from lorary.library import sync
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.findings import raise_errors
from lorary.library.adapter.numbers import check_numbers
from lorary.library.hub.card import Results, hub_card, is_written_by_us, require_ours
from lorary.library.hub.clean_copies import share_experts, share_note
from lorary.library.hub.names import HUB, HubPlace, parse_uri
from lorary.library.hub.upload import Upload
from lorary.library.layout import CARD, Layout
from lorary.library.library import Library
from lorary.library.manifest import read_manifest, write_manifest
from lorary.options import require, require_each
from lorary.progress import Tell, unheard
from lorary.using.kept import kept_place, open_kept

_BATCH_BYTES, _BATCH_EXPERTS = 256_000_000, 50
"""So much is copied before it is sent, and deleted: a library of thousands needs no second place on the disk."""


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What of a library is on the Hub now, or would be.

    revision: the commit, empty for a dry run; files: name and size in bytes of all; sent: those of them that weren't
    there; gone: experts that were deleted there; card: the text of README.md.
    """

    place: str
    revision: str
    files: tuple[tuple[str, int], ...]
    sent: tuple[str, ...]
    gone: tuple[str, ...]
    card: str

    def __str__(self) -> str:
        size = sum(size for _, size in self.files)
        at = f"@{self.revision}" if self.revision else " (dry run: nothing was sent)"
        there = f", {len(self.files) - len(self.sent)} of them were there already" if self.revision else ""
        return f"{self.place}{at}: {len(self.files)} files, {size:,} bytes{there}"

    def plain(self) -> dict[str, object]:
        """Tell all in dictionaries, lists and text, as JSON has them."""
        files = [{"path": name, "bytes": size} for name, size in self.files]
        return {**dataclasses.asdict(self), "files": files, "sent": list(self.sent), "gone": list(self.gone)}


def push(
    library: Library | str | os.PathLike[str],
    to: str,
    *,
    scores: Sequence[Results] = (),
    private: bool | None = None,
    prune: bool = False,
    message: str = "",
    dry_run: bool = False,
    tell: Tell | None = None,
) -> Pushed:
    """Put a library on the Hub, at hf://user/repo[/folder][@branch], in one commit; the repository is made if need be.

    What goes there is what `Expert.copy_to` copies of each expert, library.json and a card; derived/, learned/ and
    metrics.jsonl stay. Entries of their JSON that hold paths of this machine or secrets are left out, which `tell`
    hears. Run again after an interruption, it sends the rest. Experts that are there and not in the library stay,
    unless `prune`. `scores`: of this library, as `evaluate` and `read_scores` give them, for the card. `private`: of a
    new repository; by default as the Hub makes it. `dry_run`: ask no network; say what would go.
    Raises E-HUB, also if another pushed meanwhile, E-PRIVATE, E-OPTION for scores of another library, and whatever is
    wrong with an expert.
    """
    require("library", library, (Library, str, os.PathLike), "a library or the path of one")
    require_each("scores", scores, object, "scores", "read_scores(path) reads them.")
    place = _place(to)
    library = library if isinstance(library, Library) else Library.open(Path(library))
    if not library:
        raise LibraryError("E-EMPTY", f"library {quote(library.path.name)} has no experts.", "Add some first.")
    if scores:
        require_ours(scores, library.hash)
    tell = tell or unheard
    if learned := sorted(path.name for path in library.layout.learned.glob("*.safetensors")):
        tell(f"learned/ stays here, and with it routers that need it: {listed(learned)}")
    upload = None if dry_run else Upload(place, to, private=private)
    files: dict[str, int] = {}
    sent: list[str] = []

    def go(stage: Path) -> None:
        names = {place.prefix + p.relative_to(stage).as_posix(): p.stat().st_size for p in files_below(stage)}
        files.update(names)
        sent.extend(names if upload is None else upload.send(stage))

    with scratch() as folder, disk_errors(f"push {to}"):
        shared: list[Expert] = []
        for number, batch in enumerate(_batches(list(library.values()))):
            stage = folder / str(number)
            stage.mkdir()
            need_space(folder, sum(expert.weights_path.stat().st_size for expert in batch))
            shared += share_experts(batch, stage, tell)
            go(stage)
        (last := folder / "last").mkdir()
        share_note(library.base, shared, last, tell)
        card = _card(library, place.repo.partition("/")[2], shared, scores, upload, tell)
        (last / CARD).write_text(card, encoding="utf-8")
        go(last)
        gone = _gone(upload, library, prune=prune, tell=tell)
        told = message or f"{len(shared)} experts, by lorary"
        revision = "" if upload is None else upload.commit(list(files), gone, told)
    return Pushed(to, revision, tuple(sorted(files.items())), tuple(sorted(sent)), tuple(gone), card)


def pull(source: str, into: str | os.PathLike[str]) -> Library:
    """Fetch a library from hf://user/repo[/folder][@revision] to a new directory, checked, and open it.

    Of other files in the repository nothing is fetched. Every expert is checked, numbers and hashes included, before
    the directory is there; it is whole or absent, and library.json records the commit. What had arrived before
    an interruption isn't fetched again. Raises E-HUB, E-EXISTS, E-LIBRARY for what is no library, E-LIMIT, E-PICKLE,
    E-DISK, E-PERM, and whatever is wrong with an expert.
    """
    require("into", into, (str, os.PathLike), "the path of a directory")
    _place(source)
    sync.fetch(source, Path(into), check=lambda fetched: _check(fetched, source))
    return Library.open(Path(into))


def from_pretrained(name: str | os.PathLike[str], revision: str | None = None) -> Library:
    """Open a directory, or a library on the Hub by way of lorary's cache. Raises as `Library.from_pretrained` says."""
    require("name", name, (str, os.PathLike), "a directory, or user/repo on the Hub")
    given = os.fspath(name)
    if Path(given).is_dir() or given.startswith((".", "/", "~")):
        return Library.open(given)
    place = _place(f"{given if given.startswith(HUB) else HUB + given}{f'@{revision}' if revision else ''}")
    bare = place.at("")
    commit = sync.commit_of(place.at(place.revision))
    kept = kept_place(short_key(bare, commit))
    if not kept.exists():
        try:
            pull(place.at(commit), kept)
        except LibraryError as error:
            if error.code != "E-EXISTS":  # else another process was faster
                raise
    return open_kept(kept, bare)


def save_pretrained(library: Library, directory: str | os.PathLike[str]) -> Path:
    """Copy a library to a new directory, as it would be pushed. Raises as `Library.save_pretrained` says."""
    require("directory", directory, (str, os.PathLike), "a path")
    with arriving(Path(directory)) as stage:
        need_space(stage, sum(expert.weights_path.stat().st_size for expert in library.values()))
        shared = share_experts(list(library.values()), stage, unheard)
        share_note(library.base, shared, stage, unheard)
        card = _card(library, Path(directory).name, shared, (), None, unheard)
        (stage / CARD).write_text(card, encoding="utf-8")
    return Path(directory)


def _place(uri: str) -> HubPlace:
    if not isinstance(uri, str) or not uri.startswith(HUB):
        hint = "Write hf://user/repo[/folder][@revision]."
        raise OptionError("E-OPTION", f"{quote(uri, 200)} is no place on the Hub.", hint)
    return parse_uri(uri)


def _batches(experts: Sequence[Expert]) -> Iterator[list[Expert]]:
    batch: list[Expert] = []
    size = 0
    for expert in experts:
        batch.append(expert)
        size += expert.weights_path.stat().st_size
        if size >= _BATCH_BYTES or len(batch) == _BATCH_EXPERTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _card(
    library: Library,
    title: str,
    experts: Sequence[Expert],
    scores: Sequence[Results],
    upload: Upload | None,
    tell: Tell,
) -> str:
    """Make the card: the user's own text, here or else there, is brought up to date, and never replaced."""
    own = None
    if library.layout.card.is_file() and not library.layout.card.is_symlink():
        text = library.layout.card.read_text(encoding="utf-8", errors="replace")
        own = None if is_written_by_us(text) else text
    if own is None and upload is not None and (there := upload.card()) and not is_written_by_us(there):
        tell(f"{CARD}: the one on the Hub is somebody's own text: it stays, with its front matter brought up to date")
        own = there
    return hub_card(title, library.base, experts, scores, own)


def _gone(upload: Upload | None, library: Library, *, prune: bool, tell: Tell) -> list[str]:
    more = [] if upload is None else sorted(upload.experts() - set(library))
    if more and not prune:
        tell(f"{len(more)} experts on the Hub aren't in the library, and stay: {listed(more)}. --prune deletes them.")
    return more if prune else []


def _check(fetched: sync.Fetched, source: str) -> None:
    """Judge a library that was fetched. Raises what is wrong with it."""
    stage = fetched.directory
    try:
        library = Library.open(stage, skip_bad=True)
    except LibraryError as error:
        if error.code == "E-SCHEMA":
            raise
        what = f"{source} holds no library."
        raise LibraryError("E-LIBRARY", what, f"If it holds adapters: lorary add LIBRARY {source}.") from None
    if library.bad:
        why = next(iter(library.bad.values()))
        what = f"{source}: {len(library.bad)} of {len(library.bad) + len(library)} experts are refused: {why}"
        raise LibraryError("E-LIBRARY", what, f"Take the others: lorary add LIBRARY {source}.") from None
    for expert in library.values():
        raise_errors(check_numbers(expert.weights_path, expert.header), expert.name)
        expert.confirm()
    layout = Layout(stage)
    if layout.manifest.exists():
        known = dataclasses.replace(read_manifest(layout), source=_place(source).at(fetched.revision))
        write_manifest(layout, known, library.values())
