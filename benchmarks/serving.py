"""Concurrent clients of a server against one after another: tokens a second, the first token, memory.

python benchmarks/serving.py [--clients 1 8 32] [--new-tokens 24] [--rounds 3] [--long 600] [--minutes 6] [--only WORD]

Side by side in one run, on the embedded base, in float32, one thread each, greedy, over HTTP: `lorary serve` with a
library of random experts, by compass and by arrow, and its bare base; `transformers serve` on the bare base
(`--theirs batching`: with its --continuous-batching too, which takes a minute to begin); and, in this process, what
`lorary answer` calls. In a round each is asked by so many clients at once; the next round begins at the other end.
`speedup` is over one client of the same server in the same round. On a machine that others use believe the CPU time.

Every part writes a line of JSON as soon as it is done, and takes `--part-s` at most, or its line says what failed; the
whole ends within `--minutes`, whatever was left to measure.
"""

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from servers import Deadline, Server, ours, theirs
from timing import RESULTS, machine, one_thread, table

from lorary.asking.answers import Prompt, Wish, answered
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.model.routed.route import route
from lorary.model.routed.routed_model import RoutedModel
from lorary.tasks.example import Example, Message
from lorary.testing.pico import random_library

SUBJECTS = (
    "the rain",
    "a river",
    "the moon",
    "an old ship",
    "a small town",
    "the winter",
    "two friends",
    "a long road",
)
ASKED = ("Write a poem about", "Tell me a long story of", "Explain what you know about", "Describe in many words")
QUESTIONS = [f"{asked} {what}." for asked in ASKED for what in SUBJECTS]
ROUTERS = [
    "compass:n_texts=4,n_tokens=16",
    "arrow",
]  # a short calibration: the router's work is the same, the start is quicker
ENDING_S = 15  # so long may servers take to end
ANSWER = "lorary answer: compass"


@dataclass
class Lines:
    """What was found so far, on disk as soon as it is known. part_s: the most that a part may take."""

    path: Path
    deadline: Deadline
    part_s: float
    found: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **line: Any) -> None:
        self.found.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def of(self, **facts: Any) -> list[dict[str, Any]]:
        return [one for one in self.found if all(one.get(key) == value for key, value in facts.items())]

    @contextlib.contextmanager
    def part(self, part: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Measure a part into the dict that is given; what fails or takes too long is said, and others go on."""
        line: dict[str, Any] = {}
        self.deadline.within(1)
        try:
            with self.deadline.alarm(self.part_s):
                yield line
        except (httpx.HTTPError, TimeoutError) as error:
            line = {"failed": f"{type(error).__name__}: {error}"}
        self.add(part=part, **facts, **line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="the first is what others are over")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--part-s", type=float, default=90)
    parser.add_argument("--long", type=int, default=600, help="tokens of the long prompt; 0: don't measure that")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--theirs", nargs="*", choices=("plain", "batching"), default=["plain"])
    parser.add_argument("--only", default="", help="a word in the names of those that are measured, such as base")
    parser.add_argument("--into", type=Path, default=RESULTS / "serving.jsonl")
    args = parser.parse_args()
    one_thread()
    args.into.unlink(missing_ok=True)
    lines = Lines(args.into, Deadline(60 * args.minutes - ENDING_S), args.part_s)
    lines.add(part="machine", **machine(), load=os.getloadavg()[0], cores=os.cpu_count())
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TimeoutError):
        _measure(Path(folder), args, lines)
    lines.add(part="end", load=os.getloadavg()[0])
    print(table(_summary(lines, args.clients[0])))


def _measure(folder: Path, args: argparse.Namespace, lines: Lines) -> None:
    """Take each part in turn; those that are wanted most come first, should the time not do for all."""
    base = load_base(dtype="float32")
    base.write(folder / "base")
    library = random_library(folder / "lib", base, args.experts)
    base.batch_tokens = 1 << 16  # as many as the server takes together
    with contextlib.ExitStack() as stack:
        start = time.monotonic()
        started = [stack.enter_context(ours(folder, ROUTERS, tuple(args.clients)))]
        for kind in args.theirs:
            more = ["--continuous-batching"] if kind == "batching" else []
            started.append(stack.enter_context(theirs(folder, more, tuple(args.clients[:2]))))
        servers = [server for one in started for server in one.servers(lines.deadline)]
        lines.add(part="start", seconds=time.monotonic() - start)
        model = stack.enter_context(route(base, Library.open(library.path), ROUTERS[0]))
        for server in servers:  # what is found out at the first call isn't measured
            with lines.part("first call", server=server.name) as line:
                begun = time.monotonic()
                server.ask(QUESTIONS[0], 2, args.part_s)
                line["seconds"] = time.monotonic() - begun
        if args.long:
            _first_tokens(servers[0], args.long, lines)
        _memory("before", servers, lines)
        _rounds(servers, model, args, lines)
        _memory("after", servers, lines)


def _memory(when: str, servers: list[Server], lines: Lines) -> None:
    """Tell what each process holds, the models of one together, and count the most anew."""
    for server in {server.process.pid: server for server in servers}.values():
        lines.add(part="memory", server=server.name, when=when, mb=server.memory_mb())
        server.forget_peak()


def _rounds(servers: list[Server], model: RoutedModel, args: argparse.Namespace, lines: Lines) -> None:
    """Ask everybody in turn, in every other round the other way round."""
    few, many = args.clients[:2], args.clients[2:]
    turns: list[tuple[Server | None, int]] = [(server, n) for server in servers for n in few]
    turns[len(few) : len(few)] = [(None, few[-1])]
    turns += [(server, n) for server in servers for n in many if n in server.clients]
    turns = [(server, n) for server, n in turns if args.only in (server.name if server else ANSWER)]
    for number in range(args.rounds):
        for server, n in turns if number % 2 == 0 else reversed(turns):
            if lines.deadline.seconds_left <= 0:
                return
            questions = QUESTIONS[: max(n, 2)]
            with lines.part("tokens", server=server.name if server else ANSWER, clients=n, round=number) as line:
                line |= (
                    server.measure(questions, n, args.new_tokens, args.part_s)
                    if server
                    else _answered(model, questions, args.new_tokens)
                )


def _answered(model: RoutedModel, questions: list[str], n_new: int) -> dict[str, float]:
    """Have a file of prompts answered, as `lorary answer --chat` does."""
    examples = [Example(q, "", "", messages=(Message("user", q, {}),)) for q in questions]
    made: list[int] = []  # each call gives each of its rows a token
    hook = model.base.hf.register_forward_pre_hook(
        lambda _, args, kwargs: made.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    cpu, start = time.process_time(), time.monotonic()
    for _ in answered(model, [Prompt({}, e) for e in examples], Wish(n_new)):
        pass
    cpu, clock = time.process_time() - cpu, time.monotonic() - start
    hook.remove()
    return {"tokens": sum(made), "by_clock": sum(made) / clock, "by_cpu": sum(made) / cpu}


def _first_tokens(server: Server, n_long: int, lines: Lines) -> None:
    """Milliseconds to a short request's first token: alone, and while a long prompt is read; and to the long one's."""

    def first(prompt: str, note: Callable[[float], None]) -> None:
        start = time.monotonic()
        asked = {"model": server.model, "prompt": prompt, "max_tokens": 2, "temperature": 0, "stream": True}
        with server.http.stream("POST", "/v1/completions", json=asked, timeout=lines.part_s) as stream:
            next(stream.iter_lines())
            note(1000 * (time.monotonic() - start))

    alone: list[float] = []
    beside: list[float] = []
    whole: list[float] = []
    with lines.part("first token", server=server.name, long=n_long) as line:
        for i in range(3):
            first("The sky is", alone.append)
            reading = threading.Thread(target=first, args=(f"{i} " + "word " * n_long, whole.append))
            reading.start()
            time.sleep(0.3)
            first("The sky is", beside.append)
            reading.join()
        line |= {"ms_alone": median(alone), "ms_beside": median(beside), "ms_of_long": median(whole)}


def _summary(lines: Lines, n_first: int) -> list[dict[str, Any]]:
    """Give a row for each server and number of clients: medians over the rounds."""
    rows = []
    for name, n in dict.fromkeys((line["server"], line["clients"]) for line in lines.of(part="tokens")):
        found = [line for line in lines.of(part="tokens", server=name, clients=n) if "failed" not in line]
        alone = {line["round"]: line for line in lines.of(part="tokens", server=name, clients=n_first)}
        row: dict[str, Any] = {"server": name, "clients": n, "rounds": len(found)}
        for word in ("by_clock", "by_cpu"):
            over = [line[word] / alone[line["round"]][word] for line in found if word in alone.get(line["round"], {})]
            row[f"tokens/s {word}"] = median(line[word] for line in found) if found else None
            row[f"speedup {word}"] = median(over) if over else None
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
