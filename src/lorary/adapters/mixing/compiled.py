"""Operators in C++ for calls of a few tokens: optional, built once with `python -m lorary.adapters.mixing.compiled`.

Decoding on a small model costs mostly the thirty operations that torch starts per layer, not what they compute; two
fused ones halve that. Once built, they lie in lorary's cache and are taken where they can be: float32 on the CPU, no
gradients, at most MOST_TOKENS tokens. $LORARY_COMPILED=off leaves them out. Results differ by rounding only.
"""

import functools
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorary.disk.processes import beside, collect_beside
from lorary.disk.reading import cache_directory
from lorary.errors import AdapterError
from lorary.hashing import short_key

MOST_TOKENS = 64
_SOURCE = Path(__file__).with_name("few_tokens.cpp")
_FLAGS = ["-O3", "-march=native", "-fopenmp-simd"]


def usable(x: Tensor) -> Any:
    """Give the operators if they are built and fit a call with x (..., d), else None."""
    if not is_plain(x) or torch.is_grad_enabled() or x.numel() > MOST_TOKENS * x.shape[-1]:
        return None
    return _operators()


def is_plain(x: Tensor) -> bool:
    """Tell whether x is float32 on the CPU and has numbers: a subclass or a tracer's may have none."""
    return type(x) is Tensor and x.dtype == torch.float32 and x.is_cpu and not torch.compiler.is_compiling()


@functools.cache
def _operators() -> Any:
    if os.environ.get("LORARY_COMPILED") == "off" or not (library := library_path()).exists():
        return None
    torch.ops.load_library(library)
    return torch.ops.lorary


def library_path() -> Path:
    """Name the library of this source, torch and processor, built or not."""
    key = short_key(_SOURCE.read_text("utf-8"), _FLAGS, torch.__version__, platform.machine(), _processor())
    return cache_directory() / f"few_tokens-{key}.so"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def build() -> Path:
    """Compile the operators into the cache, if they aren't there (about a minute). Raises E-COMPILER if that fails."""
    from torch.utils.cpp_extension import load  # needs a compiler at import on some systems

    target = library_path()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    collect_beside(target.parent)
    staging = beside(target)
    staging.mkdir()
    try:
        load("few_tokens", [str(_SOURCE)], extra_cflags=_FLAGS, build_directory=str(staging), is_python_module=False)
        os.replace(staging / "few_tokens.so", target)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        message = f"the operators could not be compiled: {reason}."
        raise AdapterError("E-COMPILER", message, "Install a C++ compiler and ninja, or go on without.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _operators.cache_clear()
    return target


if __name__ == "__main__":
    print(build())
