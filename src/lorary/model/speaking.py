"""Score and generate: the two questions of an evaluation, answered by any causal model in batches."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lorary.errors import ModelError
from lorary.evaluation.base import LogLikelihood
from lorary.model.tokens import Batch, Encoded, by_length, encode, encode_prompts, pad
from lorary.options import require_count, require_each
from lorary.tasks.example import Example

if TYPE_CHECKING:
    from lorary.model.base_model import BaseModel

Turn = Callable[[Sequence[Example]], AbstractContextManager[None]]
"""Prepares the model for a batch of examples: who speaks may depend on their tasks and texts."""


def score(base: "BaseModel", examples: Sequence[Example], turn: Turn) -> list[LogLikelihood]:
    """Compute log p(completion, EOS | prompt) in nats for each example, in float32, in the order given."""
    _check(examples)
    rows = encode(base.tokenizer, examples, max_tokens=base.max_tokens)
    found: dict[int, LogLikelihood] = {}
    for group in by_length(rows):
        batch = pad([rows[i] for i in group]).to(base.device)
        with torch.inference_mode(), turn([examples[i] for i in group]):
            nats = (-row_losses(base, batch)).tolist()
        for i, value in zip(group, nats, strict=True):
            found[i] = LogLikelihood(value, len(rows[i].completion))
    return [found[i] for i in range(len(examples))]


def token_losses(base: "BaseModel", batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every completion token in nats, float32 (n,), and the row of the batch it is in (n,).

    The head runs only where a completion token is predicted.
    """
    ahead = batch.is_label.roll(-1, dims=1)  # column t predicts column t + 1; column 0 is never a label
    with base.head_at(ahead):
        output = base.hf(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)
    losses = nn.functional.cross_entropy(output.logits.squeeze(0).float(), batch.ids[batch.is_label], reduction="none")
    return losses, batch.is_label.nonzero()[:, 0]


def row_losses(base: "BaseModel", batch: Batch) -> Tensor:
    """Sum the losses of each row's completion, nats (B,)."""
    losses, rows = token_losses(base, batch)
    return losses.new_zeros(len(batch.ids)).index_add(0, rows, losses)


def answer(base: "BaseModel", examples: Sequence[Example], turn: Turn, *, max_new_tokens: int) -> list[str]:
    """Generate greedily after each prompt, until end of sequence or max_new_tokens; texts stripped of outer blanks.

    The completions aren't looked at. Raises E-LENGTH as `encode_open`.
    """
    _check(examples)
    require_count("max_new_tokens", max_new_tokens)
    rows = encode_open(base, examples, max_new_tokens)
    found: dict[int, str] = {}
    for group in by_length(rows, max_tokens=4096):
        batch = pad([rows[i] for i in group]).to(base.device)
        with torch.inference_mode(), turn([examples[i] for i in group]):
            ids = base.hf.generate(
                input_ids=batch.ids, attention_mask=batch.mask, max_new_tokens=max_new_tokens, do_sample=False
            )
        texts = base.tokenizer.batch_decode(ids[:, batch.ids.shape[1] :], skip_special_tokens=True)
        found |= {i: text.strip() for i, text in zip(group, texts, strict=True)}
    return [found[i] for i in range(len(examples))]


def encode_open(base: "BaseModel", examples: Sequence[Example], max_new_tokens: int) -> list[Encoded]:
    """Encode the prompts that so many tokens are to follow; where both are too long, the start of the prompt is cut.

    Raises E-LENGTH if the base reads no more than the new tokens.
    """
    room = base.max_tokens - max_new_tokens
    if room < 1:
        what = f"max_new_tokens={max_new_tokens}: prompt and answer are {base.max_tokens} tokens at most on this base."
        raise ModelError("E-LENGTH", what, f"Ask for {base.max_tokens - 1} or fewer.")
    return encode_prompts(base.tokenizer, examples, max_tokens=room)


def _check(examples: Sequence[Example]) -> None:
    require_each("examples", examples, Example, "examples", "Write [Example(prompt, completion)].")
