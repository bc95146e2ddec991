"""Answers to prompts as evaluation asks for them, in batches that rows leave as soon as their answer ends."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from lorary.errors import OptionError
from lorary.evaluation.sampling import GREEDY, Sampling
from lorary.model.decoding.decoder import Decoder, Request, Token
from lorary.model.decoding.sequences import Caller
from lorary.model.decoding.text_stream import TextStream, until
from lorary.model.text.batching import in_batches
from lorary.model.text.reader import Reader
from lorary.model.text.scoring import check_examples, encode_open
from lorary.model.text.tokens import Encoded, pad
from lorary.options import require, require_count, require_each
from lorary.routing.contract import Context
from lorary.tasks.example import Example


def bare(hf: Any) -> Caller:
    """Call a base without experts."""
    return Caller(hf, lambda _: Context(), lambda _: nullcontext())


@dataclass(frozen=True)
class Answering:
    """What is wanted of answers, as `LanguageModel.generate_text` says it. sampling: one for each answer, or none."""

    max_new_tokens: int
    stop: Sequence[str] = ()
    sampling: Sequence[Sampling] = ()
    strip: bool = True

    def check(self, n_examples: int) -> None:
        """Refuse what can't be wanted. Raises E-OPTION."""
        require_count("max_new_tokens", self.max_new_tokens)
        require("stop", self.stop, (list, tuple), "a list of texts", 'Write ["\\n\\n"].')
        require_each("sampling", self.sampling, Sampling, "ways of sampling", "Write [Sampling(0.7)] * len(examples).")
        if self.sampling and len(self.sampling) != n_examples:
            what = f"sampling has {len(self.sampling)} entries, expected one for each of {n_examples} examples."
            raise OptionError("E-OPTION", what)

    def of(self, row: int) -> Sampling:
        """Give the sampling of one answer."""
        return self.sampling[row] if self.sampling else GREEDY


def answer(base: Reader, examples: Sequence[Example], caller: Caller, how: Answering) -> list[str]:
    """Generate after each prompt, until an answer ends or has max_new_tokens; outer blanks stripped if wanted.

    An answer ends at any of the base's stop tokens, at the end of turn of a chat, and before the first of the texts
    `stop`. The completions aren't looked at. Warns of prompts that are cut; raises E-LENGTH as `encode_open`, E-MEMORY,
    E-OPTION, and E-BASE for sampling on a base that hands on no cache.
    """
    check_examples(examples)
    how.check(len(examples))
    rows = encode_open(base, examples, how.max_new_tokens)
    return answer_rows(base, rows, examples, caller, how)


def answer_rows(
    base: Reader, rows: Sequence[Encoded], examples: Sequence[Example], caller: Caller, how: Answering
) -> list[str]:
    """Generate after each row's prompt as `answer` does; `examples`: what the router is told of it."""

    def run(group: list[int]) -> list[str]:
        shown = [examples[i] for i in group]
        prompts = [rows[i] for i in group]
        with torch.inference_mode():
            found = _decode(base, shown, prompts, caller, replace(how, sampling=[how.of(i) for i in group]))
            if found is None:
                found = generate_tokens(base, shown, prompts, caller, how)
        texts = [until(text, how.stop) for text in base.tokenizer.batch_decode(found, skip_special_tokens=True)]
        return [text.strip() for text in texts] if how.strip else texts

    return in_batches(base, rows, run, n_new=how.max_new_tokens)


def _decode(
    base: Reader, examples: Sequence[Example], prompts: Sequence[Encoded], caller: Caller, how: Answering
) -> list[list[int]] | None:
    """Give the tokens of each answer; None for a base whose cache rows can't leave, if greedy answers are wanted."""
    answers = [_Answer(base.tokenizer, how.stop) for _ in examples]
    stops = frozenset(stops_of(base, examples))
    requests = [
        Request(example, row.prompt, how.max_new_tokens, answer.hear, stops, sampling)
        for example, row, answer, sampling in zip(examples, prompts, answers, how.sampling, strict=True)
    ]
    decoder = Decoder(caller, base.device)
    arriving = decoder.arriving(requests)
    arriving.read()
    if not arriving.rows.can_leave and all(one.temperature == 0 for one in how.sampling):
        return None  # transformers knows how; but not to draw each row with a seed of its own
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


def generate_tokens(
    base: Reader, examples: Sequence[Example], prompts: Sequence[Encoded], caller: Caller, how: Answering
) -> list[list[int]]:
    """Give the tokens of greedy answers as transformers makes them: for bases whose cache rows can't leave."""
    batch = pad(prompts).to(base.device)
    with caller.about(examples):
        ids = base.hf.generate(
            input_ids=batch.ids, attention_mask=batch.mask, max_new_tokens=how.max_new_tokens, do_sample=False,
            **endings(base, examples, how.stop),
        )  # fmt: skip
    found: list[list[int]] = ids[:, batch.ids.shape[1] :].tolist()
    return found


def stops_of(base: Reader, examples: Sequence[Example]) -> list[int]:
    """List the tokens that end answers to these examples: the base's, and in a chat the end of its turns."""
    end = base.turn_end if any(example.messages for example in examples) else None
    return [*base.stop_tokens, *([end] if end is not None and end not in base.stop_tokens else [])]


def endings(base: Reader, examples: Sequence[Example], stop: Sequence[str] = ()) -> dict[str, object]:
    """Give the options of `generate` that end answers to these examples, beside those that the base has."""
    options: dict[str, Any] = {"stop_strings": list(stop), "tokenizer": base.tokenizer} if stop else {}
    stops = stops_of(base, examples)
    return options if stops == list(base.stop_tokens) else {**options, "eos_token_id": stops}
