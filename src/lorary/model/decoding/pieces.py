"""One answer, piece by piece."""

from collections.abc import Iterator

import torch

from lorary.model.decoding.answer import Answering, generate_tokens, stops_of
from lorary.model.decoding.decoder import Decoder, Request, Token
from lorary.model.decoding.sequences import Caller
from lorary.model.decoding.text_stream import TextStream
from lorary.model.text.batching import is_of_memory, too_long
from lorary.model.text.reader import Reader
from lorary.model.text.scoring import encode_open
from lorary.model.text.tokens import Encoded
from lorary.tasks.example import Example


class Stream(Iterator[str]):
    """An answer as it is made: iterate over its pieces, which together are what `generate_text` gives.

    example: what is asked, and `how` it is answered. tokens: those made so far, with the one that ended it. Stop
    iterating, and no more are made.
    """

    def __init__(self, base: Reader, caller: Caller, example: Example, how: Answering) -> None:
        how.check(1)
        self.example, self.how, self.tokens = example, how, list[int]()
        self._base, self._caller = base, caller
        self._text = TextStream(base.tokenizer, how.stop)
        self._fresh: list[str] = []
        self._pieces = _stripped(self._made()) if how.strip else self._made()

    def __next__(self) -> str:
        """Give the next piece, never empty."""
        return next(self._pieces)

    def _made(self) -> Iterator[str]:
        (row,) = encode_open(self._base, [self.example], self.how.max_new_tokens)
        steps = self._steps(row)
        while self._is_going(steps, row):
            if text := self._take():
                yield text
        if text := self._take() + self._text.end():
            yield text

    def _is_going(self, steps: Iterator[None], row: Encoded) -> bool:
        """Make one more token, where memory holds it. The mode is left before others compute."""
        try:
            with torch.inference_mode():
                return next(steps, self) is None
        except RuntimeError as error:
            if not is_of_memory(error):
                raise
            raise too_long(len(row) + len(self.tokens)) from error

    def _steps(self, row: Encoded) -> Iterator[None]:
        """Make token after token; bases whose cache rows can't leave are left to transformers, which gives all."""
        base, caller, sampling = self._base, self._caller, self.how.of(0)
        stops = frozenset(stops_of(base, [self.example]))
        request = Request(self.example, row.prompt, self.how.max_new_tokens, self._hear, stops, sampling)
        decoder = Decoder(caller, base.device)
        arriving = decoder.arriving([request])
        arriving.read()
        if not arriving.rows.can_leave and sampling.temperature == 0:
            for number in generate_tokens(base, [self.example], [row], caller, self.how)[0]:
                if not self._hear(Token(number)):
                    break
            return
        decoder.join(arriving)
        yield
        while decoder.n_rows:
            decoder.step()
            yield

    def _hear(self, token: Token) -> bool:
        self.tokens.append(token.number)
        self._fresh.append(self._text.add(token.number))
        return not self._text.is_over

    def _take(self) -> str:
        text = "".join(self._fresh)
        self._fresh.clear()
        return text


def _stripped(pieces: Iterator[str]) -> Iterator[str]:
    """Leave out white space at both ends: what may be the end is held back."""
    begun, held = False, ""
    for piece in pieces:
        text = held + piece if begun else piece.lstrip()
        kept = text.rstrip()
        begun, held = begun or bool(kept), text[len(kept) :]
        if kept:
            yield kept
