"""Experts that take most of every text: the user is warned of them, or they are left out where a limit was set."""

import contextlib
import warnings
from collections.abc import Iterator

from lorary.errors import LibraryError, OptionError, quote
from lorary.library.hijack_note import CODE, HINT, in_words, note_hijack
from lorary.library.library import Library
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.routed.shares import takes_most
from lorary.options import name_of


def require_share(limit: float | None) -> None:
    """Refuse a bound that is no share. Raises E-OPTION."""
    if limit is not None and not (isinstance(limit, int | float) and 0 < limit <= 1):
        raise OptionError("E-OPTION", f"max_share={limit!r}, expected a number above 0, at most 1.")


def watch_shares(model: RoutedModel, called: str, *, limit: float | None = None, notes: Library | None = None) -> None:
    """Leave out experts that take more than `limit` of a plain text, the largest first; without one, only warn of them.

    notes: the library that records it. If this raises, the model is detached first, since no caller holds it yet.
    Raises E-EMPTY if no expert would be left.
    """
    with _detached_on_error(model):
        if limit is not None:
            _leave_out(model, called, limit)
        elif shares := model.shares():
            caught = takes_most(shares)
            if notes is not None:
                note_hijack(notes, name_of(model.router), shares, caught)
            for name in caught:
                _warn(f"{called}: expert {quote(name)} {in_words(shares[name], len(shares))} {HINT}")


def _leave_out(model: RoutedModel, called: str, limit: float) -> None:
    while (shares := model.shares()) and max(shares.values()) > limit:
        largest = next(iter(shares))
        if len(shares) == 1:
            what = f"{called}: expert {quote(largest)} is the last one, and takes {shares[largest]:.0%}."
            raise LibraryError("E-EMPTY", what, f"Allow more than max_share={limit:g}, or route without it.")
        _warn(f"{called}: expert {quote(largest)} takes {shares[largest]:.0%} of a plain text: it is left out.")
        model.remove(largest)


def _warn(told: str) -> None:
    warnings.warn(f"warning[{CODE}] {told}", RuntimeWarning, stacklevel=4)


@contextlib.contextmanager
def _detached_on_error(model: RoutedModel) -> Iterator[None]:
    try:
        yield
    except BaseException:
        model.detach()
        raise
