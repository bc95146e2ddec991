"""Which sites a config's lists name, as PEFT reads them; strings are patterns, and never run.

A stranger's lists may be long: names are looked up, so that the work grows with lists plus sites, not their product.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lorary.library.site_keys import endings


class Names:
    """Names that each stand for every site that equals them, or ends with a dot and them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def __contains__(self, site: str) -> bool:
        return any(ending in self._names for ending in endings(site))

    def idle(self, sites: Iterable[str]) -> frozenset[str]:
        """Tell which names stand for none of the sites."""
        return self._names - {ending for site in sites for ending in endings(site)}


class Targets:
    """What a config says about where the adapter sits."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        targets, excluded = config.get("target_modules"), config.get("exclude_modules")
        self._is_readable = isinstance(targets, list) and not isinstance(excluded, str)
        self._whole = frozenset(targets if isinstance(targets, list) else ())
        self._targets, self._excluded = Names(self._whole), Names(excluded or ())
        layers = config.get("layers_to_transform")
        self._layers = None if layers is None or layers == [] else _as_set(layers)
        self._has_containers = bool(config.get("layers_pattern"))

    def hold(self, site: str) -> bool | None:
        """Tell whether the config puts an adapter on a site; None when only a regular expression would know."""
        if not self._is_readable:
            return None
        if site in self._excluded:
            return False
        if site in self._whole:
            return True
        return site in self._targets and self._is_in_layers(site)

    def _is_in_layers(self, site: str) -> bool | None:
        if self._layers is None:
            return True
        if self._has_containers:
            return None  # PEFT runs layers_pattern as a regular expression
        numbers = [int(part) for part in site.split(".")[2:-1] if part.isascii() and part.isdigit()]
        return bool(numbers) and numbers[0] in self._layers


def _as_set(layers: Any) -> frozenset[int]:
    return frozenset(layers if isinstance(layers, list) else [layers])
