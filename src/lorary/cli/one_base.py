"""The base that all adapters of a library share: how it is called, and its sizes, where it is on this machine."""

import contextlib
from functools import cache
from typing import TYPE_CHECKING, Any

from lorary.cli.console import say
from lorary.cli.models import names_of_base
from lorary.errors import LibraryError, LoraryError, ModelError, OptionError

if TYPE_CHECKING:
    from lorary.library.adapter.check import BaseFacts
    from lorary.library.adapter.expert import Expert
    from lorary.library.library import Library

_UNCHECKED = "W-BASE"
_TEMPLATE = "chat_template"


class OneBase:
    """The base of one library, None: it is still to be made. asked: what the user says the base is.

    vocab_size: how many rows its embedding had before others were added, where the user says so.
    """

    def __init__(self, library: "Library | None", asked: str | None, vocab_size: int | None = None) -> None:
        self._vocab_size = vocab_size
        self._fingerprint = library.base if library is not None else None
        self._names = [name for name in names_of_base(library) if name] if library else []
        self._asked = asked
        self._is_told = False
        self.template: str | None = None
        """The chat template of the base that was looked at last; None if it has none, or isn't here."""
        for looked_up in (_here, _outline):  # what is here may have changed since this process last asked
            looked_up.cache_clear()
        if asked is None:
            return
        from lorary.model.base.named_bases import remember_base
        from lorary.model.base.outline import name_of

        remember_base(asked)
        if library is not None and self._names and not self._is_ours(asked):
            what = f"library {library.path.name!r} was made on base {self._names[0]!r}, not on {asked!r}."
            raise ModelError("E-BASE", what, f"If that is the same one, give it by this name: --base {self._names[0]}.")
        self._names = self._names or [name_of(asked)]

    def judge(self, expert: "Expert") -> "tuple[str | None, BaseFacts | None]":
        """Say how the copy has to call its base, None: as it does, and what sizes must fit. Raises E-BASE."""
        from lorary.library.adapter.provenance import require_same_base

        require_same_base(expert.provenance.base_fingerprint, self._fingerprint, expert.name)
        theirs = str(expert.config.get("base_model_name_or_path") or "")
        if not self._names or self._is_ours(theirs):
            return None, self._sizes(theirs, expert.name)
        if theirs and not self._asked and not (self._fingerprint and expert.provenance.base_fingerprint):
            what = f"expert {expert.name!r} was trained on base {theirs!r}, the library is of {self._names[0]!r}."
            hint = f"If that is the same one under another name, say so: --base {self._names[0]}."
            raise LibraryError("E-BASE", what, hint)
        return self._names[0], self._sizes(self._names[0], expert.name)

    def settle(self, expert: "Expert") -> None:
        """Learn the name of the base from the first expert of a library."""
        name = str(expert.config.get("base_model_name_or_path") or "")
        self._names = self._names or ([name] if name else [])

    def _is_ours(self, name: str) -> bool:
        from lorary.library.base_names import shared_name

        if shared_name(name) in map(shared_name, self._names):
            return True
        return bool(name) and _here(name) in {self._here(own) for own in self._names} - {None}

    def _here(self, name: str) -> str | None:
        """Say what to load for a name; of the library's own base also by its fingerprint."""
        from lorary.model.base.named_bases import find_base

        return find_base(name, self._fingerprint) if name in self._names else _here(name)

    def _sizes(self, name: str, expert: str) -> "BaseFacts | None":
        from lorary.library.adapter.provenance import require_same_base

        here = self._here(name) if name else None
        sizes, facts, why = (None, {}, "it names no base; give it with --base") if not name else _outline(name, here)
        facts = dict(facts)
        self.template = facts.pop(_TEMPLATE, None)
        if self._vocab_size is not None and facts:
            if self._vocab_size > facts["vocab_size"]:
                what = f"--vocab-size {self._vocab_size}: base {name!r} has a vocabulary of {facts['vocab_size']}."
                raise OptionError("E-OPTION", what, "Give how many rows its embedding had before others were added.")
            facts["vocab_size"] = self._vocab_size
        require_same_base(facts, self._fingerprint, expert)
        if sizes is None and not self._is_told:
            self._is_told = True
            say(f"warning[{_UNCHECKED}] expert {expert!r}: whether it fits was not checked, for {why}.")
        return sizes


@cache
def _here(name: str) -> str | None:
    from lorary.model.base.named_bases import find_here

    return find_here(name)


@cache
def _outline(name: str, here: str | None) -> "tuple[BaseFacts | None, dict[str, Any], str]":
    """Give a base's sizes, what else its config tells, and why there are none."""
    from lorary.model.base.embedded import embedded_directory
    from lorary.model.base.embedded_needs import EMBEDDED
    from lorary.model.base.fingerprint import size_facts
    from lorary.model.base.named_bases import absence
    from lorary.model.base.outline import outline, sizes

    if here == EMBEDDED:
        with contextlib.suppress(LoraryError):
            here = embedded_directory()
    try:
        base = outline(here) if here is not None else None
    except LoraryError as error:
        return None, {}, f"{error.message} [{error.code}]"
    if base is None:
        return None, {}, f"base {name!r} {absence(name)}"
    return sizes(base), size_facts(base.hf) | {_TEMPLATE: base.tokenizer.chat_template}, ""
