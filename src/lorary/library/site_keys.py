"""PEFT's tensor keys <-> sites: `base_model.model.<module path>.lora_A.weight`.

The input-side factor is `lora_A` (r, d_in), the output-side factor is `lora_B` (d_out, r).
A key with the adapter's name in it (`.lora_A.default.weight`, from a bare state_dict) is read too.
"""

import functools
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

PREFIX = "base_model.model."
MAX_SITE_LETTERS = 512
MAX_CACHED = 4096  # experts of one library share their keys
Part = Literal["a", "b", "embedding", "dora", "lora_bias", "base", "unprefixed", "unknown"]

_SITE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ENDINGS: tuple[tuple[str, Part], ...] = (
    (".lora_A.weight", "a"),
    (".lora_A.default.weight", "a"),
    (".lora_B.weight", "b"),
    (".lora_B.default.weight", "b"),
    (".lora_A.bias", "lora_bias"),
    (".lora_B.bias", "lora_bias"),
)


class Key(NamedTuple):
    """A tensor key, understood: which part of which site. `site` is empty unless the part is "a" or "b"."""

    part: Part
    site: str


@functools.lru_cache(maxsize=MAX_CACHED)
def parse_key(key: str) -> Key:
    """Understand one tensor key; never fails."""
    if "lora_embedding_" in key:
        return Key("embedding", "")
    if "lora_magnitude_vector" in key:
        return Key("dora", "")
    for ending, part in _ENDINGS:
        if key.endswith(ending):
            return _parse_factor(key, ending, part)
    if "lora_" not in key and key.endswith((".weight", ".bias")):
        return Key("base", "")
    return Key("unknown", "")


def _parse_factor(key: str, ending: str, part: Part) -> Key:
    if part == "lora_bias":
        return Key(part, "")
    site = key.removeprefix(PREFIX).removesuffix(ending)
    if len(site) > MAX_SITE_LETTERS or not _SITE.fullmatch(site):
        return Key("unknown", "")
    return Key(part, site) if key.startswith(PREFIX) else Key("unprefixed", "")


def endings(site: str) -> list[str]:
    """List what a site's name ends with at a dot, itself first: `a.b.c`, `b.c`, `c`."""
    return [site, *(site[place + 1 :] for place, letter in enumerate(site) if letter == ".")]


def site_tensors(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Pair the keys by site, sorted: site -> (input-side key, output-side key).

    Takes a header as it is (a mapping of keys). A factor without its partner is left out.
    """
    factors: dict[str, dict[str, str]] = {}
    for key in keys:
        part, site = parse_key(key)
        if part in ("a", "b"):
            factors.setdefault(site, {})[part] = key
    return {site: (factors[site]["a"], factors[site]["b"]) for site in sorted(factors) if len(factors[site]) == 2}
