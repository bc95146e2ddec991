"""Share of answers that are right to the letter."""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lorary.evaluation.contract import Evaluator, LanguageModel, Outcome, generate
from lorary.options import require_count
from lorary.tasks.example import Example


@dataclass(frozen=True)
class ExactMatch(Evaluator):
    """Share of answers that equal one of the accepted answers.

    Value 100 or 0 per example. Greedy generation of at most `max_new_tokens`, up to the first of the texts `stop`.
    `normalise` says which differences are ignored:

    "text", also written true: case, extra white space, quotation marks around the whole, brackets around a lone letter
    or whole number, as in "(a)", and the punctuation of sentences: . , ; : ? at the end, and these and ! after a word
    of two or more letters. Differences that change a number or a symbol count: -5 is not 5, nor 1.5 15, 3/4 34, x<y
    x>y, 5% 5, C++ C, n! n, 1,000 1000.
    "bbh": all ASCII punctuation, case and extra white space, unless the answer is all punctuation. Source: the BBH
    score in microsoft/mttl, which takes -5 for 5. Differs: there all answers without a letter or digit are equal, "!!!"
    and "???" too; here they must be the same.
    "none", also written false: white space at the ends alone.
    """

    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    normalise: bool | Literal["text", "bbh", "none"] = "text"
    """What is no difference; see above."""
    stop: tuple[str, ...] = ()
    """Texts at the first of which an answer ends."""

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if isinstance(self.normalise, bool):
            object.__setattr__(self, "normalise", "text" if self.normalise else "none")
        require_count("exact_match: max_new_tokens", self.max_new_tokens)

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Generate one answer per example and look it up among the accepted ones."""
        answers = generate(model, examples, self.max_new_tokens, stop=self.stop)
        return [
            Outcome(
                example.task,
                index,
                self.judge(answer, example.answers),
                {"prediction": answer, "references": list(example.answers)},
            )
            for index, (example, answer) in enumerate(zip(examples, answers, strict=True))
        ]

    def judge(self, answer: str, accepted: Sequence[str]) -> float:
        """Give 100 for an answer that equals an accepted one, else 0."""
        form = _FORMS[str(self.normalise)]
        return 100.0 * (form(answer) in map(form, accepted))


_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»"}
_AFTER_A_WORD = re.compile(r"(?<=[^\W\d_]{2})[.,;:?!]+(?=\s|$)")
_LABEL = re.compile(r"\((?P<label>[^\W\d_]|\d+)\)")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _as_text(text: str) -> str:
    plain = " ".join(text.lower().split())
    while (bare := _without_ends(plain)) not in ("", plain):
        plain = bare
    return " ".join(_AFTER_A_WORD.sub("", plain).split())


def _without_ends(text: str) -> str:
    if len(text) > 2 and _QUOTES.get(text[0]) == text[-1]:
        return text[1:-1].strip()
    if label := _LABEL.fullmatch(text):
        return label["label"]
    return _AFTER_A_WORD.sub("", text.rstrip(".,;:?")).rstrip()


def _as_bbh(text: str) -> str:
    plain = text.lower().translate(_NO_PUNCTUATION)
    # An answer that is all punctuation ("+") would otherwise equal every other one, and the empty text.
    return " ".join((plain if plain.strip() else text).split())


_FORMS: dict[str, Callable[[str], str]] = {"text": _as_text, "bbh": _as_bbh, "none": str.strip}
