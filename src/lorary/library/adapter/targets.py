"""Which sites a config names, as PEFT reads it; strings are regular expressions, and run within bounds.

A stranger's lists may be long: names are looked up, so that the work grows with lists plus sites, not their product.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from lorary.errors import LibraryError
from lorary.library.adapter.foreign_patterns import Expressions
from lorary.library.adapter.site_keys import endings

ALL_LINEAR = "all-linear"
"""PEFT's word, and ours, for every linear layer but the head."""


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
    """What a config says about where the adapter sits.

    `unreadable`: names the fields whose regular expressions can't be run safely; they say nothing.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.unreadable: list[str] = []
        self._expressions = Expressions()
        targets, excluded = config.get("target_modules"), config.get("exclude_modules")
        self._is_known = isinstance(targets, str | list) and targets != ALL_LINEAR
        self._whole = frozenset(targets if isinstance(targets, list) else ())
        self._targets, self._excluded = Names(self._whole), Names(excluded if isinstance(excluded, list) else ())
        self._target = self._read("target_modules", [targets] if isinstance(targets, str) else ())
        self._exclude = self._read("exclude_modules", [excluded] if isinstance(excluded, str) else ())
        layers, containers = config.get("layers_to_transform"), config.get("layers_pattern") or []
        self._layers = None if layers is None or layers == [] else _as_set(layers)
        containers = [containers] if isinstance(containers, str) else containers
        within = r"(?:^|.*?\.){}\.(?P<idx>\d+)\."
        self._containers = self._read("layers_pattern", containers if self._layers else (), within)
        self._is_known = self._is_known and not self.unreadable

    def _read(self, field: str, patterns: Iterable[str], within: str = "{}") -> list[int]:
        try:
            return [self._expressions.add(pattern, within) for pattern in patterns if pattern != ALL_LINEAR]
        except LibraryError:
            self.unreadable.append(field)
            return []

    def hold(self, site: str) -> bool | None:
        """Tell whether the config puts an adapter on a site; None when only an expression that isn't run would know."""
        try:
            return self._hold(site) if self._is_known else None
        except LibraryError:  # it takes too long
            self.unreadable.append("target_modules")
            self._is_known = False
            return None

    def _hold(self, site: str) -> bool:
        if site in self._excluded or any(self._expressions.fits(number, site) for number in self._exclude):
            return False
        if self._target:
            return self._expressions.fits(self._target[0], site)
        if site in self._whole:
            return True
        return site in self._targets and self._is_in_layers(site)

    def _is_in_layers(self, site: str) -> bool:
        if self._layers is None:
            return True
        if self._containers:
            found = (self._expressions.match(number, site) for number in self._containers)
            number = next((int(match["idx"]) for match in found if match), None)
            return number in self._layers
        numbers = [int(part) for part in site.split(".")[2:-1] if part.isascii() and part.isdigit()]
        return bool(numbers) and numbers[0] in self._layers


def _as_set(layers: Any) -> frozenset[int]:
    return frozenset(layers if isinstance(layers, list) else [layers])
