"""How likely an answer is: scored by any causal model, in batches. The rules for prompts that are to be answered."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lorary.errors import ModelError
from lorary.evaluation.contract import LogLikelihood
from lorary.model.text.batching import in_batches
from lorary.model.text.reader import Reader
from lorary.model.text.tokens import Batch, Encoded, encode_prompts, pad, warn_of_cuts
from lorary.options import require_each
from lorary.tasks.example import Example

Turn = Callable[[Sequence[Example]], AbstractContextManager[None]]
"""Prepares the model for a batch of examples: who speaks may depend on their tasks and texts."""


def score(base: Reader, examples: Sequence[Example], turn: Turn, *, open_end: bool = False) -> list[LogLikelihood]:
    """Compute log p(completion, end | prompt) in nats for each example, in float32, in the order given.

    open_end: log p(completion | prompt). Warns of prompts that are cut. Raises E-LENGTH, E-CHAT, E-MEMORY.
    """
    check_examples(examples)
    rows = base.encode(examples, open_end=open_end)

    def run(group: list[int]) -> list[LogLikelihood]:
        batch = pad([rows[i] for i in group]).to(base.device)
        with torch.inference_mode(), turn([examples[i] for i in group]):
            nats = (-row_losses(base, batch)).tolist()
        return [LogLikelihood(value, len(rows[i].completion)) for i, value in zip(group, nats, strict=True)]

    return in_batches(base, rows, run)


def token_losses(base: Reader, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every completion token in nats, float32 (n,), and the row of the batch it is in (n,).

    The head runs only where a completion token is predicted.
    """
    ahead = batch.is_label.roll(-1, dims=1)  # column t predicts column t + 1; column 0 is never a label
    with base.head_at(ahead):
        output = base.hf(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)
    losses = nn.functional.cross_entropy(output.logits.squeeze(0).float(), batch.ids[batch.is_label], reduction="none")
    return losses, batch.is_label.nonzero()[:, 0]


def row_losses(base: Reader, batch: Batch) -> Tensor:
    """Sum the losses of each row's completion, nats (B,)."""
    losses, rows = token_losses(base, batch)
    return losses.new_zeros(len(batch.ids)).index_add(0, rows, losses)


def encode_open(base: Reader, examples: Sequence[Example], max_new_tokens: int) -> list[Encoded]:
    """Encode the prompts that so many tokens are to follow; where both are too long, the start of the prompt is cut.

    Warns of cuts. Raises E-LENGTH if the base reads no more than the new tokens.
    """
    room = base.max_tokens - max_new_tokens
    if room < 1:
        what = f"max_new_tokens={max_new_tokens}: prompt and answer are {base.max_tokens} tokens at most on this base."
        raise ModelError("E-LENGTH", what, f"Ask for {base.max_tokens - 1} or fewer.")
    rows = encode_prompts(base.tokenizer, examples, max_tokens=room, options=base.template_options)
    warn_of_cuts(rows, base.max_tokens)
    return rows


def check_examples(examples: Sequence[Example]) -> None:
    """Refuse what are no examples. Raises E-OPTION."""
    require_each("examples", examples, Example, "examples", "Write [Example(prompt, completion)].")
