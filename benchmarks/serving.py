"""Concurrent clients of a server against one: tokens a second, by the clock and by the server's own CPU time.

python benchmarks/serving.py [--clients 1 8] [--new-tokens 16] [--rounds 3] [--minutes 4] [--long 600]

Side by side in one run, on the embedded base, in float32, one thread each, greedy, over HTTP: `lorary serve` with a
library of random experts routed by compass, its bare base, and `transformers serve` on the bare base. In a round each
is asked by so many clients at once, one chat each; `speedup` is over one client of the same server in the same round.
No round begins once `--minutes` are over. On a machine that others use believe the CPU time, not the clock. `first_ms`:
the wait for a short request's first token while a prompt of `--long` tokens is read, beside the same alone.
"""

import argparse
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from timing import one_thread, save, table
from transformers.utils.import_utils import is_serve_available

from lorary.model.base.base_model import load_base
from lorary.testing.pico import random_library

QUESTIONS = ("Why is the sky blue?", "Name three rivers.", "Write a poem about rain.", "What is 17 + 25?")
SERVED_WITHIN_S = 900


@dataclass(frozen=True)
class Server:
    """One that answers: what it is called here and what a request calls its model."""

    name: str
    model: str
    address: str
    process: psutil.Process

    def ask(self, question: str, n_new: int) -> int:
        messages = [{"role": "user", "content": question}]
        asked = {"model": self.model, "messages": messages, "max_tokens": n_new, "temperature": 0}
        answer = httpx.post(f"{self.address}/v1/chat/completions", json=asked, timeout=900).raise_for_status().json()
        return int(answer["usage"]["completion_tokens"])

    def cpu_seconds(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in [self.process, *self.process.children(recursive=True)])

    def measure(self, n_clients: int, n_new: int) -> dict[str, float]:
        cpu, start = self.cpu_seconds(), time.monotonic()
        with ThreadPoolExecutor(n_clients) as pool:
            made = sum(pool.map(lambda i: self.ask(QUESTIONS[i % 4], n_new), range(n_clients)))
        return {"by_clock": made / (time.monotonic() - start), "by_cpu": made / (self.cpu_seconds() - cpu)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--long", type=int, default=600, help="tokens of the long prompt; 0: don't measure that")
    parser.add_argument("--experts", type=int, default=8)
    args = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder), args.experts) as servers:
        for server in servers:
            server.ask(QUESTIONS[0], 2)  # what is found out at the first call isn't measured
        loads = [os.getloadavg()[0]]
        rows = _rounds(servers, args)
        waits = _first_tokens(servers[0], args.long) if args.long else {}
        loads.append(os.getloadavg()[0])
    facts = {**waits, "new_tokens": args.new_tokens, "load_before_and_after": loads, "cores": os.cpu_count()}
    print(table(rows))
    print(facts)
    print("written to", save("serving", rows, **facts))


def _rounds(servers: list[Server], args: argparse.Namespace) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    end, n_rounds = time.monotonic() + 60 * args.minutes, 0
    while n_rounds < args.rounds and (not n_rounds or time.monotonic() < end):
        n_rounds += 1
        for server in servers:
            for n in args.clients:
                found.setdefault((server.name, n), []).append(server.measure(n, args.new_tokens))
                print(n_rounds, server.name, n, found[server.name, n][-1], flush=True)
    rows = []
    for (name, n), measured in found.items():
        row: dict[str, Any] = {"server": name, "clients": n, "rounds": n_rounds}
        for word in ("by_clock", "by_cpu"):
            first = [one[word] for one in found[name, args.clients[0]]]
            row[f"tokens_per_s_{word}"] = median(one[word] for one in measured)
            row[f"speedup_{word}"] = median(one[word] / alone for one, alone in zip(measured, first, strict=True))
        rows.append(row)
    return rows


def _first_tokens(server: Server, n_long: int) -> dict[str, float]:
    """Milliseconds to a short request's first token: alone, and while a long prompt is read; and to the long one's."""

    def first(prompt: str) -> float:
        start = time.monotonic()
        asked = {"model": server.model, "prompt": prompt, "max_tokens": 2, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{server.address}/v1/completions", json=asked, timeout=900) as stream:
            next(stream.iter_lines())
            return 1000 * (time.monotonic() - start)

    alone, beside, whole = median(first("The sky is") for _ in range(3)), [], []
    for _ in range(2):
        reading = threading.Thread(target=lambda: whole.append(first("word " * n_long)))
        reading.start()
        time.sleep(0.3)
        beside.append(first("The sky is"))
        reading.join()
    return {"first_ms_alone": alone, "first_ms_beside": median(beside), "first_ms_of_long": median(whole)}


@contextlib.contextmanager
def _servers(folder: Path, n_experts: int) -> Iterator[list[Server]]:
    """Start them; one after the other is asked, the others then use no CPU."""
    base = load_base()
    base.write(folder / "base")
    random_library(folder / "lib", base, n_experts)
    del base
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "lorary.cli.entry", "serve", folder / "lib", "--base", folder / "base"]
        command += ["--router", "compass", "--port", 0, "--device", "cpu", "--dtype", "float32"]
        ours = stack.enter_context(_started(command, folder / "ours.log"))
        address = _within(lambda: re.search(r"at (http://\S+)/v1", (folder / "ours.log").read_text()), ours)[1]
        servers = [Server("lorary: library", "lib", address, ours), Server("lorary: base", "base", address, ours)]
        if is_serve_available():
            servers.append(stack.enter_context(_transformers(folder)))
        else:
            print("transformers serve is left out: what it needs isn't installed")
        yield servers


@contextlib.contextmanager
def _transformers(folder: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder / "base", "--host", "127.0.0.1"]
    command += ["--port", port, "--device", "cpu", "--dtype", "float32"]
    with _started(command, folder / "theirs.log") as process:
        address = f"http://127.0.0.1:{port}"

        def is_up() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{address}/health").is_success
            return False

        _within(is_up, process)
        yield Server("transformers serve: base", str(folder / "base"), address, process)


@contextlib.contextmanager
def _started(command: list[Any], log: Path) -> Iterator[psutil.Process]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        process = psutil.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    except Exception:
        print(log.read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        process.wait(60)


def _within(found: Any, process: psutil.Process) -> Any:
    """Wait for something of a process that starts."""
    end = time.monotonic() + SERVED_WITHIN_S
    while not (what := found()):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > end:
            raise RuntimeError("the server didn't start")
        time.sleep(0.2)
    return what


if __name__ == "__main__":
    main()
