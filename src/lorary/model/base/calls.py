"""How a base calls its layers, and whether it minds padding: found out by calling it once, on four tokens."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorary.errors import RoutingError
from lorary.model.attached.slot import Slot
from lorary.model.decoding.answer import bare
from lorary.model.decoding.sequences import Rows
from lorary.model.sites import embedding_rows, input_hooks, last_logits, text_config
from lorary.routing.contract import Context

_WIDTH, _N_PAD = 4, 2
_CHANGING = ("dynamic", "longrope")
"""Rotations that depend on the longest text of the call."""
_ENDLESS = 1 << 62
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE = 0.25  # in half precision
"""How far apart logits may be, in their standard deviations, and still be the same but for rounding."""


@dataclass(frozen=True)
class Calls:
    """What was found out. idle: sites whose layer is never called, since the base reads its weight.

    partial: sites that are given some of the tokens only, as what follows the last block in generation.
    hides_padding: whether padding on the left changes nothing; for a base that takes no mask it does.
    """

    idle: frozenset[str]
    partial: frozenset[str]
    hides_padding: bool


@torch.inference_mode()
def reads_in_parts(hf: PreTrainedModel) -> int:
    """Give the longest row that a base reads in parts, with a gap of padding between, as it reads it whole; else 0.

    So the beginning that several rows share can be read once. Not so with state-space layers, sliding windows, and
    positions that are counted by columns. Raises E-BUSY.
    """
    device = next(hf.parameters()).device
    if device.type == "meta":
        return 0
    text = _two_rows(hf).to(device)[1:]
    ones = torch.ones_like(text)
    caller = bare(hf)
    whole, parts = Rows(caller, Context()), Rows(caller, Context())
    was_training = hf.training
    hf.eval()
    try:
        with _alone(hf):
            expected = whole.read(text, ones)
            if not whole.can_join:
                return 0
            first, gap = text[:, :_N_PAD], torch.zeros_like(text[:, :_N_PAD])
            parts.read(torch.cat([first, gap], 1), torch.cat([torch.ones_like(first), gap], 1))
            found = parts.fork([0]).read(text[:, _N_PAD:], ones[:, _N_PAD:])
    finally:
        if was_training:
            hf.train()
    alike = _alike(found[0, -1].float(), expected[0, -1].float(), next(hf.parameters()).dtype)
    return _steady_length(hf) if alike else 0


def _steady_length(hf: PreTrainedModel) -> int:
    """Give the length of texts up to which positions mean the same whatever is read along with them."""
    config = text_config(hf)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, Mapping))]
    changing = [kind for kind in kinds if kind.get("rope_type") in _CHANGING]
    longest = getattr(config, "max_position_embeddings", None)
    known = [kind.get("original_max_position_embeddings") or longest for kind in changing]
    return min((length for length in known if length), default=0 if changing else _ENDLESS)


def require_whole(calls: Calls, sites: Iterable[str]) -> None:
    """Refuse sites that are given some of the tokens only, for what needs all of them. Raises E-ROWS."""
    if odd := sorted(calls.partial.intersection(sites)):
        what = f"site {odd[0]!r} is given some of a text's tokens only: this router needs all of them."
        raise RoutingError("E-ROWS", what, "Use a router that looks at each token alone, such as arrow.")


@torch.inference_mode()
def listen_to_calls(hf: PreTrainedModel, sites: Iterable[str], slices: Iterable[str]) -> Calls:
    """Call a base as scoring and generation do, on two rows that differ in what the mask hides, at their beginning.

    So they end alike, unless padding is read. slices: sites that are given some of the tokens by what they are.
    """
    seen: dict[str, list[tuple[int, ...]]] = {site: [] for site in sites}
    device = next(hf.parameters()).device
    ids, mask = _two_rows(hf).to(device), torch.ones(2, _WIDTH, dtype=torch.long, device=device)
    mask[:, :_N_PAD] = 0
    was_training = hf.training
    hf.eval()
    try:
        with input_hooks(hf, {site: _listener(shapes) for site, shapes in seen.items()}), _alone(hf):
            logits = hf(
                input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False,
                **last_logits(hf),
            ).logits[:, -1].float()  # fmt: skip
    finally:
        if was_training:
            hf.train()
    return Calls(
        idle=frozenset(site for site, shapes in seen.items() if not shapes),
        partial=frozenset(slices).union(
            site for site, shapes in seen.items() if any(_n_tokens(s) != 2 * _WIDTH for s in shapes)
        ),
        hides_padding=_alike(logits[0], logits[1], next(hf.parameters()).dtype),
    )


@contextmanager
def _alone(hf: PreTrainedModel) -> Iterator[None]:
    """Switch off everything that is attached to a base in the block."""
    with ExitStack() as stack:
        for slot in {slot for module in hf.modules() if isinstance(slot := getattr(module, "slot", None), Slot)}:
            stack.enter_context(slot.silenced())
        yield


def _two_rows(hf: PreTrainedModel) -> Tensor:
    n_rows = embedding_rows(hf) or 2 * _WIDTH
    text = torch.arange(1, _WIDTH + 1) * (n_rows - 1) // (_WIDTH + 1)  # tokens that differ
    return torch.stack([torch.cat([text.new_zeros(_N_PAD), text[_N_PAD:]]), text])


def _listener(shapes: list[tuple[int, ...]]) -> Any:
    def listen(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        shapes.append(tuple(args[0].shape) if args else ())

    return listen


def _n_tokens(shape: tuple[int, ...]) -> int:
    return torch.Size(shape[:-1]).numel()


def _alike(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    apart = (one - other).abs().max()
    return bool(apart <= _ROUNDING.get(dtype, _COARSE) * other.std())
