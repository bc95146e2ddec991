"""Files go to a repository: weights as they come, so that none is sent twice, and one commit that shows all of them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from lorary.disk.reading import files_below
from lorary.errors import LibraryError
from lorary.library.hub.listing import is_same
from lorary.library.hub.names import HubPlace
from lorary.library.hub.retries import ask_facts, broke_off, hub_errors, is_busy, patiently, within_time
from lorary.library.layout import CARD, EXPERTS

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_CARD_BYTES = 1_000_000


class Upload:
    """What is on its way to one folder and branch of a repository. Nothing shows there before `commit`.

    What was sent before an interruption lies at the Hub, which asks for it no second time.
    """

    def __init__(self, place: HubPlace, uri: str, *, private: bool | None) -> None:
        """Make the repository and the branch, if they aren't there, and ask what is. Raises E-HUB."""
        if constants.HF_HUB_OFFLINE:
            raise LibraryError("E-HUB", f"{uri}: HF_HUB_OFFLINE is set.", "Unset it: what is sent needs the Hub.")
        if _COMMIT.fullmatch(place.revision):
            raise LibraryError("E-HUB", f"{uri} names a commit, which can't change.", "Name a branch, or none.")
        self._uri, self._repo, self._is_private, self._api = uri, place.repo, private, HfApi()
        self._prefix = place.prefix
        self._branch = place.revision or constants.DEFAULT_REVISION
        self._additions: list[CommitOperationAdd] = []
        with hub_errors(uri):
            patiently(lambda: within_time(self._make), is_busy)
            facts = ask_facts(self._api, place.repo, self._branch)
        self._parent = facts.sha
        self._there = {file.rfilename: file for file in facts.siblings or ()}

    def _make(self) -> None:
        self._api.create_repo(self._repo, private=self._is_private, exist_ok=True)
        if self._branch != constants.DEFAULT_REVISION:
            self._api.create_branch(self._repo, branch=self._branch, exist_ok=True)

    def experts(self) -> set[str]:
        """Name the experts that are there."""
        start = f"{self._prefix}{EXPERTS}/"
        inner = (name.removeprefix(start) for name in self._there if name.startswith(start))
        return {name.partition("/")[0] for name in inner if "/" in name}

    def card(self) -> str | None:
        """Read the card that is there, None if there is none. Raises E-HUB."""
        told = self._there.get(self._prefix + CARD)
        if told is None or (told.size or 0) > _MOST_CARD_BYTES:
            return None
        with hub_errors(self._uri):
            path = self._api.hf_hub_download(self._repo, self._prefix + CARD, revision=self._parent)
            return Path(path).read_text(encoding="utf-8", errors="replace")

    def send(self, stage: Path) -> list[str]:
        """Send the files of a directory that differ from those that are there; name them. Raises E-HUB.

        Weights that arrived are deleted from the directory; other files go with the commit, and must stay until then.
        """
        files = files_below(stage)
        named = {self._prefix + path.relative_to(stage).as_posix(): path for path in files}
        new = {name: path for name, path in named.items() if not self._has(name, path)}
        additions = {path: CommitOperationAdd(name, path) for name, path in new.items()}
        batch = list(additions.values())
        self._additions += batch
        if batch:
            with hub_errors(self._uri):
                patiently(lambda: self._api.preupload_lfs_files(self._repo, batch, revision=self._branch), broke_off)
        for path in files:
            if path not in additions or additions[path].path_or_fileobj == b"":  # it is at the Hub
                path.unlink()
        return sorted(new)

    def _has(self, name: str, path: Path) -> bool:
        return name in self._there and is_same(path, self._there[name])

    def commit(self, kept: Sequence[str], gone: Sequence[str], message: str) -> str:
        """Show all that was sent, at once; give the commit. Raises E-HUB, also if another was faster.

        `kept`: all files that experts have now, of which others leave; `gone`: experts that leave.
        """
        folders = {name.rpartition("/")[0] for name in kept if name.startswith(f"{self._prefix}{EXPERTS}/")}
        left = [n for n in self._there if n.rpartition("/")[0] in folders and n not in kept]
        deletions = [CommitOperationDelete(name) for name in sorted(left)]
        deletions += [CommitOperationDelete(f"{self._prefix}{EXPERTS}/{name}/") for name in sorted(gone)]
        operations: list[Any] = [*self._additions, *deletions]
        if not operations:
            return str(self._parent)
        how: dict[str, Any] = {"revision": self._branch, "parent_commit": self._parent, "commit_message": message}
        with hub_errors(self._uri):
            try:
                return str(patiently(lambda: self._api.create_commit(self._repo, operations, **how), is_busy).oid)
            except ValueError as error:  # its own word for a card that it doesn't take
                what = f"{self._uri}: the Hub refuses what was sent: {' '.join(str(error).split())[:300]}"
                raise LibraryError("E-HUB", what, "Mend the front matter of README.md.") from error
