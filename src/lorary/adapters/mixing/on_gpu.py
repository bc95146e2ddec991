"""Where the Triton kernels are taken: on a GPU whose Triton makes them give what torch's operations give.

torch brings Triton for NVIDIA's and AMD's GPUs. Like the compiled operators of the CPU they are for calls without
gradients, and $LORARY_COMPILED=off leaves them out. A compiler of whole models makes kernels of its own.
"""

import functools
import importlib.util
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from lorary.adapters.bank_rows import Layout

_CODE = "W-KERNEL"
MOST_SCORES = 4096
"""As many experts' scores one program holds."""
_INTERPRETED = "TRITON_INTERPRET"  # Triton's own: kernels are run on the CPU, step by step


def kernels_for(x: Tensor) -> Any:
    """Give the module of the kernels if they fit a call with x, else None."""
    if not x.is_cuda and os.environ.get(_INTERPRETED) != "1":
        return None
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or type(x) is not Tensor:
        return None
    return _proven(x.device)


@functools.cache
def _proven(device: torch.device) -> Any:
    """Try the kernels once on a device. Another answer than torch's, or none, is told of, and they are left out."""
    if os.environ.get("LORARY_COMPILED") == "off" or importlib.util.find_spec("triton") is None:
        return None
    from lorary.adapters.mixing import kernels

    try:
        with torch.no_grad():
            wrong = _differences(kernels, device)
    except Exception as error:  # Triton's and its compiler's are of many kinds
        wrong = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if not wrong:
        return kernels
    what = f"warning[{_CODE}] lorary's Triton kernels don't work on {device}: {wrong}."
    warnings.warn(f"{what} It uses torch's operations, which give the same.", RuntimeWarning, stacklevel=2)
    return None


def _differences(kernels: Any, device: torch.device) -> str:
    """Say what is wrong with a small call; nothing if all is right."""
    generator = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(n, 40, generator=generator) for n in (3, 6, 6))
    layout, experts = Layout.of([2, 2, 2], [1.0, 2.0, 0.5], torch.device("cpu")), torch.tensor([[0, 2], [2, 1], [1, 0]])
    scores = torch.randn(3, 5, generator=generator)
    weights, kept = torch.softmax(scores.topk(2)[0], -1), scores.topk(2)[1]
    told = kernels.keep(scores.to(device), 2, 1.0)
    if not torch.equal(told[1].cpu(), kept) or not torch.allclose(told[0].cpu(), weights, atol=1e-5):
        return "it keeps other experts"
    z = torch.einsum("njrd,nd->njr", a.view(3, 2, 40)[experts], x)
    v = z * (weights * layout.scale[experts]).unsqueeze(-1)
    expected = x + torch.einsum("njr,njrd->nd", v, b.view(3, 2, 40)[experts])
    there = [t.to(device) for t in (x, x, a, b)]
    found = kernels.mix(*there, layout.to(device), weights.to(device), experts.to(device), is_factors=False)
    return "" if torch.allclose(found.cpu(), expected, atol=1e-3, rtol=1e-4) else "it mixes to other numbers"
