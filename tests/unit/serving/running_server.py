"""A server in a thread of this process, on a port of its own."""

import contextlib
import socket
import threading
import time

import uvicorn

from lorary.serving.app import Options, make_app


@contextlib.contextmanager
def serving(on, options=None):
    """Serve a shelf; give the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(make_app(on, options or Options()), host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
