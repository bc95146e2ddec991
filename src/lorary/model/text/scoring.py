"""How likely an answer is: scored by any causal model, in batches. The rules for prompts that are to be answered."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

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
"""Prepares the model for a batch of examples: the routing may depend on their tasks and texts."""


class Judged(NamedTuple):
    """What was found of a row's completion: log p in nats, and whether each of its tokens was the likeliest."""

    nats: float
    is_likeliest: bool


def score(base: Reader, examples: Sequence[Example], turn: Turn) -> list[LogLikelihood]:
    """Compute log p(completion, end | prompt) in nats for each example, in float32, in the order given.

    Each row is read whole, by itself (`decoding.likelihood` reads once what rows share).
    Warns of prompts that are cut. Raises E-LENGTH, E-CHAT, E-MEMORY.
    """
    check_examples(examples)
    rows = base.encode(examples)
    found = score_rows(base, rows, examples, turn)
    return [LogLikelihood(judged.nats, len(row.completion)) for judged, row in zip(found, rows, strict=True)]


def score_rows(base: Reader, rows: Sequence[Encoded], examples: Sequence[Example], turn: Turn) -> list[Judged]:
    """Judge the completion of each row, read whole; `examples`: what the router is told of it. Raises E-MEMORY.

    The last token of a row that is one longer than the base reads is foreseen and not read.
    """

    def run(group: list[int]) -> list[Judged]:
        batch = pad([rows[i] for i in group]).to(base.device)
        with torch.inference_mode(), turn([examples[i] for i in group]):
            sums = sum_rows(judge(*_foreseen(base, batch)), batch.labels[0], len(group))
        return [Judged(-loss, not misses) for loss, misses in sums.tolist()]

    return in_batches(base, rows, run)


def judge(logits: Tensor, tokens: Tensor) -> Tensor:
    """Judge tokens (n,) by the logits (n, V) that foresee them: their loss in nats, and 1 where another is likelier."""
    logits = logits.float()
    losses = nn.functional.cross_entropy(logits, tokens, reduction="none")
    return torch.stack([losses, (logits.argmax(-1) != tokens).to(losses)], 1)  # (n, 2)


def sum_rows(values: Tensor, rows: Tensor, n_rows: int) -> Tensor:
    """Sum values (n, ...) by the row (n,) that each belongs to."""
    return values.new_zeros(n_rows, *values.shape[1:]).index_add(0, rows.to(values.device), values)


def token_losses(base: Reader, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every completion token in nats, float32 (n,), and the row of the batch it is in (n,).

    The head runs only where a completion token is predicted.
    """
    logits, tokens = _foreseen(base, batch)
    losses = nn.functional.cross_entropy(logits.float(), tokens, reduction="none")
    return losses, batch.labels[0]


def _foreseen(base: Reader, batch: Batch) -> tuple[Tensor, Tensor]:
    """Give the logits (n, V) that foresee a batch's completion tokens, and these (n,)."""
    rows, columns = batch.labels
    end = min(batch.ids.shape[1], base.max_tokens)
    with base.head_at((rows, columns - 1)):  # column t predicts column t + 1; column 0 is never a label
        output = base.hf(
            input_ids=batch.ids[:, :end], attention_mask=batch.mask[:, :end], position_ids=batch.positions[:, :end],
            use_cache=False,
        )  # fmt: skip
    return output.logits.squeeze(0), batch.ids[rows, columns].to(output.logits.device)


def row_losses(base: Reader, batch: Batch) -> Tensor:
    """Sum the losses of each row's completion, nats (B,)."""
    losses, rows = token_losses(base, batch)
    return sum_rows(losses, rows, len(batch.ids))


def encode_open(base: Reader, examples: Sequence[Example], max_new_tokens: int) -> list[Encoded]:
    """Encode the prompts that so many tokens are to follow; where both are too long, the start of the prompt is cut.

    Warns of cuts. Raises E-LENGTH if the base reads no more than the new tokens.
    """
    room = base.max_tokens - max_new_tokens
    if room < 1:
        what = f"max_new_tokens={max_new_tokens}: prompt and answer are {base.max_tokens} tokens at most on this base."
        raise ModelError("E-LENGTH", what, f"Ask for {base.max_tokens - 1} or fewer.")
    rows = encode_prompts(base.tokenizer, examples, max_tokens=room, options=base.template_options)
    warn_of_cuts([row.n_cut for row in rows], base.max_tokens)
    return rows


def check_examples(examples: Sequence[Example]) -> None:
    """Refuse what are no examples. Raises E-OPTION."""
    require_each("examples", examples, Example, "examples", "Write [Example(prompt, completion)].")
