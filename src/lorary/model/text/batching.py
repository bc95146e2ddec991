"""How many texts go through the base at once: as many as serve its speed and its memory holds."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import TypeVar

import torch

from lorary.errors import ModelError
from lorary.model.sites import text_config
from lorary.model.text.reader import Reader
from lorary.model.text.tokens import Encoded

T = TypeVar("T")

_ON_CPU, _ON_DEVICE = 4096, 32768  # padded tokens: more are no faster
_ENOUGH_ON_CPU, _ENOUGH_ON_DEVICE = 512, 8192
_LEAST = 256
_SHARE = 0.25  # of the free memory
_NO_MEMORY = ("can't allocate memory", "out of memory")


def in_batches(
    base: Reader, rows: Sequence[Encoded], run: Callable[[list[int]], Sequence[T]], *, n_new: int = 0
) -> list[T]:
    """Run row numbers in padded batches of similar length; the results in the order of the rows.

    n_new: tokens that each row is to grow by. A batch that memory doesn't hold is halved, down to one row.
    Raises E-MEMORY for a row that it doesn't hold alone.
    """
    found: dict[int, T] = {}
    limits = {"max_tokens": base.batch_tokens or tokens_at_once(base), "n_new": n_new}
    if not n_new:  # to generate in more batches is more steps, each of which reads all weights
        limits["enough"] = enough_tokens(base.device)
    elif len(rows) > 1 and not base.calls.hides_padding:
        limits["max_rows"] = 1  # transformers mixes up the states of RWKV's rows from one token to the next
    for group in base.in_groups(rows, **limits):
        for part, results in halving(group, run, rows):
            found |= zip(part, results, strict=True)
    return [found[i] for i in range(len(rows))]


def enough_tokens(device: torch.device) -> int:
    """Give the padded tokens from which a batch is as fast, by the token, as a larger one."""
    return _ENOUGH_ON_CPU if device.type == "cpu" else _ENOUGH_ON_DEVICE


def tokens_at_once(base: Reader, *, steady: bool = False) -> int:
    """Give the padded tokens of a batch: as many as are fast, unless a quarter of the free memory holds fewer.

    steady: of the memory that the base leaves, whatever else fills it now: other batches round otherwise, and what is
    computed twice is to be the same.
    """
    most = _ON_CPU if base.device.type == "cpu" else _ON_DEVICE
    free = _left_bytes(base) if steady else _free_bytes(base.device)
    return most if free is None else max(_LEAST, min(most, int(_SHARE * free / _bytes_per_token(base))))


def _bytes_per_token(base: Reader) -> int:
    """Estimate what a token takes at most: keys and values, a block's activations, logits and their float32 copies."""
    config = text_config(base.hf)
    width, n_layers = config.hidden_size, config.num_hidden_layers
    inner = max(4 * width, *(site.d_out for site in base.sites.values()), width)
    size = base.dtype.itemsize
    head = getattr(base.hf.get_output_embeddings(), "out_features", None) or getattr(config, "vocab_size", width)
    return size * (2 * n_layers * width + 6 * inner) + head * (size + 8)


def _left_bytes(base: Reader) -> int | None:
    """Tell how much memory there is beside the base where it computes; None where that can't be told."""
    if base.device.type == "cuda":
        whole: int | None = int(torch.cuda.mem_get_info(base.device)[1])
    else:
        whole = _memory_bytes("MemTotal:", "SC_PHYS_PAGES") if base.device.type == "cpu" else None
    weights = sum(p.numel() * p.element_size() for p in base.hf.parameters())
    return None if whole is None else max(0, whole - weights)


def _free_bytes(device: torch.device) -> int | None:
    """Tell how much memory is free where the base computes; None where that can't be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _memory_bytes("MemAvailable:", "SC_AVPHYS_PAGES") if device.type == "cpu" else None


def _memory_bytes(line_of: str, pages: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith(line_of))
        return 1024 * kib
    except (OSError, ValueError, StopIteration):
        try:
            return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None


def halving(
    group: list[int], run: Callable[[list[int]], Sequence[T]], rows: Sequence[Sized]
) -> Iterator[tuple[list[int], Sequence[T]]]:
    """Run row numbers, or halves of them where memory doesn't hold all. Raises E-MEMORY for a row alone."""
    waiting = [group]
    while waiting:
        part = waiting.pop()
        try:
            yield part, run(part)
        except RuntimeError as error:  # also torch.OutOfMemoryError
            if not is_of_memory(error):
                raise
            if len(part) == 1:
                raise too_long(len(rows[part[0]])) from error
            waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
        else:
            continue
        give_back_memory()


def too_long(n_tokens: int) -> ModelError:
    """Say that memory doesn't hold a text alone."""
    what = f"a text of {n_tokens:,} tokens needs more memory than is free."
    return ModelError("E-MEMORY", what, "Give shorter texts, a lower max_tokens, or more memory.")


def is_of_memory(error: object) -> bool:
    """Tell whether an error says that memory didn't suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)


def give_back_memory() -> None:
    """Let go of what a call held that failed for want of memory."""
    gc.collect()  # the failed call's tensors hang on its traceback
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
