"""Answers to prompts as evaluation asks for them: greedy, in batches that rows leave as soon as their answer ends."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from lorary.model.decoding.decoder import Decoder, Request, Token
from lorary.model.decoding.rows import Caller
from lorary.model.decoding.sampling import GREEDY, Sampling
from lorary.model.decoding.text_stream import TextStream, until
from lorary.model.text.batching import in_batches
from lorary.model.text.reader import Reader
from lorary.model.text.scoring import check_examples, encode_open
from lorary.model.text.tokens import Encoded, pad
from lorary.options import require, require_count
from lorary.routing.contract import Context
from lorary.tasks.example import Example


def bare(hf: Any) -> Caller:
    """Call a base without experts."""
    return Caller(hf, lambda _: Context(), lambda _: nullcontext())


def answer(
    base: Reader, examples: Sequence[Example], caller: Caller, *, max_new_tokens: int, stop: Sequence[str] = ()
) -> list[str]:
    """Generate greedily after each prompt, until an answer ends or has max_new_tokens; texts stripped of outer blanks.

    An answer ends at any of the base's stop tokens, at the end of turn of a chat, and before the first of the texts
    `stop`. The completions aren't looked at. Warns of prompts that are cut; raises E-LENGTH as `encode_open`, E-MEMORY.
    """
    check_examples(examples)
    require_count("max_new_tokens", max_new_tokens)
    require("stop", stop, (list, tuple), "a list of texts", 'Write ["\\n\\n"].')
    rows = encode_open(base, examples, max_new_tokens)
    texts = answer_rows(base, rows, examples, caller, max_new_tokens=max_new_tokens, stop=stop)
    return [text.strip() for text in texts]


def answer_rows(
    base: Reader, rows: Sequence[Encoded], examples: Sequence[Example], caller: Caller, *, max_new_tokens: int,
    stop: Sequence[str] = (), sampling: Sequence[Sampling] = (),
) -> list[str]:  # fmt: skip
    """Generate after each row's prompt as `answer` does; `examples`: what the router is told of it.

    sampling: how each row's tokens are chosen, greedily by default. Raises E-MEMORY, and E-BASE for sampling on a base
    that hands on no cache.
    """

    def run(group: list[int]) -> list[str]:
        shown = [examples[i] for i in group]
        prompts = [rows[i] for i in group]
        drawn = [sampling[i] for i in group] if sampling else []
        with torch.inference_mode():
            found = _decode(base, shown, prompts, caller, max_new_tokens, stop, drawn)
            if found is None:
                found = _generate(base, shown, prompts, caller, max_new_tokens, stop)
        texts = base.tokenizer.batch_decode(found, skip_special_tokens=True)
        return [until(text, stop) for text in texts]

    return in_batches(base, rows, run, n_new=max_new_tokens)


def _decode(
    base: Reader, examples: Sequence[Example], prompts: Sequence[Encoded], caller: Caller, max_new_tokens: int,
    stop: Sequence[str], sampling: Sequence[Sampling],
) -> list[list[int]] | None:  # fmt: skip
    """Give the tokens of each answer; None for greedy ones of a base whose cache rows can't leave."""
    answers = [_Answer(base.tokenizer, stop) for _ in examples]
    stops = frozenset(stops_of(base, examples))
    requests = [
        Request(example, row.prompt, max_new_tokens, answer.hear, stops, how)
        for example, row, answer, how in zip(
            examples, prompts, answers, sampling or [GREEDY] * len(prompts), strict=True
        )
    ]
    decoder = Decoder(caller, base.device)
    arriving = decoder.arriving(requests)
    arriving.read()
    if not arriving.rows.can_leave and not sampling:  # transformers knows how
        return None
    decoder.join(arriving)
    while decoder.n_rows:
        decoder.step()
    return [answer.numbers for answer in answers]


class _Answer:
    """The tokens of one answer so far; it wants no more once one of the texts `stop` is among them."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._text = TextStream(tokenizer, stop) if stop else None
        self.numbers: list[int] = []

    def hear(self, token: Token) -> bool:
        self.numbers.append(token.number)
        if self._text is None:
            return True
        self._text.add(token.number)
        return not self._text.is_over


def _generate(
    base: Reader, examples: Sequence[Example], prompts: Sequence[Encoded], caller: Caller, max_new_tokens: int,
    stop: Sequence[str],
) -> list[list[int]]:  # fmt: skip
    batch = pad(prompts).to(base.device)
    with caller.about(examples):
        ids = base.hf.generate(
            input_ids=batch.ids, attention_mask=batch.mask, max_new_tokens=max_new_tokens, do_sample=False,
            **endings(base, examples, stop),
        )  # fmt: skip
    found: list[list[int]] = ids[:, batch.ids.shape[1] :].tolist()
    return found


def stops_of(base: Reader, examples: Sequence[Example]) -> list[int]:
    """List the tokens that end answers to these examples: the base's, and in a chat the end of its turns."""
    end = base.turn_end if any(example.messages for example in examples) else None
    return [*base.stop_tokens, *([end] if end is not None and end not in base.stop_tokens else [])]


def endings(base: Reader, examples: Sequence[Example], stop: Sequence[str] = ()) -> dict[str, Any]:
    """Give the options of `generate` that end answers to these examples, beside those that the base has."""
    options: dict[str, Any] = {"stop_strings": list(stop), "tokenizer": base.tokenizer} if stop else {}
    stops = stops_of(base, examples)
    return options if stops == list(base.stop_tokens) else {**options, "eos_token_id": stops}
