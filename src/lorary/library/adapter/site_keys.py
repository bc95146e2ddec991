"""Tensor keys -> sites, by one rule, and sites -> PEFT's own keys: `base_model.model.<module path>.lora_A.weight`.

The input-side factor is `lora_A` (r, d_in), the output-side factor is `lora_B` (d_out, r).

PEFT's save_pretrained writes its own keys; a bare state_dict, a model that was wrapped while it was trained, or other
programs write others. A key is read so: what torch.compile, FSDP and activation checkpointing put between the parts of
a path is left out, then all up to `base_model.model.`, then `module.` at the start (DDP, DeepSpeed), and the adapter's
name after `lora_A` or `lora_B`. What is left is the site. Nothing is asked of the base, so that a file says the same
wherever it is read.
"""

import functools
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

PREFIX = "base_model.model."
MAX_SITE_LETTERS = 512
MAX_CACHED = 4096  # experts of one library share their keys
Part = Literal["a", "b", "embedding", "head", "dora", "lora_bias", "base", "unknown"]

_SITE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_FACTOR = re.compile(r"\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.(?P<kind>weight|bias)$")
_WITHIN = re.compile(r"\.lora_[AB](?:\.|$)")  # a factor of a factor is none of a layer's
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_DATA_PARALLEL = "module."
_HEADS = ("lm_head", "embed_out")
_TOP_HEADS = ("head", "lm_loss", "output_projection", "cls.predictions.decoder")
_OF_MIXTURE = re.compile(r"\.experts\.(?:\d+|base_layer)(?:\.|$)|\.experts$")


class Key(NamedTuple):
    """A tensor key, understood: which part of which site, and the adapter's name, if the key holds one.

    `site` is empty for parts that belong to none; of a "head" it is the head's own path.
    """

    part: Part
    site: str
    adapter: str = ""


@functools.lru_cache(maxsize=MAX_CACHED)
def parse_key(key: str) -> Key:
    """Understand one tensor key; never fails."""
    if "lora_embedding_" in key:
        return Key("embedding", "")
    if "lora_magnitude_vector" in key:
        return Key("dora", "")
    if len(key) <= 2 * MAX_SITE_LETTERS and (factor := _FACTOR.search(key)):
        return _parse_factor(key[: factor.start()], factor)
    if "lora_" not in key and key.endswith((".weight", ".bias")):
        return Key("base", "")
    return Key("unknown", "")


def _parse_factor(path: str, factor: re.Match[str]) -> Key:
    if factor["kind"] == "bias":
        return Key("lora_bias", "")
    site = unwrapped(path)
    if len(site) > MAX_SITE_LETTERS or not _SITE.fullmatch(site) or _WITHIN.search(site):
        return Key("unknown", "")
    if is_head(site):
        return Key("head", site)
    return Key("a" if factor["side"] == "A" else "b", site, factor["adapter"] or "")


def unwrapped(path: str) -> str:
    """Leave out of a module's path what is none of the base's: wrappers and PEFT's prefix."""
    path = _WRAPPERS.sub("", path)
    before, prefix, after = path.partition(PREFIX)
    if prefix and (not before or before.endswith(".")):
        path = after
    while path.startswith(_DATA_PARALLEL):
        path = path.removeprefix(_DATA_PARALLEL)
    return path


def is_head(site: str) -> bool:
    """Say whether a path is that of the head, which turns hidden states into logits and is no site."""
    return site.rpartition(".")[2] in _HEADS or site in _TOP_HEADS


def is_of_mixture(site: str) -> bool:
    """Tell whether a path leads into the experts of a mixture of experts: `mlp.experts`, `mlp.experts.3.up_proj`."""
    return _OF_MIXTURE.search(site) is not None


def peft_key(key: str) -> str:
    """Give the key that PEFT has for a factor; what is none keeps its own."""
    part, site, _ = parse_key(key)
    return f"{PREFIX}{site}.lora_{part.upper()}.weight" if part in ("a", "b") else key


def endings(site: str) -> list[str]:
    """List what a site's name ends with at a dot, itself first: `a.b.c`, `b.c`, `c`."""
    return [site, *(site[place + 1 :] for place, letter in enumerate(site) if letter == ".")]


def site_tensors(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Pair the keys by site, sorted: site -> (input-side key, output-side key).

    Takes a header as it is (a mapping of keys). A factor without its partner is left out.
    """
    factors: dict[str, dict[str, str]] = {}
    for key in keys:
        part, site, _ = parse_key(key)
        if part in ("a", "b"):
            factors.setdefault(site, {})[part] = key
    return {site: (factors[site]["a"], factors[site]["b"]) for site in sorted(factors) if len(factors[site]) == 2}
