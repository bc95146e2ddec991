"""What is asked or evaluated, as commands open it: usage errors in their words, and a word while it loads."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.options.completion import offer_word_or_file
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import Mix
from lorary.cli.printing.console import Bar, progress, say

if TYPE_CHECKING:
    from lorary.library.library import Library
    from lorary.model.base.base_model import BaseModel
    from lorary.using.open_model import Choice
    from lorary.using.target import Target

BARE = "base"
"""Stands for a library: the base alone; stands here too, so that the help imports nothing of its own home."""

_MANY = 32  # experts; fewer open in a moment

LibraryOrBase = Annotated[
    str,
    typer.Argument(
        metavar="LIBRARY",
        help=f"A library or a saved model; {BARE!r} is the base alone.",
        autocompletion=offer_word_or_file(BARE),
    ),
]
"""What may be asked and evaluated."""


def load(base: str, how: Loading) -> "BaseModel":
    """Load a base, saying so: it can take a while."""
    check_base(base)
    from lorary.model.base.base_model import load_base

    say(f"loading base {base} ...")
    return load_base(base, **how.options)


def check_base(base: str | None, library: "Library | None" = None) -> None:
    """Tell what the embedded base lacks here, if it is meant, before anything slow is imported. Raises E-EMBEDDED.

    base: None means that of the library, or without one the embedded one.
    """
    from lorary.using.target import require_base

    require_base(base, library)


def choose(
    path: str,
    reading: Reading,
    *,
    router: str | None,
    mix: Mix | None,
    base: str | None,
    tasks: str | None,
    tasks_option: str = "--tasks",
    max_share: float | None = None,
) -> "Choice":
    """Say which model is meant. `tasks`: for routers that need data. What is misspelt fails before what is slow."""
    from lorary.using.target import find_target

    target = find_target(path, base)
    if target.library is None:
        refuse_for_libraries(target, {"--router": router, "--mix": mix, tasks_option: tasks, "--max-share": max_share})
    from lorary.tasks.read import read_tasks

    data = read_tasks(tasks, **reading.options) if tasks else None
    from lorary.using.open_model import choose_model

    mixed: Any = None if mix is None else mix.value
    return choose_model(target, router=router, mix=mixed, tasks=data, max_share=max_share)


def refuse_for_libraries(target: "Target", given: Mapping[str, object]) -> None:
    """Refuse what only a library has use for, if it is given for the bare base or a saved model."""
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"{target.why_not_routed}; this is for libraries.", param_hint=option)


@contextmanager
def opened(choice: "Choice", how: Loading) -> Iterator[Any]:
    """Load the model that was chosen, give it, and leave the base as it was."""
    n_experts = len(choice.target.library or ())
    with ExitStack() as shown:
        bars: list[Bar] = []

        def report(done: int, total: int) -> None:
            if not bars:
                bars.append(shown.enter_context(progress("opening experts")))
            bars[0](done, total)

        model = choice.open(progress=report if n_experts >= _MANY else None, tell=say, **how.options)
    with model:
        yield model


@contextmanager
def through_template(model: Any) -> Iterator[None]:
    """Say of --chat what a base can't do with it. Raises E-CHAT."""
    from lorary.errors import LoraryError, ModelError

    if model.base.tokenizer.chat_template is None:
        hint = "Ask without --chat, or give one: --chat-template FILE, as an adapter may bring it."
        raise ModelError(
            "E-CHAT", f"--chat: base {str(model.base.directory or model.base.name)!r} has no chat template.", hint
        )
    try:
        yield
    except LoraryError as error:
        if error.code != "E-CHAT":
            raise
        raise ModelError("E-CHAT", f"--chat: {error.message}", "Ask without --chat, or mend the template.") from error
