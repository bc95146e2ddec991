"""Concurrent clients of a served library against one after another: tokens a second, and the wait for a first token.

python benchmarks/serving.py [--clients 1 8 32] [--requests 32] [--new-tokens 48]

The embedded base with a library of random experts, routed by compass, greedy; one server in this process, asked over
HTTP. `first_ms`: of a short request that comes while a prompt of 1,500 tokens is read, against the same one alone.
"""

import argparse
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvicorn
from timing import one_thread, save, table

from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.serving.app import Options, make_app
from lorary.serving.scheduler import Limits
from lorary.serving.shelf import shelf
from lorary.testing.pico import random_library

QUESTIONS = ("Why is the sky blue?", "Name three rivers.", "Write a short poem about rain.", "What is 17 + 25?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--experts", type=int, default=8)
    args = parser.parse_args()
    one_thread()
    base = load_base()
    with tempfile.TemporaryDirectory() as folder:
        library = random_library(Path(folder) / "lib", base, args.experts)
        with shelf(base, [Library.open(library.path)], ["compass"], "factors") as on, _serving(on) as address:
            _ask(address, QUESTIONS[0], 4)  # what is found out at the first call isn't measured
            rows = [_row(address, n, args) for n in args.clients]
            waits = _first_tokens(address)
    print(table(rows))
    print(waits)
    print("written to", save("serving", rows, **waits, requests=args.requests, new_tokens=args.new_tokens))


def _row(address: str, n_clients: int, args: argparse.Namespace) -> dict[str, Any]:
    start = time.monotonic()
    with ThreadPoolExecutor(n_clients) as pool:
        made = list(pool.map(lambda i: _ask(address, QUESTIONS[i % 4], args.new_tokens), range(args.requests)))
    seconds = time.monotonic() - start
    row = {"clients": n_clients, "tokens": sum(made), "seconds": seconds, "tokens_per_s": sum(made) / seconds}
    print(row, flush=True)
    return row


def _ask(address: str, question: str, n_new: int) -> int:
    asked = {"model": "lib", "messages": [{"role": "user", "content": question}], "max_tokens": n_new, "temperature": 0}
    answer = httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=600).raise_for_status().json()
    return int(answer["usage"]["completion_tokens"])


def _first_tokens(address: str) -> dict[str, float]:
    """Milliseconds to a short request's first token: alone, and while a long prompt is read."""

    def first() -> float:
        start = time.monotonic()
        asked = {"model": "lib", "prompt": "The sky is", "max_tokens": 2, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{address}/v1/completions", json=asked, timeout=600) as stream:
            next(stream.iter_lines())
            return 1000 * (time.monotonic() - start)

    alone = median(first() for _ in range(5))
    long = {"model": "lib", "prompt": "word " * 1500, "max_tokens": 1, "temperature": 0}
    beside = []
    for _ in range(3):
        reading = threading.Thread(target=lambda: httpx.post(f"{address}/v1/completions", json=long, timeout=600))
        reading.start()
        time.sleep(0.3)
        beside.append(first())
        reading.join()
    return {"first_ms_alone": alone, "first_ms_beside_1500_tokens": median(beside)}


@contextmanager
def _serving(on: Any) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = make_app(on, Options(limits=Limits(rows=32, waiting=256)))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
