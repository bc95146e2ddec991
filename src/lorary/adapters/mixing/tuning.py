"""Which strategy mixes a bank fastest: a rule from the sizes, corrected by what this machine measured once.

$LORARY_STRATEGY: "auto" (default) measures on CPUs and NVIDIA's GPUs when a bank is attached and keeps the outcome in
lorary's cache; "rule" measures nothing; the name of a strategy takes that one wherever experts are chosen. All give the
same numbers up to rounding. A call never measures: what it takes follows from sizes and cache alone.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from lorary.adapters.mixing.on_gpu import kernels_for
from lorary.disk.reading import cache_directory
from lorary.disk.writing import write_whole
from lorary.errors import LibraryError, OptionError, known_names

Strategy = Literal["dense", "dense_in", "chosen", "gathered", "kernel"]
KERNEL: Strategy = "kernel"
"""Triton's, where there is one (`on_gpu`)."""
STRATEGIES: tuple[Strategy, ...] = tuple(s for s in get_args(Strategy) if s != KERNEL)
"""Those of torch's operations, on any device."""
_WORDS = (*STRATEGIES, KERNEL)
Run = Callable[[Strategy], object]
TOKENS = (1, 8, 64, 512)
"""Numbers of tokens that are measured; a call follows the nearest, in ratio."""

_LIMITS = (2, 22, 181)
_WORTH_MEASURING = 1 << 14  # factor entries: below, the strategies differ by microseconds
_MARGIN = 0.9  # the rule's choice stands unless another needs less than this part of its time
_ROUNDS = 7
_MOST_GATHERED = 8  # tokens whose rows may be copied
_VARIABLE = "LORARY_STRATEGY"
_FILE = "strategies-2.json"  # count on when a strategy becomes faster, so that it is measured again


@dataclass(frozen=True)
class Plan:
    """How to mix a bank of n_rows, by number of tokens and of kept experts; rank is the largest.

    `measured`: the fastest strategy at each of TOKENS when n_kept experts speak; None where nothing was measured.
    """

    n_rows: int
    rank: int
    forced: Strategy | None = None
    n_kept: int | None = None
    measured: tuple[Strategy, ...] | None = None

    def grown(self, n_rows: int, rank: int) -> "Plan":
        """Give the plan for a bank with other rows: what was measured holds until their size class changes."""
        known = self.measured if (_size_class(n_rows), rank) == (_size_class(self.n_rows), self.rank) else None
        return replace(self, n_rows=n_rows, rank=rank, measured=known)

    def choose(self, n_tokens: int, n_kept: int, dtype: torch.dtype) -> Strategy:
        """Choose for one call."""
        if self.forced:
            return self.forced
        if self.measured is None or n_kept != self.n_kept:
            return self.by_rule(n_tokens, n_kept, dtype)
        return self.measured[sum(n_tokens > limit for limit in _LIMITS)]

    def by_rule(self, n_tokens: int, n_kept: int, dtype: torch.dtype) -> Strategy:
        """Choose from the sizes: chosen rows cost a few times more each than rows in a dense product.

        The numbers are those of `benchmarks/layer.py`; in half precision dense products are faster, sums aren't.
        """
        n_chosen = n_kept * self.rank
        if self.n_rows <= 3 * n_chosen:
            return "dense"
        if dtype != torch.float32 and n_tokens > _LIMITS[1] and self.n_rows <= 20 * n_chosen:
            return "dense_in"
        return "gathered" if n_tokens <= _LIMITS[0] else "chosen"


def forced_strategy() -> Strategy | None:
    """Read the strategy that $LORARY_STRATEGY prescribes, if any. Raises E-OPTION for a word it doesn't know."""
    word = _word()
    return next((s for s in _WORDS if s == word), None)


def measures() -> bool:
    """Tell whether $LORARY_STRATEGY lets strategies be measured."""
    return _word() == "auto"


@contextlib.contextmanager
def nothing_measured() -> Iterator[None]:
    """Choose strategies by rule in the block, unless $LORARY_STRATEGY says how.

    What is measured may be otherwise the next time, and sums then round otherwise.
    """
    given = os.environ.get(_VARIABLE)
    os.environ.setdefault(_VARIABLE, "rule")
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(_VARIABLE, None)


def _word() -> str:
    word = os.environ.get(_VARIABLE, "auto")
    known = ("auto", "rule", *_WORDS)
    if word not in known:
        raise OptionError("E-OPTION", f"unknown LORARY_STRATEGY {word!r}.", known_names(word, known))
    return word


def measured(
    plan: Plan, d_in: int, d_out: int, dtype: torch.dtype, device: torch.device, trial: Callable[[int], Run]
) -> tuple[Strategy, ...] | None:
    """Give the fastest strategy at each of TOKENS: from the cache, else by timing `trial(n_tokens)(strategy)`, once.

    The kernels take part where there are some; on a GPU it is waited for after each round.

    None where it isn't worth it. The rows enter as the next power of two, so that a library that grows by one expert
    isn't measured again.
    """
    if plan.n_kept is None or plan.n_rows * (d_in + d_out) < _WORTH_MEASURING:
        return None
    path = cache_directory() / _FILE
    sizes = f"rows={_size_class(plan.n_rows)} rank={plan.rank} kept={plan.n_kept} {d_in}->{d_out} {dtype}"
    key = f"{_machine(device)} {sizes}"
    with_kernel = kernels_for(torch.empty(0, device=device)) is not None
    known = _read(path)
    if key not in known:
        fastest = [_fastest(plan, n, dtype, device, trial(n), with_kernel=with_kernel) for n in TOKENS]
        _keep(path, {**_read(path), key: fastest})
        return tuple(fastest)
    return tuple(
        usual if s == KERNEL and not with_kernel else s
        for s, usual in zip(known[key], _usual(plan, dtype), strict=True)
    )


def _size_class(n_rows: int) -> int:
    return 1 << (n_rows - 1).bit_length()


def _usual(plan: Plan, dtype: torch.dtype) -> Iterator[Strategy]:
    return (plan.by_rule(n, plan.n_kept or 1, dtype) for n in TOKENS)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} torch={torch.__version__}"
    return f"{torch.backends.cpu.get_cpu_capability()} threads={torch.get_num_threads()} torch={torch.__version__}"


def _fastest(
    plan: Plan, n_tokens: int, dtype: torch.dtype, device: torch.device, run: Run, *, with_kernel: bool
) -> Strategy:
    possible = [s for s in STRATEGIES if s != "gathered" or n_tokens <= _MOST_GATHERED]
    possible += [KERNEL] * with_kernel
    first = {s: _seconds(run, s, n_tokens, device, warm=True) for s in possible}
    close = [s for s in possible if first[s] < 3 * min(first.values())]
    usual = plan.by_rule(n_tokens, plan.n_kept or 1, dtype)
    rounds = [{s: _seconds(run, s, n_tokens, device) for s in close} for _ in range(_ROUNDS)]
    cost = {s: min(r[s] for r in rounds) for s in close}  # what else the machine does only adds
    best = min(close, key=lambda s: cost[s])
    return usual if usual in cost and cost[best] > _MARGIN * cost[usual] else best


def _seconds(run: Run, strategy: Strategy, n_tokens: int, device: torch.device, *, warm: bool = False) -> float:
    on_gpu = device.type == "cuda"
    n = 32 if on_gpu else max(1, 32 // n_tokens)
    if warm:
        run(strategy)
    if on_gpu:
        torch.cuda.synchronize(device)
    # Waiting for a core isn't the strategy's fault; with several threads only the wall clock sees them all.
    clock = time.thread_time if torch.get_num_threads() == 1 and not on_gpu else time.perf_counter
    start = clock()
    for _ in range(n):
        run(strategy)
    if on_gpu:
        torch.cuda.synchronize(device)
    return (clock() - start) / n


def _read(path: Path) -> dict[str, tuple[Strategy, ...]]:
    """Read what was measured; a cache that can't be understood counts as empty."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, Mapping) else ()
    return {key: tuple(value) for key, value in entries if _is_choice(value)}


def _is_choice(value: object) -> bool:
    return isinstance(value, list) and len(value) == len(TOKENS) and all(v in _WORDS for v in value)


def _keep(path: Path, entries: Mapping[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(entries, indent=1, sort_keys=True).encode())
    except (OSError, LibraryError):
        return  # a cache that can't be written is measured again next time
