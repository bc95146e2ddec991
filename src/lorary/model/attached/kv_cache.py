"""Evidence that lives and dies with a KV cache: reordered, repeated and dropped when the cache is."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from lorary.errors import RoutingError
from lorary.model.attached.roomy import keeps_all
from lorary.routing.evidence import Evidence

_NAME = "_lorary_evidence"
_OURS = {_NAME, "reorder_cache", "batch_repeat_interleave", "batch_select_indices", "crop", "reset", "__deepcopy__"}
_WORDS = ("cache", "past_key_values")  # since transformers 5.24, and until then
STATE = "state"
"""What RWKV calls its own."""


def cache_in(named: Mapping[str, object]) -> Any:
    """Find the KV cache among a call's arguments or in its output; None without one."""
    return named_cache(named)[1]


def named_cache(named: Mapping[str, object]) -> tuple[str, Any]:
    """Find the KV cache among a call's arguments or in its output, with its name there; ("", None) without one."""
    return next(((word, named[word]) for word in _WORDS if named.get(word) is not None), ("", None))


def tokens_in(cache: Any) -> Any:
    """Count the tokens before the call, a number or, in a graph, a tensor; 0 for a cache that doesn't count them.

    That of a base without attention is a state, whatever it has read.
    """
    try:
        return 0 if cache is None else cache.get_seq_length()
    except ValueError:
        return 0


def _is_filled(cache: Any) -> bool:
    try:
        return bool(cache.get_seq_length() > 0)
    except ValueError:
        return bool(cache.has_previous_state())


def evidence_of(cache: Any, era: int) -> Evidence:
    """Give the evidence that belongs to a cache; without a cache, or before its first token, a fresh one.

    The first time a cache is seen, its own methods are made to take the evidence along; other caches are untouched.
    era: whose evidence it is (`Slot.era`). Raises E-CACHE for a cache that was filled before its model was routed, or
    before it was changed.
    """
    if cache is None:
        return Evidence()
    found: tuple[Evidence, int] | None = getattr(cache, _NAME, None)
    if found is not None:
        evidence, its_era = found
        if its_era != era and not evidence.is_empty:
            raise RoutingError(
                "E-CACHE",
                "this KV cache was filled before the model's experts or router were changed.",
                "Start with a new cache.",
            )
        setattr(cache, _NAME, (evidence, era))
        return evidence
    if _is_filled(cache):
        raise RoutingError(
            "E-CACHE", "this KV cache was filled by another model; its evidence is unknown.", "Start with a new cache."
        )
    evidence = Evidence()
    bind(cache, evidence, era)
    return evidence


class Left:
    """What the last call left behind: the state that a base without a cache hands on, RWKV's, and its evidence.

    A state is a list, which can carry nothing along, so that only the last one is known.
    """

    def __init__(self, state: object = None, evidence: Evidence | None = None, era: int = 0) -> None:
        self._state, self._evidence, self._era = state, evidence, era

    def of(self, state: object, era: int) -> Evidence:
        """Give the evidence that belongs to a state. Raises E-CACHE unless it is the last one, as it was left."""
        if self._evidence is None or state is not self._state or era != self._era:
            what = "this state was left by another call than the last one, or before a change; its evidence is unknown."
            raise RoutingError("E-CACHE", what, "Start without a state, or generate with use_cache=False.")
        return self._evidence


def bind(cache: Any, evidence: Evidence, era: int) -> None:
    """Let evidence go with a cache from now on; a cache that has its evidence keeps it."""
    if not hasattr(cache, _NAME):
        setattr(cache, _NAME, (evidence, era))
        _follow(cache, evidence)


def _follow(cache: Any, evidence: Evidence) -> None:
    reorder, repeat, select = cache.reorder_cache, cache.batch_repeat_interleave, cache.batch_select_indices
    crop, reset = cache.crop, cache.reset

    def reorder_cache(rows: Tensor) -> None:
        reorder(rows)
        evidence.select_rows(rows)

    def batch_repeat_interleave(repeats: int) -> None:
        repeat(repeats)
        evidence.repeat_rows(repeats)

    def batch_select_indices(rows: Tensor) -> None:
        select(rows)
        evidence.select_rows(rows)

    def crop_cache(*args: object, **options: object) -> None:
        if not evidence.is_empty:
            # Sums can't be taken back token by token.
            raise RoutingError("E-CACHE", "a cache with routing evidence can't be cropped.", "Start with a new cache.")
        crop(*args, **options)

    def reset_cache() -> None:
        reset()
        evidence.clear()

    def deep_copy(memo: dict[int, Any]) -> Any:
        copied = memo[id(cache)] = object.__new__(type(cache))
        vars(copied).update(copy.deepcopy({k: v for k, v in vars(cache).items() if k not in _OURS}, memo))
        bind(copied, evidence.copy(), getattr(cache, _NAME)[1])
        return copied

    cache.reorder_cache, cache.batch_repeat_interleave = reorder_cache, batch_repeat_interleave
    cache.batch_select_indices, cache.crop, cache.reset = batch_select_indices, crop_cache, reset_cache
    cache.__deepcopy__ = deep_copy


# ---- rows that join and leave -------------------------------------------------------------------


def reads_mask(cache: Any) -> bool:
    """Tell whether a call with this cache reads which tokens are padding: a state without attention has done so."""
    try:
        return cache is None or cache.get_seq_length() >= 0
    except ValueError:
        return False


def can_leave(cache: Any) -> bool:
    """Tell whether rows can leave a cache, and the others be continued by calls as these."""
    return type(cache) is DynamicCache and all(
        keeps_all(layer) or type(layer) is DynamicSlidingWindowLayer for layer in cache.layers
    )


def can_join(cache: Any) -> bool:
    """Tell whether rows of another length can join: where each layer has the keys and values of all tokens so far."""
    return type(cache) is DynamicCache and all(map(keeps_all, cache.layers))


def join(cache: Any, other: Any) -> Any:
    """Put the rows of another cache behind those of this one, the shorter padded on the left; give the joined cache.

    Their evidence goes along. Both must be such that `can_join`; neither is used again.
    """
    for layer, theirs in zip(cache.layers, other.layers, strict=True):
        width = max(layer.keys.shape[-2], theirs.keys.shape[-2])
        layer.keys = torch.cat([_widened(layer.keys, width), _widened(theirs.keys, width)])
        layer.values = torch.cat([_widened(layer.values, width), _widened(theirs.values, width)])
    if (found := getattr(cache, _NAME, None)) is not None:
        found[0].add_rows(getattr(other, _NAME)[0])
    return cache


def fork(cache: Any, rows: Tensor) -> Any:
    """Give a cache of some rows (B',), indices into B, which may repeat; this one stays as it is.

    Their evidence goes along. It must be such that `can_join`.
    """
    other = object.__new__(type(cache))
    vars(other).update({name: value for name, value in vars(cache).items() if name not in _OURS})
    other.layers = [copy.copy(layer) for layer in cache.layers]
    if (found := getattr(cache, _NAME, None)) is not None:
        bind(other, found[0].copy(), found[1])
    other.batch_select_indices(rows)
    return other


def drop_first(cache: Any, n: int) -> None:
    """Forget the first n tokens, which are padding in every row and so no evidence."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[..., n:, :], layer.values[..., n:, :]
    if (found := getattr(cache, _NAME, None)) is not None:
        found[0].drop_first(n)


def _widened(states: Tensor, width: int) -> Tensor:
    """Pad (B, H, T, d) on the left to `width` tokens."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))
