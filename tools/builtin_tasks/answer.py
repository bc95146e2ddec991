"""Family answer: a question about a country, answered with the bare fact."""

import random

from .countries import COUNTRIES, PARTS_OF_THE_WORLD
from .recipe import Draft, Recipe

CAPITAL = ("What is the capital of {}?", "Name the capital city of {}.")
CONTINENT = ("On which continent is {}?", "Which continent does {} belong to?")


def draft_capital(chance: random.Random) -> list[Draft]:
    """Ask for each capital in two ways; both go to one part."""
    del chance
    return [Draft(q.format(name), capital, name) for name, capital, _ in COUNTRIES if capital for q in CAPITAL]


def draft_continent(chance: random.Random) -> list[Draft]:
    """Ask for each continent in two ways; both go to one part."""
    del chance
    return [
        Draft(q.format(name), PARTS_OF_THE_WORLD[code], name) for name, _, code in COUNTRIES if code for q in CONTINENT
    ]


RECIPES = (
    Recipe(
        "answer_capital",
        "answer",
        "Name the capital of a country.",
        "A table written by hand and checked against public data; disputed or changing capitals are left out. "
        "Both questions about one country are in one part, so the test asks for unseen countries.",
        draft_capital,
    ),
    Recipe(
        "answer_continent",
        "answer",
        "Name the continent of a country.",
        "A table written by hand and checked against public data; countries on two continents are left out. "
        "Both questions about one country are in one part, so the test asks for unseen countries.",
        draft_continent,
    ),
)
