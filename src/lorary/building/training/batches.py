"""Which examples a step sees, and how fast it learns: functions of the step's number and the seed alone."""

import math
from collections.abc import Sequence

import torch

from lorary.hashing import hash_json
from lorary.model.text.encoded_rows import length_at
from lorary.model.text.tokens import Encoded

BATCHES_PER_WINDOW = 8
"""Batches are cut from windows of this many, sorted by length: little padding, and still a shuffle."""


def mix_seed(seed: int, *parts: object) -> int:
    """Make a seed of its own for a purpose, the same on every machine."""
    return int(hash_json([seed, *parts])[:14], 16)


def schedule(step: int, n_steps: int, warmup: float, *, from_zero: bool = False) -> float:
    """Give the share of the peak rate for a step (from 0): linear up over the warm-up, then linear to 0 at the end.

    from_zero: as transformers has it: the first step's rate is 0, and a part of a step is no step of the warm-up.
    """
    n_warm = int(warmup * n_steps) if from_zero else math.ceil(warmup * n_steps)
    if step < n_warm:
        return (step if from_zero else step + 1) / n_warm
    return (n_steps - step) / max(1, n_steps - n_warm)


def batch_rows(rows: Sequence[Encoded], batch_size: int, step: int, seed: int) -> list[int]:
    """Choose the rows of a step: shuffled by epoch, similar lengths together; fewer rows than a batch are all taken."""
    per_epoch = max(1, len(rows) // batch_size)
    epoch, place = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(mix_seed(seed, "order", epoch))
    order = torch.randperm(len(rows), generator=generator)[: per_epoch * batch_size]
    number = int(torch.randperm(per_epoch, generator=generator)[place])
    # Only its window is sorted: there may be millions of rows.
    window, place_in_it = divmod(number, BATCHES_PER_WINDOW)
    start = window * BATCHES_PER_WINDOW * batch_size
    members = order[start : start + BATCHES_PER_WINDOW * batch_size].tolist()
    block = sorted(members, key=lambda i: (length_at(rows, i), i))
    return block[place_in_it * batch_size : (place_in_it + 1) * batch_size]


def is_evaluation(step: int, n_steps: int, n: int) -> bool:
    """Spread n evaluations over the run (steps count from 1), the last one at its end."""
    return step == n_steps or step * n // n_steps > (step - 1) * n // n_steps
