"""A worker of the local backend: reads its orders from stdin, works until all is done, exits with what came out.

Its parent holds the other end of stdin; when that closes, nobody looks after the worker any more, and it stops as by
SIGTERM: its pack is left for others, who go on from the last checkpoint.
"""

import os
import pickle
import signal
import sys
import threading
import traceback
from dataclasses import replace
from typing import Any, NoReturn

import torch

from lorary.errors import LoraryError
from lorary.work.worker import work_here

INTERRUPTED = 130


def main() -> int:
    """Work; give the exit code: 0 all is done, 1 not, and the last line written says why."""
    order, cores = pickle.load(sys.stdin.buffer)  # until it has work, SIGTERM may end it at once
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    torch.set_num_threads(cores)  # as in the parent, which may have been told; the packs' share is taken of them
    try:
        work_here(replace(order, ends_hung=True))
    except KeyboardInterrupt:
        print("interrupted.", flush=True)
        return INTERRUPTED
    except Exception as error:
        traceback.print_exc()
        print(error if isinstance(error, LoraryError) else f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    # Once: the parent asks, and then its end of stdin closes; a second one would break off the giving back of the pack.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock would be held when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
