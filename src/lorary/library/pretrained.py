"""The names that users of transformers and PEFT look for on a library, beside ours; each calls a verb of ours."""

import importlib
import os
from pathlib import Path
from typing import Any

from lorary.library.manifest import Manifest

_VERBS = "lorary.using.hub"
"""Where the verbs are: upstairs, with the Hub's library, so that only who calls one of these names imports it."""


class Pretrained:
    """What a library has in common with other things that come from the Hub."""

    _manifest: Manifest

    @property
    def source(self) -> str:
        """Where it was pulled from, as hf://user/repo@commit; empty if it wasn't."""
        return self._manifest.source

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, revision: str | None = None) -> Any:
        """Open a directory, or the library user/repo on the Hub; that is checked and kept in lorary's cache by commit.

        The kept copy isn't for changes: `save_pretrained` makes one that is. Raises as `Library.open` and
        `lorary.pull`, and E-LIBRARY for a kept copy that was changed.
        """
        return _verb("from_pretrained")(name, revision)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        """Copy the library to a new directory: what `lorary.push` would send, and no more. Raises E-EXISTS, E-DISK."""
        copied: Path = _verb("save_pretrained")(self, directory)
        return copied

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, revision: str = "", commit_message: str = ""
    ) -> Any:
        """Put it on the Hub as user/repo: `lorary.push`, which has more to choose. Raises as that."""
        place = f"hf://{repo_id}{f'@{revision}' if revision else ''}"
        return _verb("push")(self, place, private=private, message=commit_message)


def _verb(name: str) -> Any:
    return getattr(importlib.import_module(_VERBS), name)
