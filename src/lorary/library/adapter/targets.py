"""Which sites a config names, as PEFT reads it; strings are regular expressions, and run within bounds.

A stranger's lists may be long: names are looked up, so that the work grows with lists plus sites, not their product.

`target_parameters` names parameters that hold the matrices of all of a mixture's own experts, as
`mlp.experts.down_proj` (P, d_out, d_in). A slice is one of these matrices, and a site like a layer:
`mlp.experts.down_proj.3`. PEFT has one pair of factors for all P slices, A (P r, d_in) and B (d_out, r P): slice p has
the rows p r to (p + 1) r of A and the columns p, p + P, p + 2 P, ... of B. A module's first parameter is wrapped first,
so that the last has the shortest key: `experts.lora_A` is of `down_proj` if that is adapted, and
`experts.base_layer.lora_A` of the one before it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lorary.errors import LibraryError
from lorary.library.adapter.foreign_patterns import Expressions
from lorary.library.adapter.header import Header
from lorary.library.adapter.scale import ranks_of
from lorary.library.adapter.site_keys import PREFIX, endings, site_tensors

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


# ---- slices: of a parameter that holds the matrices of all of a mixture's experts ------------------


PARAMETERS = ("gate_up_proj", "up_proj", "down_proj")
"""The parameters of a mixture that have slices, in the order in which a base holds them."""
MAX_SLICES = 100_000
"""Of one adapter. Qwen3-30B-A3B has 12,288."""
INNER = ".base_layer"
_SLICE = re.compile(r"(?P<parameter>(?P<module>.*\.experts)\.(?:gate_up_proj|up_proj|down_proj))\.(?P<number>\d{1,6})")


class Factors(NamedTuple):
    """Where the two factors of a site are in an adapter's file: a layer's own tensors, or a slice's part of them.

    of: how many slices share the tensors; 0 for a layer, which has them alone. number: which of them it is. pattern:
    the path by which rank and alpha are looked up.
    """

    a: str
    b: str
    pattern: str
    of: int = 0
    number: int = 0

    def shapes(self, header: Header) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the shapes of its own factors, (r, d_in) and (d_out, r)."""
        a, b = header[self.a].shape, header[self.b].shape
        return ((a[0] // self.of, *a[1:]), (*b[:-1], b[-1] // self.of)) if self.of else (a, b)


class Slice(NamedTuple):
    """A slice's name, understood: its module, its parameter's path, and which one it is."""

    module: str
    parameter: str
    number: int


def parse_slice(site: str) -> Slice | None:
    """Understand the name of a slice; None for that of a layer."""
    found = _SLICE.fullmatch(site)
    return Slice(found["module"], found["parameter"], int(found["number"])) if found else None


def module_of(site: str) -> str:
    """Give the path of the module that computes at a site: a layer's own, or that of a slice's mixture."""
    found = parse_slice(site)
    return found.module if found else site


def named_parameters(config: Mapping[str, Any]) -> list[str]:
    """Give what a config's `target_parameters` names; nothing if it names nothing."""
    given = config.get("target_parameters") or []
    return [name for name in given if isinstance(name, str)] if isinstance(given, list) else []


def find_factors(config: Mapping[str, Any], header: Header) -> dict[str, Factors]:
    """Find each site's factors in a file, sorted by site; those that lack their partner are left out.

    How many slices a tensor has, follows from the rank that the config promises; the base decides whether it is true.
    Raises LibraryError as `ranks_of` does, and E-LIMIT for more slices than any base has.
    """
    pairs = site_tensors(header)
    parameters = {
        site: parameter
        for site, parameter in find_parameters(config, pairs).items()
        if _are_a_pair(*(header[key].shape for key in pairs[site]))  # else it is told as of a layer
    }
    ranks = ranks_of(config, parameters.values()) if parameters else {}
    found: dict[str, Factors] = {}
    for site, (a, b) in pairs.items():
        if (parameter := parameters.get(site)) is None:
            found[site] = Factors(a, b, site)
            continue
        n_slices, rest = divmod(header[a].shape[0], ranks[parameter])
        n_slices = 1 if rest else max(1, n_slices)  # then r isn't what was trained, which is told as of a layer
        if len(found) + n_slices > MAX_SLICES:
            what = f"the tensors and r are of more than {MAX_SLICES:,} experts of mixtures."
            raise LibraryError("E-LIMIT", what, "Set r to what was trained.")
        for number in range(n_slices):
            found[f"{parameter}.{number}"] = Factors(a, b, parameter, n_slices, number)
    return dict(sorted(found.items()))


def _are_a_pair(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) == 2 and a[0] == b[1]


def find_parameters(config: Mapping[str, Any], paths: Iterable[str]) -> dict[str, str]:
    """Tell of the paths of keys which stand for parameters of mixtures, and for which."""
    if not (named := named_parameters(config)):
        return {}
    names = Names(named)
    return {path: parameter for path in paths if (parameter := _parameter_of(path, names))}


def _parameter_of(site: str, names: Names) -> str | None:
    module = site
    while module.endswith(INNER):
        module = module.removesuffix(INNER)
    depth = (len(site) - len(module)) // len(INNER)
    adapted = [path for name in PARAMETERS if (path := f"{module}.{name}") in names]
    return adapted[-1 - depth] if module.endswith(".experts") and depth < len(adapted) else None


def keys_of(parameters: Iterable[str]) -> dict[str, str]:
    """Give the path of each parameter's keys, as PEFT nests those of one module."""
    by_module: dict[str, list[str]] = {}
    for parameter in parameters:
        module, _, name = parameter.rpartition(".")
        by_module.setdefault(module, []).append(name)
    keys = {}
    for module, names in by_module.items():
        for depth, name in enumerate(sorted(names, key=PARAMETERS.index, reverse=True)):
            keys[f"{module}.{name}"] = f"{PREFIX}{module}{INNER * depth}"
    return keys
