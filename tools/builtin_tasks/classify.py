"""Family classify: read a short text and give back one of a few labels."""

import random

from .headlines import HEADLINE_SLOTS, HEADLINES
from .recipe import Draft, Recipe, filled, spread
from .requests import REQUEST_SLOTS, REQUESTS

# thing -> its parts, what is said of them by the pleased, what by the displeased
REVIEWS: tuple[tuple[str, str, str], ...] = (
    (
        "The soup|The bread|The pizza|The fish|The salad|The cake|Our dinner",
        "was fresh and full of taste|was the best I have had|tasted wonderful|was simply delicious|came out perfect",
        "had no taste at all|was bland and greasy|tasted of nothing but salt|came an hour late|made me feel sick",
    ),
    (
        "The room|The hotel|Our flat|The hostel|Our cabin",
        "was spotless and quiet|had a lovely view|felt like home|was bright and comfortable|was worth every cent",
        "smelled of smoke|was dirty and loud|was far too small and damp|had no hot water|was not worth the money",
    ),
    (
        "The film|The second season|The play|This documentary|The show",
        "kept me smiling to the end|was moving and clever|is a small masterpiece|made my whole family laugh",
        "put me to sleep|was slow and predictable|is a waste of an evening|had a silly plot and weak actors",
    ),
    (
        "This novel|The book|Her new story|The guide|The last chapter",
        "is beautifully written|was hard to put down|taught me a lot|is a joy from start to end",
        "is full of mistakes|was a chore to finish|bored me after ten pages|makes no sense at all",
    ),
    (
        "The phone|This laptop|The camera|The speaker|The new watch",
        "works like a dream|is fast and easy to use|has a superb battery|exceeded my hopes|looks and feels great",
        "broke after two days|is slow and keeps crashing|has an awful battery|overheats all the time|stopped working",
    ),
    (
        "The waiter|The staff|Our guide|The driver|The woman at the desk",
        "could not have been kinder|was friendly and quick|went out of the way to help|made us feel welcome",
        "was rude to my mother|ignored us for an hour|shouted at other guests|could not answer one question",
    ),
    (
        "The jacket|This backpack|The sofa|The dress|The tent|The mattress",
        "is just what I needed|is well made and light|looks lovely|still looks new after a year",
        "fell apart in a week|is ugly and badly sewn|arrived torn|lost its colour within a month",
    ),
    (
        "The app|This website|The update|Their web shop",
        "is simple and a pleasure to use|saves me hours|runs smoothly|is a great help",
        "crashes every time|is confusing and full of ads|lost all my data|is a complete mess",
    ),
    (
        "The course|The lesson|The workshop|The tour|The museum visit",
        "was inspiring|was well planned and fun|gave me new ideas|flew by far too quickly",
        "was a waste of time|was dull and badly planned|taught me nothing|left everyone disappointed",
    ),
)  # fmt: skip
PLEASED = (
    "", "", "Highly recommended!", "Well done!", "Five stars.", "What a treat!", "Thank you!", "We are so happy.",
)  # fmt: skip
DISPLEASED = (
    "", "", "Never again.", "I want my money back.", "One star.", "What a letdown.", "Stay away.", "Not recommended.",
)  # fmt: skip


def draft_sentiment(chance: random.Random) -> list[Draft]:
    """Make 180 pleased and 180 displeased reviews: a thing, what is said of it, and perhaps a last word."""
    drafts = []
    for label, ends in (("positive", PLEASED), ("negative", DISPLEASED)):
        pairs = [
            (thing, said)
            for things, good, bad in REVIEWS
            for thing in things.split("|")
            for said in (good if label == "positive" else bad).split("|")
        ]
        for thing, said in chance.sample(pairs, 180):
            if thing == "The staff":
                said = said.replace("was ", "were ", 1)
            review = f"{thing} {said}. {chance.choice(ends)}".strip()
            drafts.append(
                _labelled(chance, ("Positive or negative? ", "Sentiment (positive, negative): "), review, label)
            )
    return drafts


def draft_topic(chance: random.Random) -> list[Draft]:
    """Make 95 headlines of each topic, each pattern about equally often."""
    ask = ("Topic (sports, business, science, politics): ", "Sports, business, science or politics? ")
    return _from_patterns(chance, HEADLINES, HEADLINE_SLOTS, ask, 95)


def draft_request(chance: random.Random) -> list[Draft]:
    """Make 95 messages of each request, each pattern about equally often."""
    ask = ("Request (delivery, payment, account, repair): ", "Delivery, payment, account or repair? ")
    return _from_patterns(chance, REQUESTS, REQUEST_SLOTS, ask, 95)


def _from_patterns(
    chance: random.Random,
    patterns: dict[str, tuple[str, ...]],
    slots: dict[str, tuple[str, ...]],
    ask: tuple[str, ...],
    n: int,
) -> list[Draft]:
    drafts = []
    for label, of_label in patterns.items():
        texts: dict[str, None] = {}
        for pattern in spread(chance, of_label, 40 * len(of_label)):
            if len(texts) < n:
                text = filled(chance, pattern, **slots)
                texts[text[0].upper() + text[1:]] = None
        assert len(texts) == n, (label, len(texts))
        drafts += [_labelled(chance, ask, text, label) for text in texts]
    return drafts


def _labelled(chance: random.Random, ask: tuple[str, ...], text: str, label: str) -> Draft:
    return Draft(chance.choice(ask) + text, label, text)


RECIPES = (
    Recipe(
        "classify_sentiment",
        "classify",
        "Say whether a short review is positive or negative.",
        "Nine subjects, what happy and unhappy people say about them, and a closing remark, all written by hand.",
        draft_sentiment,
    ),
    Recipe(
        "classify_topic",
        "classify",
        "Say whether a headline is about sports, business, science or politics.",
        "16 patterns with slots per topic, written by hand; teams, bills and firms are invented.",
        draft_topic,
    ),
)
HELDOUT = (
    Recipe(
        "classify_request",
        "classify",
        "Say what a customer's message is about: delivery, payment, account or repair. Related to classify_topic.",
        "12 to 15 patterns with slots per kind of request, written by hand.",
        draft_request,
    ),
)
