"""Faults that show in the names of an adapter's tensors: factors that can't be routed, or lack their partner."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lorary.errors import listed, quote
from lorary.library.adapter.findings import Finding, error, warning
from lorary.library.adapter.header import Header
from lorary.library.adapter.site_keys import is_of_mixture, parse_key, peft_key
from lorary.library.adapter.targets import PARAMETERS, find_parameters, parse_slice
from lorary.library.layout import WEIGHTS

_ONLY_LAYERS = "Train it without: name the layers in target_modules, and no others."
_MIXTURE = "Train it on other layers: name them in target_modules, without target_parameters, e.g. q_proj and v_proj."
AS_PARAMETERS = (
    "Open it on this base in PEFT and save it again (PeftModel.from_pretrained, save_pretrained): it is written with "
    "target_parameters then, which are routed."
)
"""What to do with an adapter of the time when each of a mixture's experts had layers of its own: PEFT converts it."""
_PARAMETERS = f"Leave the others out of target_parameters; those that end with {', '.join(PARAMETERS)} may stay."


def check_places(config: Mapping[str, object], header: Header, base: Collection[str] | None) -> list[Finding]:
    """Find factors on what is no linear layer inside the base: the reason for whatever else is odd about the adapter.

    base: the sites of the base, where they are known.
    """
    if strange := _strange_parameters(config.get("target_parameters")):
        message = f"target_parameters ({strange}): of parameters, only those of a mixture's experts can be routed."
        return [error("E-FEATURE", message, _PARAMETERS)]
    keys = {key: parse_key(key) for key in header}
    parameters = find_parameters(config, [site for _, site, _ in keys.values()])
    found: dict[str, list[str]] = {}
    for key, (part, site, _) in keys.items():
        if part in ("head", "embedding"):
            found.setdefault(part, []).append(key)
        elif site and is_of_mixture(site) and base is not None and not _is_in(base, site, parameters):
            found.setdefault("mixture", []).append(key)
    findings = []
    if odd := found.get("embedding"):
        findings.append(error("E-FEATURE", f"LoRA on an embedding can't be routed: {listed(odd)}.", _ONLY_LAYERS))
    if odd := found.get("head"):
        findings.append(
            error("E-FEATURE", f"LoRA on the head of the base can't be routed: {listed(odd)}.", _ONLY_LAYERS)
        )
    if odd := found.get("mixture"):
        findings.append(_of_mixture(odd, base or (), is_fused=keys[odd[0]].site in parameters))
    return findings


def _of_mixture(keys: Sequence[str], base: Collection[str], *, is_fused: bool) -> Finding:
    """Say why factors within a mixture of experts aren't routed: by their form, or by that of the base."""
    what = "LoRA on the experts of a mixture of experts"
    if is_fused:
        hint = f"Were sizes given, they must be those of base.routable, not of base.sites. Else: {_MIXTURE}"
        what = f"{what}, none of which is a plain matrix of the base, can't be routed: {listed(keys)}."
        return error("E-FEATURE", what, hint)
    hint = AS_PARAMETERS if any(map(parse_slice, base)) else _MIXTURE
    return error("E-FEATURE", f"{what}, which this base keeps in one parameter, can't be routed: {listed(keys)}.", hint)


def _strange_parameters(given: Any) -> str:
    """Name those of a config's target_parameters that are none of a mixture's experts."""
    if given in (None, False, [], {}):
        return ""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return quote(given)
    strange = [name for name in given if name.rpartition(".")[2] not in PARAMETERS]
    return listed(strange) if strange else ""


def _is_in(base: Collection[str], site: str, parameters: Mapping[str, str]) -> bool:
    return f"{parameters[site]}.0" in base if site in parameters else site in base


def check_keys(header: Header) -> list[Finding]:
    """Find what is wrong with the names of tensors, and report names that differ from PEFT's (W-KEYS)."""
    if not header:
        return [error("E-KEYS", f"{WEIGHTS} holds no tensors.")]
    parts: dict[str, list[str]] = {}
    sites: dict[tuple[str, str], list[str]] = {}
    adapters: set[str] = set()
    for key in header:
        part, site, adapter = parse_key(key)
        parts.setdefault(part, []).append(key)
        if site:
            sites.setdefault((site, part), []).append(key)
            adapters.add(adapter)
    twice = sorted(key for keys in sites.values() if len(keys) > 1 for key in keys)
    lonely = sorted(keys[0] for (site, part), keys in sites.items() if (site, "ba"[part == "b"]) not in sites)
    findings = _check_parts(parts, len(header))
    findings += _check_adapters(adapters) or _check_pairs(lonely, twice)
    return findings or _check_spelling(header)


def _check_parts(parts: Mapping[str, list[str]], n_tensors: int) -> list[Finding]:
    findings = []
    for part, meaning in (("dora", "DoRA"), ("lora_bias", "lora_bias")):
        if keys := parts.get(part):
            findings.append(error("E-FEATURE", f"{meaning} can't be mixed with other experts: {listed(keys)}."))
    if keys := parts.get("base"):
        message = f"tensors of the base itself, which loading would overwrite: {listed(keys)}."
        findings.append(error("E-BASEKEY", message, "Remove them from the file."))
    if keys := parts.get("unknown"):
        findings.append(error("E-KEYS", f"{len(keys)} of {n_tensors} tensors are not LoRA factors: {listed(keys)}."))
    return findings


def _check_adapters(names: Collection[str]) -> list[Finding]:
    if len(names) < 2:
        return []
    told = listed([name or "(none)" for name in sorted(names)])
    hint = "Save each one apart: PEFT's save_pretrained gives each a directory of its own."
    return [error("E-KEYS", f"factors of {len(names)} adapters in one file: {told}.", hint)]


def _check_pairs(lonely: list[str], twice: list[str]) -> list[Finding]:
    findings = []
    if lonely:
        message = f"{len(lonely)} factors lack their partner (lora_A without lora_B, or the reverse): {listed(lonely)}."
        findings.append(error("E-KEYS", message, "Save the adapter again; half of it is missing."))
    if twice:
        findings.append(error("E-KEYS", f"two tensors for one factor: {listed(twice)}."))
    return findings


def _check_spelling(header: Header) -> list[Finding]:
    odd = [key for key in header if peft_key(key) != key]
    if not odd:
        return []
    message = (
        f"{len(odd)} of {len(header)} tensors have names by which PEFT would not find them: "
        f"{quote(odd[0], 200)} is read as {quote(peft_key(odd[0]), 200)}."
    )
    return [warning("W-KEYS", message, "`lorary add` and copies give them PEFT's names.")]
