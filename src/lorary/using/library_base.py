"""The base that all adapters of a library share: how it is called, and its sizes, where it is on this machine."""

import contextlib
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from lorary.errors import LoraryError, ModelError, OptionError
from lorary.library.adapter.check import BaseFacts
from lorary.library.adapter.config import BASE_NAME
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.provenance import Provenance, require_same_base
from lorary.library.base_names import shared_name
from lorary.library.library import Library, names_of_base
from lorary.model.base.embedded import embedded_directory
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.fingerprint import size_facts
from lorary.model.base.named_bases import absence, find_base, find_here, remember_base
from lorary.model.base.outline import name_of, outline, sizes
from lorary.progress import Tell

_UNCHECKED = "W-BASE"


class _Facts(NamedTuple):
    """What is known of a base whose weights nobody loads: its sizes, or why there are none."""

    sizes: BaseFacts | None = None
    of_vocabulary: Mapping[str, Any] = {}
    template: str | None = None
    why_not: str = ""


class LibraryBase:
    """The base of one library, None: it is still to be made. asked: what the user says the base is.

    vocab_size: how many rows its embedding had before others were added, where the user says so.
    Raises E-BASE if the library was made on another one than the user says.
    """

    def __init__(self, library: Library | None, asked: str | None, vocab_size: int | None, tell: Tell) -> None:
        self._asked, self._vocab_size, self._tell = asked, vocab_size, tell
        self._fingerprint = library.base if library is not None else None
        self._names = [name for name in names_of_base(library) if name] if library else []
        self._is_told = False
        self._find_here, self._find_own, self._facts = cache(find_here), cache(self._found), cache(_facts)  # for many
        self.template: str | None = None
        """The chat template of the base that was looked at last; None if it has none, or isn't here."""
        if asked is None:
            return
        remember_base(asked)
        if library is not None and self._names and not self._is_ours(asked):
            what = f"library {library.path.name!r} was made on base {self._names[0]!r}, not on {asked!r}."
            raise ModelError("E-BASE", what, f"If that is the same one, give it by this name: --base {self._names[0]}.")
        self._names = self._names or [name_of(asked)]

    def check(self, name: str, config: Mapping[str, object], made: Provenance) -> tuple[str | None, BaseFacts | None]:
        """Say how a copy has to call its base, None: as it does, and what sizes must fit. Raises E-BASE."""
        require_same_base(made.base_fingerprint, self._fingerprint, name)
        theirs = str(config.get(BASE_NAME) or "")
        if not self._names or self._is_ours(theirs):
            return None, self._sizes(theirs, name)
        if theirs and not self._asked and not (self._fingerprint and made.base_fingerprint):
            what = f"expert {name!r} was trained on base {theirs!r}, the library is of {self._names[0]!r}."
            hint = f"If that is the same one under another name, say so: --base {self._names[0]}."
            raise ModelError("E-BASE", what, hint)
        return self._names[0], self._sizes(self._names[0], name)

    def settle(self, expert: Expert) -> None:
        """Learn the name of the base from the first expert of a library."""
        name = str(expert.config.get(BASE_NAME) or "")
        self._names = self._names or ([name] if name else [])

    def _is_ours(self, name: str) -> bool:
        if shared_name(name) in map(shared_name, self._names):
            return True
        return bool(name) and self._find_here(name) in {self._here(own) for own in self._names} - {None}

    def _here(self, name: str) -> str | None:
        """Say what to load for a name; of the library's own base also by its fingerprint."""
        return self._find_own(name) if name in self._names else self._find_here(name)

    def _found(self, name: str) -> str | None:
        return find_base(name, self._fingerprint)

    def _sizes(self, name: str, expert: str) -> BaseFacts | None:
        nameless = _Facts(why_not="it names no base; give it with --base")
        found = self._facts(name, self._here(name)) if name else nameless
        facts = dict(found.of_vocabulary)
        self.template = found.template
        if self._vocab_size is not None and facts:
            if self._vocab_size > facts["vocab_size"]:
                what = f"--vocab-size {self._vocab_size}: base {name!r} has a vocabulary of {facts['vocab_size']}."
                raise OptionError("E-OPTION", what, "Give how many rows its embedding had before others were added.")
            facts["vocab_size"] = self._vocab_size
        require_same_base(facts, self._fingerprint, expert)
        if found.sizes is None and not self._is_told:
            self._is_told = True
            why = f"whether it fits was not checked, for {found.why_not}."
            self._tell(f"warning[{_UNCHECKED}] expert {expert!r}: {why}")
        return found.sizes


def _facts(name: str, here: str | None) -> _Facts:
    if here == EMBEDDED:
        with contextlib.suppress(LoraryError):
            here = embedded_directory()
    try:
        base = outline(here) if here is not None else None
    except LoraryError as error:
        return _Facts(why_not=f"{error.message} [{error.code}]")
    if base is None:
        return _Facts(why_not=f"base {name!r} {absence(name)}")
    return _Facts(sizes(base), size_facts(base.hf), base.tokenizer.chat_template)
