"""What a shell offers at the tab key, from names and folders alone: no torch, no error."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

Offer = Callable[[str], list[tuple[str, str]]]
"""Takes what was typed so far; gives what it may become, each with a word on it. Nothing: the shell offers files."""


def offer_methods(registry: str, *more: str) -> Offer:
    """Offer the names of all methods of one kind, other words, and "list". `registry`: the name in `lorary.folder`."""

    def offer(incomplete: str) -> list[tuple[str, str]]:
        from lorary import folder

        methods = getattr(folder, registry)
        near = [name for name in methods.names() if name.startswith(incomplete)]
        return [(name, methods.sentence(name)) for name in near] + _starting([*more, "list"], incomplete)

    return offer


def offer_words(*words: str) -> Offer:
    """Offer one of a few fixed words."""
    return lambda incomplete: _starting(words, incomplete)


def offer_word_or_file(*words: str) -> Offer:
    """Offer one of a few fixed words once it is begun, and files until then."""
    return lambda incomplete: _starting(words, incomplete) if incomplete else []


def offer_experts_in(incomplete: str) -> list[tuple[str, str]]:
    """Offer LIBRARY/EXPERT where what stands before the last slash is a library."""
    library, slash, begun = incomplete.rpartition("/")
    if not slash:
        return []
    return [(f"{library}/{name}", "") for name in _experts(Path(library or "/")) if name.startswith(begun)]


def offer_experts(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer the experts of the library that the command line names."""
    library = ctx.params.get("library")
    return _starting(_experts(Path(library)), incomplete) if library else []


def _experts(library: Path) -> list[str]:
    from lorary.library.layout import Layout

    with contextlib.suppress(OSError):
        return Layout(library).expert_names()
    return []


def _starting(words: Iterable[str], incomplete: str) -> list[tuple[str, str]]:
    return [(word, "") for word in words if word.startswith(incomplete)]
