"""Which of a base's layers PEFT itself opens no adapter on, though lorary trains, routes and merges it.

Read off PEFT 0.21 and transformers 5.24: what a state space model computes in fused kernels is closed to it, and in a
mixture of experts it takes some names for those of the experts, wherever they stand.
"""

import warnings
from collections.abc import Iterable
from functools import cache

from transformers import conversion_mapping
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

CODE = "W-PEFT"
_STATE_SPACE = frozenset({"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"})
_FUSED = {
    "mixtral": frozenset({"gate", "w1", "w2", "w3"}),
    "qwen2_moe": frozenset({"gate", "gate_proj", "up_proj", "down_proj"}),
}


def closed_to_peft(model_type: str | None, sites: Iterable[str]) -> dict[str, str]:
    """Tell for which names of layers, among sites, PEFT opens no adapter on such a model, and why."""
    leaves = {site.rpartition(".")[2] for site in sites}
    if model_type in _STATE_SPACE:
        return dict.fromkeys(sorted(leaves & {"out_proj"}), "may be read by fused kernels, past any adapter")
    patterns: dict[str, str] = {"mixtral": "mixtral", **getattr(conversion_mapping, "_MODEL_TO_CONVERSION_PATTERN", {})}
    taken = _FUSED.get(patterns.get(model_type or "", ""), frozenset())
    return dict.fromkeys(sorted(leaves & taken), "is taken by PEFT for a layer of the model's own experts")


def warn_of_peft(model_type: str | None, sites: Iterable[str]) -> None:
    """Say, where it is so, that PEFT can't open what is written (W-PEFT)."""
    if closed := closed_to_peft(model_type, sites):
        name, why = next(iter(closed.items()))
        others = f" and {', '.join(map(repr, list(closed)[1:]))}" if closed.keys() - {name} else ""
        what = f"PEFT can't open an adapter on {name!r}{others} of a {model_type!r} base: {name!r} {why}. "
        hint = "lorary routes, merges and exports it; to use it elsewhere, leave these layers out of targets."
        warnings.warn(f"warning[{CODE}] {what}{hint}", RuntimeWarning, stacklevel=3)


@cache
def model_type_of(architecture: str) -> str | None:
    """Find what transformers calls the models of an architecture, such as a base's fingerprint names."""
    return next((kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name == architecture), None)
