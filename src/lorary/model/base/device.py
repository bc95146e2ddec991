"""Where a base computes, and in what precision."""

import torch

from lorary.errors import ModelError, OptionError, known_names


def find_device(device: str) -> torch.device:
    """Give a device by its name; "auto" is the first GPU, if there is one. Raises E-DEVICE."""
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError("E-DEVICE", f"device {device!r} can't be used: {str(error).partition(chr(10))[0]}") from error


def describe_device() -> str:
    """Say where bases compute by default, and how: `cpu, float32, 2 threads`."""
    device = find_device("auto")
    dtype = str(find_dtype("auto", device)).removeprefix("torch.")
    return f"{device}, {dtype}, {torch.get_num_threads()} threads"


def find_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Give a precision by its name; "auto" is bfloat16 where a device computes faster with it. Raises E-OPTION."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto":
        if dtype not in known:
            raise OptionError("E-OPTION", f"dtype {dtype!r} is unknown.", known_names(dtype, ["auto", *known]))
        return known[dtype]
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return torch.bfloat16
