"""One LoRA as the GGUF file that llama.cpp's own converter makes of an adapter: its names, its order of rows, F32.

llama.cpp adds (alpha / rank of the tensor) B A. Its Llama has the two halves of each rotated head interleaved, so the
rows of B are put in that order at the layers that make queries and keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorary.adapters.contract import Weights
from lorary.errors import AdapterError, known_names
from lorary.extras import require_extra

FAMILIES: Mapping[str, tuple[str, bool]] = {
    "gemma": ("gemma", False),
    "gemma2": ("gemma2", False),
    "llama": ("llama", True),
    "mistral": ("llama", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
}
"""model_type -> what llama.cpp calls it, and whether it has queries and keys in another order."""


@dataclass(frozen=True)
class Shape:
    """What must be known of a base: its model_type, and how many blocks, heads and heads of keys it has."""

    model_type: str
    n_blocks: int
    n_heads: int
    n_key_heads: int


def require_family(model_type: str) -> None:
    """Refuse a family whose names and order aren't known here. Raises E-FEATURE, E-EXTRA."""
    if model_type not in FAMILIES:
        what = f"how llama.cpp has the layers of {model_type!r} isn't known here."
        hint = f"{known_names(model_type, sorted(FAMILIES))} Or convert a PEFT export with llama.cpp's own script."
        raise AdapterError("E-FEATURE", what, hint)
    require_extra("gguf", "export to GGUF")


def write_gguf(path: Path, weights: Mapping[str, Weights], base: Shape, *, name: str) -> None:
    """Write one adapter to a new file. Raises E-FEATURE for a family or a layer that llama.cpp hasn't, OSError."""
    import gguf

    require_family(base.model_type)
    family, is_turned = FAMILIES[base.model_type]
    arch = next(number for number, text in gguf.MODEL_ARCH_NAMES.items() if text == family)
    names = gguf.get_tensor_name_map(arch, base.n_blocks)
    alpha = max(w.rank for w in weights.values())
    writer = gguf.GGUFWriter(path, family)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_name(name)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    for site in sorted(weights):
        w, called = weights[site], names.get_name(f"{site}.weight", try_suffixes=(".weight",))
        if called is None:
            raise AdapterError("E-FEATURE", f"llama.cpp has no layer for site {site!r}.", "Leave it out of the export.")
        b = w.b.detach().double() * (w.scale * w.rank / alpha)
        if is_turned and (heads := _heads(site, base)):
            b = interleaved(b, heads)
        for factor, tensor in (("lora_a", w.a), ("lora_b", b)):
            writer.add_tensor(f"{called}.{factor}", tensor.detach().float().cpu().contiguous().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def interleaved(rows: Tensor, n_heads: int) -> Tensor:
    """Put the second half of each head's rows between those of the first, one by one; rows: (d_out, r)."""
    d_out = rows.shape[0]
    return torch.stack(rows.view(n_heads, 2, d_out // n_heads // 2, -1).unbind(1), dim=2).reshape(d_out, -1)


def _heads(site: str, base: Shape) -> int:
    return {"q_proj": base.n_heads, "k_proj": base.n_key_heads}.get(site.rpartition(".")[2], 0)
