"""How work is followed while it lasts: how much of it is done, and lines for people."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Hears how much of some work is done, and how much there is; 0 of 0 while that isn't known."""

Tell = Callable[[str], None]
"""Hears a line on what is begun, found or passed over."""


def unheard(*_: object) -> None:
    """Nobody listens."""
