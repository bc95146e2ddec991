"""Family rewrite: the same short sentence in another tense or mood, from one small grammar."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from .recipe import Draft, Recipe, spread
from .sentences import ADJECTIVES, IRREGULAR, PEOPLE, PEOPLE_DO, THINGS_DO


@dataclass(frozen=True)
class Sentence:
    """A sentence in the present, in parts: "The students" + "walk" + "to school", several of them."""

    subject: str
    verb: str
    rest: str
    several: bool

    @property
    def inner_subject(self) -> str:
        """The subject as it stands inside a sentence: "the students", but "Anna"."""
        first, space, rest = self.subject.partition(" ")
        common = first in ("The", "My", "Our", "He", "She", "They", "We", "Prices")
        return (first.lower() if common else first) + space + rest

    @property
    def present(self) -> str:
        """The sentence as it's given."""
        return f"{self.subject} {self.present_verb} {self.rest}."

    @property
    def present_verb(self) -> str:
        """The verb beside its subject: walk or walks, is or are."""
        if self.verb == "be":
            return "are" if self.several else "is"
        return self.verb if self.several else third_person(self.verb)

    @property
    def past(self) -> str:
        """The sentence in the simple past."""
        verb = ("were" if self.several else "was") if self.verb == "be" else past_tense(self.verb)
        return f"{self.subject} {verb} {self.rest}."

    @property
    def future(self) -> str:
        """The sentence with "will"."""
        return f"{self.subject} will {self.verb} {self.rest}."

    @property
    def question(self) -> str:
        """The sentence as a question with yes or no."""
        if self.verb == "be":
            return f"{self.present_verb.capitalize()} {self.inner_subject} {self.rest}?"
        return f"{'Do' if self.several else 'Does'} {self.inner_subject} {self.verb} {self.rest}?"

    @property
    def negative(self) -> str:
        """The sentence denied with "not"."""
        if self.verb == "be":
            return f"{self.subject} {self.present_verb} not {self.rest}."
        return f"{self.subject} {'do' if self.several else 'does'} not {self.verb} {self.rest}."


def third_person(verb: str) -> str:
    """Say what one does: walk -> walks, carry -> carries, have -> has."""
    if verb == "have":
        return "has"
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def past_tense(verb: str) -> str:
    """Say what one did: walk -> walked, stop -> stopped, write -> wrote."""
    if verb in IRREGULAR:
        return IRREGULAR[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + "ed"


def _sentences(chance: random.Random) -> list[Sentence]:
    """Make about 380 sentences: each predicate of people three times, each of things once, each adjective twice."""
    found: list[Sentence] = []
    subjects = spread(chance, PEOPLE, 3 * len(PEOPLE_DO) + 2 * len(ADJECTIVES) + 200)
    for predicate in [*PEOPLE_DO] * 3 + [f"be {adjective}" for adjective in ADJECTIVES] * 2:
        while _shares_word(subjects[-1], predicate):  # no "The driver thanks the driver"
            subjects.insert(0, subjects.pop())
        found.append(_sentence(subjects.pop(), predicate))
    found += [_sentence(subject, predicate) for subject, does in THINGS_DO.items() for predicate in does]
    return list(dict.fromkeys(found))


def _sentence(subject: str, predicate: str) -> Sentence:
    verb, _, rest = predicate.partition(" ")
    return Sentence(subject.strip("*"), verb, rest, subject.endswith("*"))


def _shares_word(subject: str, predicate: str) -> bool:
    return bool({w.lower()[:5] for w in subject.strip("*").split()} & {w[:5] for w in predicate.split()} - {"the"})


def _drafter(ask: tuple[str, ...], rewritten: Callable[[Sentence], str]) -> Callable[[random.Random], list[Draft]]:
    def draft(chance: random.Random) -> list[Draft]:
        return [Draft(chance.choice(ask) + s.present, rewritten(s), s.present) for s in _sentences(chance)]

    return draft


HOW = "About 160 predicates and 70 subjects, written by hand; verb forms by rule and from a table."
RECIPES = (
    Recipe(
        "rewrite_past",
        "rewrite",
        "Put a sentence into the past tense.",
        HOW,
        _drafter(("Put into the past tense: ", "Write in the past: "), lambda s: s.past),
    ),
    Recipe(
        "rewrite_question",
        "rewrite",
        "Turn a statement into a question that asks for yes or no.",
        HOW,
        _drafter(("Turn into a question: ", "Ask whether it is so: "), lambda s: s.question),
    ),
    Recipe(
        "rewrite_negative",
        "rewrite",
        'Negate a statement with "not".',
        HOW,
        _drafter(("Make it negative: ", "Say the opposite with not: "), lambda s: s.negative),
    ),
)
HELDOUT = (
    Recipe(
        "rewrite_future",
        "rewrite",
        'Put a sentence into the future with "will". Related to rewrite_past and rewrite_negative.',
        HOW,
        _drafter(("Put into the future tense: ", "Write with will: "), lambda s: s.future),
    ),
)
