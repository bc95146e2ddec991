"""How a gate is asked."""

import torch
from torch import Tensor

from lorary.routing.contract import Context, Gate, Routing


def ask(gate: Gate, h: Tensor, context: Context) -> Routing:
    """Route in float32 under autocast too: in half precision other experts would win."""
    device = h.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # not of "meta", to say one
        with torch.autocast(device, enabled=False):
            return ask(gate, h, context)
    routing: Routing = gate(h, context)
    return routing
