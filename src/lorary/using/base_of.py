"""Which base a library was made on, and what to load for it. Imports no torch."""

from pathlib import Path

from lorary.errors import ModelError, quote
from lorary.library.base_names import is_relative
from lorary.library.library import Library, names_of_base
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.named_bases import absence, find_base


def base_of(library: Library) -> str:
    """Give what to load for a library whose user named no base: the one that its experts name, or else the embedded.

    Nothing is fetched or opened just because somebody's files name it: it must be on this machine, and a path must have
    been named by the user before. Raises E-BASE otherwise, and if the experts name several.
    """
    return named_base_of(library)[1]


def named_base_of(library: Library) -> tuple[str, str]:
    """Give the name of a library's base, and what to load for it. Raises as `base_of`."""
    # Without a name the embedded one is meant.
    named = sorted({name or EMBEDDED for name in names_of_base(library)}) or [EMBEDDED]
    here = {name: find_base(name, library.base) for name in named}
    place = here[named[0]]
    if len(set(here.values())) == 1 and place is not None:
        return named[0], place
    what = f"library {quote(library.path.name)} was made on base {' and '.join(quote(name, 200) for name in named)}"
    if len(named) > 1:
        raise ModelError("E-BASE", f"{what}.", "Give the one to use with --base.")
    how = "Give it with --base, if you trust it." if Path(named[0]).is_dir() else "Give it with --base, to fetch it."
    how = "Give its directory with --base." if is_relative(named[0]) else how
    raise ModelError("E-BASE", f"{what}, which {absence(named[0])}.", how)
