"""How gates are called."""

import torch
from torch import Tensor

from lorary.routing.contract import Context, Gate, Routing


def ask(gate: Gate, h: Tensor, context: Context) -> Routing:
    """Route in float32 under autocast too: in half precision other experts would win."""
    if torch.is_autocast_enabled(h.device.type):
        with torch.autocast(h.device.type, enabled=False):
            return ask(gate, h, context)
    routing: Routing = gate(h, context)
    return routing
