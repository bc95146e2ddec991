"""`lorary chat`: a conversation with a library."""

from typing import Annotated

import typer

from lorary.cli.models import LibraryOrBase, choose, opened
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import (
    BaseOfLibrary,
    HowToMix,
    MaxShare,
    Router,
    StopTexts,
    TasksOfLibrary,
    count_option,
)
from lorary.cli.options.sampling import HowToSample


def chat(
    library: LibraryOrBase,
    router: Router = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: TasksOfLibrary = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="System message: comes before the conversation.")] = "",
    max_new_tokens: Annotated[int, count_option("Longest answer, in tokens.")] = 256,
    stop: StopTexts = None,
    *,
    sample: HowToSample,
    how: Loading,
    reading: Reading,
) -> int:
    """Talk to a library, a line a turn; /help lists what else can be typed. Ctrl-C stops an answer, Ctrl-D ends."""
    sampling = sample.sampling()
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    from lorary.asking.chat import Chat
    from lorary.cli.chatting import talk

    with opened(choice, how) as model:
        talked = Chat(model, max_new_tokens=max_new_tokens, stop=stop or (), sampling=sampling, system=system)
        return talk(talked, choice.tasks)
