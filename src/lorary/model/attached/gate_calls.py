"""How gates are called."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from lorary.adapters.contract import Bank
from lorary.routing.contract import Context, Routing

Answer = TypeVar("Answer")

_products = torch.backends.cuda.matmul


def ask(gate: Callable[[Tensor, Context], Answer], h: Tensor, context: Context) -> Answer:
    """Route in float32, in whatever precision the model computes: with rounder scores other experts would win.

    So neither autocast nor TF32 is on meanwhile. What is compiled for a GPU keeps TF32 as it was set.
    """
    device = h.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # not of "meta", to say one
        with torch.autocast(device, enabled=False):
            return ask(gate, h, context)
    if device == "cuda" and not torch.compiler.is_compiling() and exact_products.are_needed:
        with exact_products:
            return gate(h, context)
    return gate(h, context)


def everybody(bank: Bank, h: Tensor) -> Routing:
    """Give every expert the weight 1 at every token."""
    return Routing(torch.ones(1, 1, 1, bank.n_experts, device=h.device))


class _ExactProducts:
    """Lets GPUs multiply float32 matrices in float32 in a block, not in TF32.

    torch's setting is of the process, and several threads may ask their gates: the last that leaves puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before = "high"

    @property
    def are_needed(self) -> bool:
        return self._n_inside > 0 or _products.fp32_precision == "tf32"

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_inside:
                self._before = _word_for_all()
                _products.allow_tf32 = False
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside:
                return
            if self._before == "medium":
                torch.set_float32_matmul_precision("medium")
            else:
                _products.allow_tf32 = True


exact_products = _ExactProducts()


def _word_for_all() -> str:
    """Read what the older of torch's two ways to set it says."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it says that the newer way was taken
        return "high"
