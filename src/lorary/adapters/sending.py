"""Tensors on their way to another device: the host goes on at once, unless that device can't have it so."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Give a tensor of the CPU's on a device, for operations to come there; on the CPU it is the tensor itself.

    A copy from ordinary memory makes the host wait for all that a GPU has still to do; one from pinned memory doesn't.
    """
    if device.type in ("cpu", "mps"):  # Metal reads the memory later, when others may have written to it
        return tensor.to(device)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Fetched:
    """Numbers on their way to the host: asked for now, read later, when they have long been there."""

    def __init__(self, *tensors: Tensor) -> None:
        """Ask for tensors of one device."""
        self._here = tensors
        self._there: torch.cuda.Event | None = None
        if tensors[0].device.type == "cuda":
            self._here = tuple(torch.empty_like(t, device="cpu", pin_memory=True) for t in tensors)
            for here, there in zip(self._here, tensors, strict=True):
                here.copy_(there, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record(torch.cuda.current_stream(tensors[0].device))

    def read(self) -> list[list[float]]:
        """Give each tensor's numbers; waits for what was to be done before they were asked for."""
        if self._there is not None:
            self._there.synchronize()
        return [tensor.tolist() for tensor in self._here]
