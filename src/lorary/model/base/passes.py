"""Hear how much passes through a base while it is asked or trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lorary.model.base.base_model import BaseModel

PER_GENERATED = 3
"""Passing one token of each row costs about as much as so many of them at once."""
PER_TRAINED = 3
"""A pass that gradients are wanted of costs so many, with its way back."""


@contextmanager
def count_passes(base: BaseModel, hear: Callable[[float], None]) -> Iterator[None]:
    """Hear in the block of each pass through a base as it ends: what it cost, in tokens that are merely read."""

    def listen(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: object) -> None:
        ids = options["input_ids"] if "input_ids" in options else args[0] if args else None
        if ids is not None:
            generated = PER_GENERATED if ids.shape[1] == 1 else 1
            hear(ids.numel() * generated * (PER_TRAINED if torch.is_grad_enabled() else 1))

    hook = base.hf.register_forward_hook(listen, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
