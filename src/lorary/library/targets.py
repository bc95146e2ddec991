"""Which sites a config's lists name, as PEFT reads them; strings are patterns, and never run."""

from collections.abc import Mapping
from typing import Any


def targeted(config: Mapping[str, Any], site: str) -> bool | None:
    """Tell whether the config puts an adapter on a site; None when only a regular expression would know."""
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    if not isinstance(targets, list) or isinstance(excluded, str):
        return None
    if excluded and _is_named(site, excluded):
        return False
    if site in targets:
        return True
    return _is_named(site, targets) and _is_in_layers(config, site)


def _is_named(site: str, names: list[str]) -> bool:
    return any(site == name or site.endswith("." + name) for name in names)


def _is_in_layers(config: Mapping[str, Any], site: str) -> bool | None:
    layers, containers = config.get("layers_to_transform"), config.get("layers_pattern")
    if layers is None or layers == []:
        return True
    if containers:
        return None  # PEFT runs layers_pattern as a regular expression
    numbers = [int(part) for part in site.split(".")[2:-1] if part.isascii() and part.isdigit()]
    return bool(numbers) and numbers[0] in (layers if isinstance(layers, list) else [layers])
