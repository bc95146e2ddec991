"""A device that stands for an accelerator on a machine that has none: real numbers, strict about where they are.

It computes on the CPU and calls itself `lazy`, a type of device that torch knows and that needs no driver. As on a GPU,
an operation over tensors of several devices is refused. Unlike a GPU it counts: what made the host wait for the device,
what was sent to it, and how many kernels were launched. Backward passes work, which abort with torch's fake tensors.

What it can't show: another device's kernels and rounding, memory, streams, and speed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

FAR = "lazy"
"""What torch calls it: "lazy" or "lazy:0" is the first, "lazy:1" the second."""

_FUSED = "_get_fused_kernels_supported_devices"

_VALUES = {"_local_scalar_dense", "equal", "is_nonzero"}
"""Operations that give the host a number."""
_SIZES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
"""Operations whose result has a size that only the device knows."""
_COPIES = {"copy_", "_to_copy"}
_NOTHING = {"detach", "lift_fresh", "empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view"}
"""Operations that launch no kernel, besides views."""


@dataclass
class Traffic:
    """What was asked of the device.

    waits: operations that the host waited for, by name. sent: copies to the device that it waited for, too, as all but
    those that are said not to block. launched: operations that a kernel does, by name.
    """

    waits: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    launched: Counter[str] = field(default_factory=Counter)

    def forget(self) -> None:
        """Begin to count anew."""
        self.waits.clear()
        self.launched.clear()
        self.sent = 0


class FarTensor(Tensor):
    """A tensor of the device; `near` holds its numbers, and should be looked at by tests alone."""

    near: Tensor
    traffic: Traffic

    @staticmethod
    def __new__(cls, near: Tensor, device: torch.device, traffic: Traffic) -> "FarTensor":
        """Take numbers that lie on the CPU for numbers of the device."""
        found: FarTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype,
            device=device,
        )  # fmt: skip
        found.near, found.traffic = near, traffic
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Compute, where the device's mode isn't on, as in a hook of a backward pass."""
        traffic = next(t.traffic for t in tree_leaves((args, kwargs)) if isinstance(t, FarTensor))
        with _Mode(traffic):
            return func(*args, **(kwargs or {}))

    @property
    def data(self) -> Tensor:
        """The same numbers, without a history."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, FarTensor), "a tensor of another device"
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.near = value.near

    def data_ptr(self) -> int:
        """Say where the numbers lie: as long as they live, no others lie there."""
        return self.near.data_ptr()

    def tolist(self) -> Any:
        """Fetch the numbers, which the host waits for."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FarTensor({self.near}, device={self.device})"


class _Mode(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # where an operation that is made of others arrives whole
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return _compute(self.traffic, func, args, kwargs)


@contextmanager
def far_device() -> Iterator[Traffic]:
    """Let there be the device in the block, under the name FAR; gives what is counted."""
    traffic = Traffic()
    lifts, swaps = torch._C._only_lift_cpu_tensors(), torch.__future__.get_swap_module_params_on_conversion()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=FAR) makes it here, and has it sent
    torch.__future__.set_swap_module_params_on_conversion(True)  # a moved module keeps its parameters, as on a GPU
    try:
        known = patch.object(torch, FAR, _Functions, create=True), patch.object(optimizer, _FUSED, lambda: ["cpu", FAR])
        with known[0], known[1], _Mode(traffic):
            yield traffic
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
        torch.__future__.set_swap_module_params_on_conversion(swaps)


class _Functions:
    """What torch looks for under the name of a type of device."""

    @staticmethod
    def device_count() -> int:
        return 2

    @staticmethod
    def get_rng_state(device: object) -> Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: Tensor, device: object) -> None:
        torch.set_rng_state(state)


def _compute(traffic: Traffic, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Do an operation on the CPU; what it gives is the device's if its arguments are, or if it is to be."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    name = func.overloadpacket.__name__
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    place = _placed(wanted) if wanted else _place(name, tensors)
    _count(traffic, func, name, tensors, place, at_leisure=_at_leisure(name, args, kwargs))
    to_cpu = {**kwargs, "device": torch.device("cpu")} if wanted and wanted.type == FAR else kwargs
    with torch.inference_mode(False), torch.no_grad():  # whether they may be written to, is the far tensors' affair
        found = func(*tree_map(_near, args), **tree_map(_near, to_cpu))
    if place.type != FAR:
        return found
    mine = {id(t.near): t for t in tensors if isinstance(t, FarTensor)}  # an operation in place gives its argument
    is_of_inference = torch.is_inference_mode_enabled() and not (func.is_view and not tensors[0].is_inference())

    def far(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        with torch.inference_mode(is_of_inference):
            return mine[id(value)] if id(value) in mine else FarTensor(value, place, traffic)

    return tree_map(far, found)


def _near(value: Any) -> Any:
    return value.near if isinstance(value, FarTensor) else value


def _placed(device: torch.device) -> torch.device:
    return torch.device(FAR, device.index or 0) if device.type == FAR else device


def _place(name: str, tensors: list[Tensor]) -> torch.device:
    """Say where an operation is done. As on other devices, a single number of the CPU's may take part anywhere."""
    places = dict.fromkeys(t.device for t in tensors if t.dim() or isinstance(t, FarTensor))
    if len(places) > 1 and name not in _COPIES:
        where = ", ".join(map(str, places))
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} found some on {where}")
    return next(iter(places), torch.device("cpu"))


def _at_leisure(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    given = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
    return bool(given)


def _count(
    traffic: Traffic, func: Any, name: str, tensors: list[Tensor], place: torch.device, *, at_leisure: bool
) -> None:
    from_far = any(isinstance(t, FarTensor) for t in tensors[-1:])
    if name in _COPIES and from_far != (place.type == FAR):
        if from_far:
            traffic.waits[name] += 1
        elif not at_leisure:
            traffic.sent += 1
    elif not any(isinstance(t, FarTensor) for t in tensors) and place.type != FAR:
        return
    elif name in _VALUES or name in _SIZES or _chooses_by_truth(name, tensors):
        traffic.waits[name] += 1
    if place.type == FAR and not func.is_view and name not in _NOTHING:
        traffic.launched[name] += 1


def _chooses_by_truth(name: str, tensors: list[Tensor]) -> bool:
    return name in {"index", "index_put", "index_put_"} and any(t.dtype == torch.bool for t in tensors[1:])
