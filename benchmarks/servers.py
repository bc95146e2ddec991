"""Servers to be measured, each in a process of its own: `lorary serve`, and `transformers serve` on the bare base."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

CHAT = "/v1/chat/completions"
_ENV = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)


class Deadline:
    """When a run has to be over, counted from the start of this process, its imports included."""

    def __init__(self, seconds: float) -> None:
        self._end = psutil.Process().create_time() + seconds

    @property
    def seconds_left(self) -> float:
        return self._end - time.time()

    def within(self, seconds: float) -> float:
        """Give so many seconds, or what is left of the run if that is less. Raises TimeoutError once it is over."""
        if self.seconds_left <= 0:
            raise TimeoutError("the run's time is over")
        return min(seconds, self.seconds_left)

    @contextlib.contextmanager
    def alarm(self, seconds: float) -> Iterator[None]:
        """Raise TimeoutError in the block once it takes longer than so many seconds, or than the run may."""

        def ring(*_: Any) -> None:
            raise TimeoutError(f"not done after {seconds:.0f} s")

        seconds = self.within(seconds)
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Server:
    """One that answers: what it is called here, what a request calls its model, and how many clients are sent to it."""

    name: str
    model: str
    process: psutil.Process
    http: httpx.Client
    clients: tuple[int, ...]

    def ask(self, question: str, n_new: int, within_s: float) -> int:
        """Ask once; give the number of tokens that were made."""
        messages = [{"role": "user", "content": question}]
        asked = {"model": self.model, "messages": messages, "max_tokens": n_new, "temperature": 0}
        answer = self.http.post(CHAT, json=asked, timeout=within_s).raise_for_status().json()
        return int(answer["usage"]["completion_tokens"])

    def measure(self, questions: list[str], n_clients: int, n_new: int, within_s: float) -> dict[str, float]:
        """Let so many clients ask at once, each a share of the questions, one after the other."""
        cpu, start = self.cpu_seconds(), time.monotonic()
        pool = ThreadPoolExecutor(n_clients)
        try:
            made = sum(pool.map(lambda question: self.ask(question, n_new, within_s), questions))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        clock = time.monotonic() - start
        return {"tokens": made, "by_clock": made / clock, "by_cpu": made / (self.cpu_seconds() - cpu)}

    def cpu_seconds(self) -> float:
        """Tell what the server has computed so far."""
        return sum(sum(one.cpu_times()[:2]) for one in [self.process, *self.process.children(recursive=True)])

    def memory_mb(self) -> dict[str, float]:
        """Tell what memory it holds now, and the most since `forget_peak`; only Linux tells the latter."""
        found = {"now": self.process.memory_info().rss / 1e6}
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            found["most"] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6  # type: ignore[index]
        return found

    def forget_peak(self) -> None:
        """Let the most memory be counted from here."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@dataclass(frozen=True)
class Started:
    """A process that is to serve, what it serves by name, and how many clients are sent to it."""

    models: dict[str, str]
    clients: tuple[int, ...]
    process: psutil.Process
    http: httpx.Client

    def servers(self, deadline: Deadline) -> list[Server]:
        """Wait until it serves."""
        while not self._is_up():
            if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError("the server didn't start")
            deadline.within(1)
            time.sleep(0.2)
        return [Server(name, model, self.process, self.http, self.clients) for name, model in self.models.items()]

    def _is_up(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/health", timeout=5).is_success
        return False


@contextlib.contextmanager
def ours(folder: Path, routers: list[str], clients: tuple[int, ...]) -> Iterator[Started]:
    """Serve a library, once for each router, and its bare base, by one process."""
    command = [sys.executable, "-m", "lorary.cli.entry", "serve", folder / "lib", "--base", folder / "base"]
    command += [word for router in routers for word in ("--router", router)]
    models = {f"lorary: {router.partition(':')[0]}": f"lib:{router}" for router in routers} | {"lorary: base": "base"}
    with _started(command, folder, models, clients) as started:
        yield started


@contextlib.contextmanager
def theirs(folder: Path, more: list[str], clients: tuple[int, ...]) -> Iterator[Started]:
    """Serve the bare base by transformers. It needs `pip install 'transformers[serving]'`."""
    command = [Path(sys.executable).with_name("transformers"), "serve", folder / "base", *more]
    models = {" ".join(["transformers serve: base", *more]): str(folder / "base")}
    with _started(command, folder, models, clients) as started:
        yield started


@contextlib.contextmanager
def _started(command: list[Any], folder: Path, models: dict[str, str], clients: tuple[int, ...]) -> Iterator[Started]:
    """Start a server, on one thread and a port of its own, and end it after the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*command, "--host", "127.0.0.1", "--port", port, "--device", "cpu", "--dtype", "float32"]
    log = folder / f"{port}.log"
    with log.open("w") as out:
        process = psutil.Popen(
            list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **_ENV}
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=_LIMITS) as http:
            yield Started(models, clients, process, http)
    except Exception:
        print(log.read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(10)
        if process.is_running():
            process.kill()
