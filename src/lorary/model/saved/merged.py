"""A library under a static routing, merged into the weights of its base: a directory like any other base."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Mix, Weights
from lorary.disk.arrival import arriving
from lorary.errors import AdapterError
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.provenance import require_same_base
from lorary.library.manifest import this_version
from lorary.model.attached.attachment import RoutedLinear
from lorary.model.base.base_model import BaseModel
from lorary.model.base.fingerprint import require_numbers
from lorary.model.saved.export import UNIFORM, Shares, mix_experts, plain_shares
from lorary.options import require

FACTS = "merged.json"
"""What was merged, beside the weights."""


def export_merged(
    base: BaseModel, experts: Mapping[str, Expert], shares: str | Shares | Mapping[str, Shares] = UNIFORM, *,
    into: Path | str, mix: Mix = "factors",
) -> Path:  # fmt: skip
    """Write a base that does by itself what these experts do on it in fixed shares; base and experts stay as they are.

    `load_base`, transformers, and whatever serves plain models open the directory. Sums are made in float32 and stored
    in the base's own dtype. Arguments and errors: see `export`; further, E-BASE for experts of another base, E-TARGET
    and E-SHAPE for layers that it hasn't, E-FEATURE for a base whose weights nothing can be added to: quantised, or
    shared by layers that are adapted apart; E-ATTACHED while experts are attached to it.
    """
    require("base", base, BaseModel, "a base model", "Load one: load_base().")
    mixed, members = mix_experts(experts, shares, mix)
    for name, expert in members.items():
        require_same_base(expert.provenance.base_fingerprint, base.fingerprint, name)
    require_numbers(base.hf)
    places = Counter(tensor.data_ptr() for tensor in base.hf.state_dict().values())
    merged = {f"{site}.weight": _sum(_layer(base, site, m.weights, places), m.weights) for site, m in mixed.items()}
    facts = {"mix": mix, "shares": plain_shares(shares), "created_by": this_version()}
    facts |= {"base": base.fingerprint, "experts": {name: expert.hash for name, expert in members.items()}}
    with arriving(into) as stage:
        base.write(stage, merged)
        (stage / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Path(into)


@torch.no_grad()
def _sum(layer: Any, weights: Weights) -> Tensor:
    """Add what stands at a site to the layer's own weight."""
    weight: Tensor = layer.weight
    delta = weights.delta().to(weight.device)
    return (weight.float() + (delta.T if hasattr(layer, "nf") else delta)).to(weight.dtype)


def _layer(base: BaseModel, site: str, weights: Weights, places: Mapping[int, int]) -> Any:
    """Give the layer of a site, to whose weight something can be added. places: who shares the memory of a weight."""
    if site not in base.sites:
        raise AdapterError("E-TARGET", f"the base has no linear layer {site!r}.", "Load the base of these experts.")
    found, known = (weights.d_in, weights.d_out), base.sites[site]
    if found != (known.d_in, known.d_out):
        what = f"site {site!r}: experts are {found[0]} -> {found[1]}, the base is {known.d_in} -> {known.d_out}."
        raise AdapterError("E-SHAPE", what, "Was it trained on another base?")
    layer: Any = base.hf.get_submodule(site)
    if isinstance(layer, RoutedLinear):
        raise AdapterError("E-ATTACHED", "the base carries a library.", "Detach the routed model first.")
    weight: Any = getattr(layer, "weight", None)
    if type(weight) not in (Tensor, nn.Parameter) or not weight.is_floating_point() or weight.dim() != 2:
        what = f"nothing can be added to the weight of {site!r}: it is quantised."
        raise AdapterError("E-FEATURE", what, "Load the base in float32 or bfloat16.")
    if places[weight.data_ptr()] > 1:
        what = f"the weight of {site!r} is shared with another layer, which would change too."
        raise AdapterError("E-FEATURE", what, "Export one PEFT adapter instead: --into DIR.")
    return layer
