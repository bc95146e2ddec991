"""What numbers and names options may be, beyond their types: refused where they are given, not after a training."""

from typing import Any

from lorary.library.adapter.config import MAX_ALPHA, MAX_RANK
from lorary.options import check_positive, refuse_value


def check_share(options: object, name: str) -> None:
    """Refuse an option that must be a share, from 0 to 1. Raises E-OPTION, as all here."""
    if not 0 <= getattr(options, name) <= 1:
        refuse_value(options, name, "a share from 0 to 1")


def check_rank(options: Any) -> None:
    """Refuse a rank that no library takes; None passes."""
    check_positive(options, "rank")
    if options.rank is not None and options.rank > MAX_RANK:
        refuse_value(options, "rank", f"at most {MAX_RANK}")


def check_adapter(options: Any) -> None:
    """Refuse a rank, an alpha or targets that no adapter may have."""
    check_rank(options)
    check_positive(options, "alpha")
    if options.alpha > MAX_ALPHA:
        refuse_value(options, "alpha", f"at most {MAX_ALPHA:,}")
    check_targets(options)


def check_targets(options: Any) -> None:
    """Refuse a list of targets that names none."""
    if not options.targets:
        refuse_value(options, "targets", 'names of layers, as in ("attention",)')
