"""What `lorary` starts: Ctrl-C or SIGTERM ends it with a word, from before the first import until the process is gone.

`main` sees to it while a command runs. This is for the moments before, when Python would show a traceback from the
middle of some import, and for those after, when the interpreter clears away what the command used.
"""

import _signal  # what `signal` is made of, without its names, which take longer to make than everything here
import atexit
import os

from lorary.cli.exit_codes import INTERRUPTED

TYPE_CHECKING = False  # as in typing, which takes a while to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn


def main() -> None:
    """Run one command and exit with its code; see `lorary.cli.main`."""
    _hear(_leave)
    # What is registered first runs last: then nothing is left to stop, and soon nobody to hear it.
    atexit.register(_hear, _signal.SIG_IGN)
    from lorary.cli.main import main as run

    try:
        run()
    finally:
        _hear(_leave_silently)


def _hear(handler: "Callable[[int, FrameType | None], NoReturn] | _signal.Handlers | int") -> None:
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, handler)


def _leave(_number: int, _frame: "FrameType | None") -> "NoReturn":
    os.write(2, b"interrupted.\n")
    _leave_silently(_number, _frame)


def _leave_silently(_number: int, _frame: "FrameType | None") -> "NoReturn":
    os._exit(INTERRUPTED)  # nothing was begun, or all is done and written


if __name__ == "__main__":
    main()
