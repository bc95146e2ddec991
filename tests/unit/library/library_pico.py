"""Tiny PEFT directories, written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

D = 6
MODULES = ("q_proj", "v_proj")
SITES = tuple(f"model.layers.{i}.self_attn.{m}" for i in range(2) for m in MODULES)
BASE = dict.fromkeys(SITES, (D, D))
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": list(MODULES)}


def tensors(rank: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    result = {}
    for site in SITES:
        result[f"base_model.model.{site}.lora_A.weight"] = generator.normal(size=(rank, D)).astype(np.float32)
        result[f"base_model.model.{site}.lora_B.weight"] = generator.normal(size=(D, rank)).astype(np.float32)
    return result


def write_adapter(directory: Path, arrays: dict[str, Any] | None = None, *, seed: int = 0, **config: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors(seed=seed) if arrays is None else arrays, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return directory


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
