"""Score and generate: the two questions of an evaluation, answered by any causal model in batches."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lorary.errors import ModelError
from lorary.evaluation.contract import LogLikelihood
from lorary.model.text.batching import in_batches
from lorary.model.text.reader import Reader
from lorary.model.text.tokens import Batch, Encoded, encode_prompts, pad, warn_of_cuts
from lorary.options import require, require_count, require_each
from lorary.tasks.example import Example

Turn = Callable[[Sequence[Example]], AbstractContextManager[None]]
"""Prepares the model for a batch of examples: who speaks may depend on their tasks and texts."""


def score(base: Reader, examples: Sequence[Example], turn: Turn) -> list[LogLikelihood]:
    """Compute log p(completion, end | prompt) in nats for each example, in float32, in the order given.

    Warns of prompts that are cut. Raises E-LENGTH, E-CHAT, E-MEMORY.
    """
    _check(examples)
    rows = base.encode(examples)

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


def answer(
    base: Reader, examples: Sequence[Example], turn: Turn, *, max_new_tokens: int, stop: Sequence[str] = ()
) -> list[str]:
    """Generate greedily after each prompt, until an answer ends or has max_new_tokens; texts stripped of outer blanks.

    An answer ends at any of the base's stop tokens, at the end of turn of a chat, and before the first of the texts
    `stop`. The completions aren't looked at. Warns of prompts that are cut; raises E-LENGTH as `encode_open`, E-MEMORY.
    """
    _check(examples)
    require_count("max_new_tokens", max_new_tokens)
    require("stop", stop, (list, tuple), "a list of texts", 'Write ["\\n\\n"].')
    rows = encode_open(base, examples, max_new_tokens)

    def run(group: list[int]) -> list[str]:
        batch = pad([rows[i] for i in group]).to(base.device)
        with torch.inference_mode(), turn([examples[i] for i in group]):
            ids = base.hf.generate(
                input_ids=batch.ids, attention_mask=batch.mask, max_new_tokens=max_new_tokens, do_sample=False,
                **endings(base, [examples[i] for i in group], stop),
            )  # fmt: skip
        texts = base.tokenizer.batch_decode(ids[:, batch.ids.shape[1] :], skip_special_tokens=True)
        return [_until(text, stop).strip() for text in texts]

    return in_batches(base, rows, run, n_new=max_new_tokens)


def endings(base: Reader, examples: Sequence[Example], stop: Sequence[str] = ()) -> dict[str, Any]:
    """Give the options of `generate` that end answers to these examples, beside those that the base has."""
    options: dict[str, Any] = {"stop_strings": list(stop), "tokenizer": base.tokenizer} if stop else {}
    end = base.turn_end if any(example.messages for example in examples) else None
    if end is not None and end not in base.stop_tokens:
        options["eos_token_id"] = [*base.stop_tokens, end]
    return options


def _until(text: str, stop: Sequence[str]) -> str:
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text


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


def _check(examples: Sequence[Example]) -> None:
    require_each("examples", examples, Example, "examples", "Write [Example(prompt, completion)].")
