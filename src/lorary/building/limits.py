"""What numbers and names options may be, beyond their types: refused where they are given, not after a training."""

import reprlib
from typing import Any, NoReturn

from lorary.errors import OptionError
from lorary.library.adapter.config import MAX_ALPHA, MAX_RANK
from lorary.options import name_of


def check_positive(options: Any, *names: str) -> None:
    """Refuse options that aren't above zero; None passes. Raises E-OPTION, as all here."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            _refuse(options, name, "more than 0")


def check_share(options: Any, name: str) -> None:
    """Refuse an option that must be a share, from 0 to 1."""
    if not 0 <= getattr(options, name) <= 1:
        _refuse(options, name, "a share from 0 to 1")


def check_rank(options: Any) -> None:
    """Refuse a rank that no library takes; None passes."""
    check_positive(options, "rank")
    if options.rank is not None and options.rank > MAX_RANK:
        _refuse(options, "rank", f"at most {MAX_RANK}")


def check_adapter(options: Any) -> None:
    """Refuse a rank, an alpha or targets that no adapter may have."""
    check_rank(options)
    check_positive(options, "alpha")
    if options.alpha > MAX_ALPHA:
        _refuse(options, "alpha", f"at most {MAX_ALPHA:,}")
    check_targets(options)


def check_targets(options: Any) -> None:
    """Refuse a list of targets that names none."""
    if not options.targets:
        _refuse(options, "targets", 'names of layers, as in ("attention",)')


def _refuse(options: Any, name: str, expected: str) -> NoReturn:
    value = reprlib.repr(getattr(options, name))
    raise OptionError("E-OPTION", f"{name_of(options)}: {name}={value}, expected {expected}.")
