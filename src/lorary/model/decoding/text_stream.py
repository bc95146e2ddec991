"""Tokens -> text as it grows: whole characters only, and nothing of a text that ends the answer."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase as Tokenizer


class TextStream:
    """The text of one answer so far. `stop`: the answer ends before the first of these texts."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(filter(None, stop))
        self._numbers: list[int] = []
        self._start = self._shown = 0  # the token from which is decoded, and up to which the text is known
        self._held = ""
        self.is_over = self.is_cut = False

    def add(self, number: int) -> str:
        """Take one more token; give the text that is certain now."""
        self._numbers.append(number)
        before = self._decoded(self._start, self._shown)
        after = self._decoded(self._start, len(self._numbers))
        if len(after) <= len(before) or after.endswith("\ufffd"):  # the rest of a character is to come
            return ""
        self._start, self._shown = self._shown, len(self._numbers)
        return self._certain(after[len(before) :])

    def end(self) -> str:
        """Give what was held back, as no more tokens come."""
        if self.is_over:
            return ""
        rest = self._decoded(self._start, len(self._numbers))[len(self._decoded(self._start, self._shown)) :]
        self._shown = len(self._numbers)
        text = self._certain(rest)
        self.is_over, held, self._held = True, self._held, ""
        return text if self.is_cut else text + held

    def _certain(self, new: str) -> str:
        """Give the text that no stop can take back any more."""
        text = self._held + new
        cut = until(text, self._stop)
        if len(cut) < len(text):
            self.is_over, self._held, self.is_cut = True, "", True
            return cut
        n_held = max((n for word in self._stop for n in range(1, len(word)) if text.endswith(word[:n])), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def _decoded(self, start: int, end: int) -> str:
        return str(self._tokenizer.decode(self._numbers[start:end], skip_special_tokens=True))


def until(text: str, stop: Sequence[str]) -> str:
    """Give a text up to the first of the texts `stop`."""
    places = [place for word in stop if (place := text.find(word)) >= 0]
    return text[: min(places)] if places else text
