"""What numbers and names options may be: refused where they are given, not after a training."""

import dataclasses
import math
import numbers
import reprlib
import typing
from typing import Any

from lorary.errors import OptionError
from lorary.library.adapter_config import MAX_ALPHA, MAX_RANK

MAX_SEED = 2**32 - 1
"""The largest that all who draw by lot take."""


def check_positive(options: Any, *names: str) -> None:
    """Refuse options that must be finite numbers above zero, whole ones where the field is; None passes.

    Raises E-OPTION, as all here.
    """
    for name in names:
        value = getattr(options, name)
        if value is None:
            continue
        whole = _is_whole(options, name)
        if not _is_number(value, whole):
            _refuse(options, name, f"a {'whole' if whole else 'finite'} number above 0")
        if not value > 0:
            _refuse(options, name, "more than 0")


def check_finite(options: Any, *names: str) -> None:
    """Refuse options, or lists of them, that must be finite numbers."""
    for name in names:
        value = getattr(options, name)
        each = value if isinstance(value, tuple | list) else (value,)
        if not all(_is_number(one, whole=False) for one in each):
            _refuse(options, name, "finite numbers" if each is value else "a finite number")


def check_share(options: Any, name: str) -> None:
    """Refuse an option that must be a share, from 0 to 1."""
    value = getattr(options, name)
    if not _is_number(value, whole=False) or not 0 <= value <= 1:
        _refuse(options, name, "a share from 0 to 1")


def check_seed(options: Any) -> None:
    """Refuse a seed that isn't one for all who draw by lot."""
    if not _is_number(options.seed, whole=True) or not 0 <= options.seed <= MAX_SEED:
        _refuse(options, "seed", f"a whole number from 0 to {MAX_SEED}")


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
    """Refuse targets that are no list of names, or none."""
    targets = options.targets
    if not isinstance(targets, tuple | list) or not targets or not all(isinstance(name, str) for name in targets):
        _refuse(options, "targets", 'names of layers, as in ("attention",)')


def check_choice(options: Any, *names: str) -> None:
    """Refuse an option that is none of the words that its field lists."""
    for name in names:
        known = typing.get_args(_field(options, name).type)
        if getattr(options, name) not in known:
            _refuse(options, name, " or ".join(map(str, known)))


def _is_number(value: Any, whole: bool) -> bool:
    kind = numbers.Integral if whole else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(options: Any, name: str) -> bool:
    hint = _field(options, name).type
    return int in (hint, *typing.get_args(hint))


def _field(options: Any, name: str) -> "dataclasses.Field[Any]":
    return next(field for field in dataclasses.fields(options) if field.name == name)


def _refuse(options: Any, name: str, expected: str) -> typing.NoReturn:
    value = reprlib.repr(getattr(options, name))
    raise OptionError("E-OPTION", f"{type(options).__name__}: {name}={value}, expected {expected}.")
