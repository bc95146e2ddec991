"""PEFT adapter directory <-> weights per site; the scale is resolved here, once."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lorary.adapters.base import Weights
from lorary.adapters.kinds.lora import LoRA
from lorary.adapters.low_rank import LowRankWeights
from lorary.errors import AdapterError
from lorary.library.expert import Expert
from lorary.library.scale import scale_of
from lorary.library.site_keys import PREFIX, site_tensors

MAX_ABS = 1e4
"""A factor entry beyond this is a broken file, not a trained adapter."""


def read_weights(expert: Expert) -> dict[str, Weights]:
    """Read one expert: site name -> weights, by memory map, in the file's own dtype.

    Raises E-NONFINITE for a NaN, an infinity or an absurd number, with its tensor and place.
    """
    weights: dict[str, Weights] = {}
    with safe_open(expert.weights_path, framework="pt") as file:
        for site, (a_key, b_key) in site_tensors(expert.header).items():
            a, b = file.get_tensor(a_key), file.get_tensor(b_key)
            for key, tensor in ((a_key, a), (b_key, b)):
                check_numbers(expert.name, key, tensor)
            weights[site] = LowRankWeights(a, b, scale_of(expert.config, site, a.shape[0]))
    return weights


def read_experts(library: Mapping[str, Expert]) -> dict[str, dict[str, Weights]]:
    """Read all experts of a library, in order of their names."""
    return {name: read_weights(library[name]) for name in sorted(library)}


def check_numbers(name: str, key: str, tensor: Tensor) -> None:
    """Raise E-NONFINITE for a NaN, an infinity or an absurd number in an expert's tensor, with its place."""
    bad = ~(tensor.abs() <= MAX_ABS)  # a NaN compares false
    if bad.any():
        index = tuple(int(i) for i in bad.nonzero()[0])
        raise AdapterError(
            "E-NONFINITE",
            f"expert {name!r}: tensor {key!r} has {int(bad.sum())} entries that are not numbers below {MAX_ABS:g}, "
            f"the first at {index}.",
            "Its training diverged; leave it out or train it again.",
        )


def write_weights(directory: Path, kind: LoRA, weights: Mapping[str, LowRankWeights], *, base_name: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors, float32, as PEFT has them.

    `kind` says rank and scale; sites that have others are named in rank_pattern and alpha_pattern.
    """
    tensors = {}
    for site in sorted(weights):
        tensors[f"{PREFIX}{site}.lora_A.weight"] = weights[site].a.detach().float().cpu().contiguous()
        tensors[f"{PREFIX}{site}.lora_B.weight"] = weights[site].b.detach().float().cpu().contiguous()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"base_model_name_or_path": base_name, **kind.peft_config(sorted(weights)), **_patterns(kind, weights)}
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _patterns(kind: LoRA, weights: Mapping[str, LowRankWeights]) -> dict[str, object]:
    other = {site: w for site, w in sorted(weights.items()) if w.rank != kind.rank}
    if not other:
        return {}
    power = 0.5 if kind.rslora else 1.0
    # Whole paths; a dot would match any letter.
    named = {"^" + site.replace(".", "\\.") + "$": w for site, w in other.items()}
    return {
        "rank_pattern": {key: w.rank for key, w in named.items()},
        "alpha_pattern": {key: w.scale * w.rank**power for key, w in named.items()},
    }
