"""A conversation at a terminal, or line by line from a pipe."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from lorary.cli.exit_codes import FAILED
from lorary.cli.printing.answers import print_stream, print_trace
from lorary.cli.printing.console import say
from lorary.errors import LoraryError, OptionError, known_names

if TYPE_CHECKING:
    from lorary.asking.chat import Chat
    from lorary.tasks.task import Tasks

HELP = """\
/router SPEC  route in another way from here on, e.g. arrow:top_k=2; alone: say how
/explain      show which experts the last question and answer use
/reset        forget all that was said
/help         this
/quit         end, as Ctrl-D does
Ctrl-C stops an answer. A line that begins with // is sent with one of them."""
_NAMES = ("/router", "/explain", "/reset", "/help", "/quit")


def talk(chat: "Chat", tasks: "Tasks | None") -> int:
    """Answer what is typed until it ends; give the exit code. tasks: for routers that need data.

    What is wrong with a line is said, and the next one is read; lines of a pipe that were wrong fail the command.
    """
    is_typed = sys.stdin.isatty()
    n_wrong = 0
    if is_typed:
        say("/help lists what can be typed.")
    for line in _lines(is_typed):
        try:
            if line.startswith("/") and not line.startswith("//"):
                if not _obey(line, chat, tasks):
                    break
            else:
                _answer(chat, line.removeprefix("/") if line.startswith("//") else line)
        except LoraryError as error:
            n_wrong += 1
            say(str(error))
    return FAILED if n_wrong and not is_typed else 0


def _lines(is_typed: bool) -> Iterator[str]:
    """Give lines that aren't blank, of a terminal with its history and editing."""
    if is_typed:
        with contextlib.suppress(ImportError):  # not on Windows
            import readline  # noqa: F401
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # what is none is told by its line
    while True:
        try:
            line = input("> ") if is_typed else sys.stdin.readline()
        except EOFError:
            print()
            return
        if not line and not is_typed:
            return
        if line.strip():
            yield line.strip()


def _obey(line: str, chat: "Chat", tasks: "Tasks | None") -> bool:
    """Do what a line that begins with / says; give whether the conversation goes on."""
    name, _, rest = line.partition(" ")
    if name == "/router":
        _route(rest.strip(), chat, tasks)
    elif name == "/explain":
        print_trace(chat.explain())
    elif name == "/reset":
        chat.reset()
        say("forgotten.")
    elif name == "/help":
        say(HELP)
    elif name != "/quit":
        hint = f"{known_names(name, _NAMES)} To send it, begin it with //."
        raise OptionError("E-NAME", f"there is no {name}.", hint)
    return name != "/quit"


def _route(spec: str, chat: "Chat", tasks: "Tasks | None") -> None:
    from lorary.model.base.base_model import BaseModel
    from lorary.options import to_spec

    if isinstance(chat.model, BaseModel):
        raise OptionError("E-OPTION", "the bare base has no experts to route to.", "Talk to a library.")
    if spec:
        chat.model.set_router(spec, tasks=tasks)
    say(f"router: {to_spec(chat.model.router)}")


def _answer(chat: "Chat", text: str) -> None:
    with _stoppable() as is_stopped:
        pieces = chat.say(text)
        try:
            print_stream(pieces, is_stopped=is_stopped)
        finally:
            pieces.close()  # what was given becomes part of what was said


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C stop the answer alone; the second does what it does elsewhere."""
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)
