"""Run the server until it is asked to end."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from lorary.errors import OptionError
from lorary.progress import Tell
from lorary.serving.app import Options, make_app
from lorary.serving.shelf import Shelf


def run(models: Shelf, options: Options, *, host: str, port: int, tell: Tell) -> None:
    """Serve until SIGINT or SIGTERM: then nobody else is let in, and answers under way get `options.patience_s`.

    tell: hears the address once the port is taken. Raises E-PORT.
    """
    taken = bind(host, port)
    config = uvicorn.Config(
        make_app(models, options),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(options.patience_s),
    )
    tell(f"http://{host}:{taken.getsockname()[1]}")
    with taken, on_end(lambda: None):  # uvicorn hears it first, and raises it once more when it is done
        uvicorn.Server(config).run(sockets=[taken])


@contextlib.contextmanager
def on_end(do: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM do this in a `with` block, and no more."""
    before = {number: signal.signal(number, lambda *_: do()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """Take a port; 0: a free one. Raises E-PORT."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        what = f"port {port} of {host} can't be taken: {error.strerror}."
        raise OptionError("E-PORT", what, "Give another --port; 0 takes a free one.") from error
    return made
