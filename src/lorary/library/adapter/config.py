"""Check adapter_config.json, an untrusted file: types, ranges, and features that a library can't hold.

Accepted and used: r, lora_alpha, use_rslora, rank_pattern, alpha_pattern.
Accepted and compared with the tensors: target_modules, exclude_modules, layers_to_transform, layers_pattern.
Regular expressions are run within bounds (`foreign_patterns`). Never imported: auto_mapping, megatron_config.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorary.disk.reading import read_capped
from lorary.disk.strict_json import is_texts, parse_object
from lorary.errors import LibraryError, quote
from lorary.library.adapter.findings import Finding, error, warning
from lorary.library.adapter.scale import Patterns
from lorary.library.base_names import shared_name
from lorary.library.layout import CONFIG

BASE_NAME = "base_model_name_or_path"
MAX_BYTES = 1_000_000
MAX_RANK = 512
MAX_ALPHA = 1_000_000

FEATURES = {
    "use_dora": "DoRA",
    "lora_bias": "biases beside the factors",
    "modules_to_save": "whole trained modules",
    "trainable_token_indices": "trained tokens",
    "layer_replication": "replicated layers",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "PEFT's own Arrow",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
}
_HARMLESS_INITS = ("gaussian", "orthogonal", "eva", "mica", "lora_ga")
_CHANGED_BASE = {"pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "loftq": "LoftQ"}
"""How names of initialisations begin that move part of the base into the factors: the result fits only the rest."""
_DROPPED = ("auto_mapping", "megatron_config")
_NAMES_FILES = (BASE_NAME, "loftq_config", "eva_config", "corda_config", "lora_ga_config")
_WITHOUT_EFFECT = {
    BASE_NAME, "revision", "task_type", "peft_version", "inference_mode", "lora_dropout",
    "layers_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "qalora_group_size", "ensure_weight_tying", "runtime_config",
}  # fmt: skip


def read_config_bytes(directory: Path) -> bytes:
    """Read adapter_config.json as it is. Raises E-FILE, E-PATH or E-CONFIG."""
    return read_capped(directory / CONFIG, MAX_BYTES, "E-CONFIG")


def parse_config(data: bytes) -> dict[str, Any]:
    """Understand the bytes of adapter_config.json, strictly. Raises E-CONFIG."""
    return parse_object(data, CONFIG, "E-CONFIG")


def check_config(config: Mapping[str, object]) -> list[Finding]:
    """Find all that is wrong or doubtful in a parsed config. Runs no pattern and imports nothing it names."""
    if config.get("peft_type") != "LORA":
        return [error("E-CONFIG", f"peft_type {quote(config.get('peft_type'))} unsupported; LORA only.")]
    return [*_check_fields(config), *_check_patterns(config), *_check_features(config), *_check_inertia(config)]


def neutralised(config: Mapping[str, object]) -> dict[str, object]:
    """Copy a config without what imports code when PEFT loads it, and without paths of somebody's disk.

    The adapter stays the same, so does the order.
    """
    safe = {field: _unplaced(value) if field in _NAMES_FILES else value for field, value in config.items()}
    for field in _DROPPED:
        if safe.get(field):
            safe[field] = None
    return safe


def _unplaced(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unplaced(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unplaced(inner) for inner in value]
    return shared_name(value) if isinstance(value, str) else value


def config_bytes(config: Mapping[str, object]) -> bytes:
    """Write a config in the order it came in: of patterns that match a site, the first one counts."""
    return (json.dumps(config, indent=2) + "\n").encode()


# ---- fields: types and ranges -------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_alpha(value: Any) -> bool:
    return _is_number(value) and 0 < value <= MAX_ALPHA


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_names(value: Any) -> bool:
    return value is None or isinstance(value, str) or is_texts(value)


def _is_layers(value: Any) -> bool:
    return value is None or type(value) is int or (isinstance(value, list) and all(type(item) is int for item in value))


def _maps_to(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, dict) and all(accepts(item) for item in value.values()))


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_ALPHA_RANGE = f"a number above 0, at most {MAX_ALPHA:,}"
_RANK_RANGE = f"a whole number from 1 to {MAX_RANK}"
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_is_rank, _RANK_RANGE),
    "lora_alpha": (_is_alpha, _ALPHA_RANGE),
    "use_rslora": (_is_flag, "true or false"),
    "fan_in_fan_out": (_is_flag, "true or false"),
    "rank_pattern": (_maps_to(_is_rank), f"a mapping to {_RANK_RANGE}"),
    "alpha_pattern": (_maps_to(_is_alpha), f"a mapping to {_ALPHA_RANGE}"),
    "target_modules": (_is_names, "a list of names or a string"),
    "exclude_modules": (_is_names, "a list of names or a string"),
    "layers_to_transform": (_is_layers, "a list of layer numbers"),
    "layers_pattern": (_is_names, "a list of names or a string"),
    BASE_NAME: (lambda value: value is None or isinstance(value, str), "a string"),
    "init_lora_weights": (lambda value: _is_flag(value) or isinstance(value, str), "true, false or a name"),
}


def _check_fields(config: Mapping[str, Any]) -> list[Finding]:
    findings = [error("E-CONFIG", f"{field} is missing.") for field in ("r", "lora_alpha") if field not in config]
    for field, (accepts, expected) in _FIELDS.items():
        if field in config and not accepts(config[field]):
            findings.append(error("E-CONFIG", f"{field} is {quote(config[field])}, expected {expected}."))
    if findings:
        return findings
    ranks = {"r": config["r"], **{f"rank_pattern {quote(k)}": v for k, v in (config.get("rank_pattern") or {}).items()}}
    return [_too_large(name, rank) for name, rank in ranks.items() if rank > MAX_RANK]


def _too_large(name: str, rank: int) -> Finding:
    return error("E-LIMIT", f"{name} is {quote(rank)}, the limit is {MAX_RANK}.", "Compress the adapter by SVD first.")


# ---- patterns, features, the rest ---------------------------------------------------------------


def _check_patterns(config: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field)
        try:
            Patterns(patterns if isinstance(patterns, dict) else ())
        except LibraryError as caught:
            findings.append(error(caught.code, f"{field}: {caught.message}", caught.hint))
    return findings


def _check_features(config: Mapping[str, Any]) -> list[Finding]:
    hint = "Train it without, or merge it into plain LoRA with PEFT first."
    findings = [
        error("E-FEATURE", f"{field} ({meaning}) can't be mixed with other experts.", hint)
        for field, meaning in FEATURES.items()
        if config.get(field) not in (None, False, [], {})
    ]
    bias = config.get("bias")
    if bias not in (None, "none"):
        findings.append(error("E-FEATURE", f"bias={quote(bias)} changes the base; expected 'none'.", hint))
    return findings + _check_init(config.get("init_lora_weights"))


def _check_init(value: Any) -> list[Finding]:
    """Refuse factors that were trained on another base than the one they are to be added to.

    PEFT takes what it began with out of the base, then and on load; routed experts share the base as it is.
    """
    if not isinstance(value, str):
        return []
    told = f"init_lora_weights={quote(value)}"
    hint = "Save it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...): plain LoRA again."
    if value == "lora_ga":
        message = f"{told} changed the base it was trained on; PEFT opens it on the unchanged one, and so does lorary."
        return [warning("W-INIT", message, hint)]
    if value in _HARMLESS_INITS:
        return []
    name = next((name for start, name in _CHANGED_BASE.items() if value.lower().startswith(start)), None)
    if name is None:
        message = f"{told} is unknown, it may have changed the base it was trained on."
        return [error("E-FEATURE", message, "If it did not, write true in its place.")]
    hint = "PEFT can't convert it: train it without." if name == "LoftQ" else hint
    message = f"{told} ({name}) changed the base it was trained on; on the unchanged base it would answer differently."
    return [error("E-FEATURE", message, hint)]


def _check_inertia(config: Mapping[str, Any]) -> list[Finding]:
    known = {"peft_type", "bias", "target_parameters", *_FIELDS, *FEATURES, *_WITHOUT_EFFECT, *_DROPPED}
    findings = [
        warning("W-FIELD", f"{field} would import code or modules; it is ignored, and dropped by `add`.")
        for field in _DROPPED
        if config.get(field)
    ]
    unknown = [field for field in config if field not in known and config[field] not in (None, False, [], {})]
    return findings + [warning("W-FIELD", f"unknown field {quote(field)} is ignored.") for field in sorted(unknown)]
