"""Family convert: the same value in another notation."""

import random

from .extract import MONTHS
from .recipe import Draft, Recipe

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
MINUTES = {5: "five", 10: "ten", 15: "quarter", 20: "twenty", 25: "twenty-five"}


def in_words(number: int) -> str:
    """Write a whole number from 0 to 999,999 in English words: 412 -> four hundred and twelve."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens] + (f"-{ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    tail = "" if not rest else f" and {in_words(rest)}" if rest < 100 else f" {in_words(rest)}"
    return f"{in_words(thousands)} thousand{tail}"


def draft_digits(chance: random.Random) -> list[Draft]:
    """Draw 50 numbers under 100, 150 under 1000 and 130 under 10000."""
    numbers = chance.sample(range(13, 100), 50) + chance.sample(range(100, 1000), 150)
    numbers += chance.sample(range(1000, 10000), 130)
    ask = ("Write in digits: ", "As a number: ")
    return [Draft(chance.choice(ask) + in_words(n), str(n), str(n)) for n in numbers]


def draft_iso(chance: random.Random) -> list[Draft]:
    """Draw 330 days between 1950 and 2029, in one of four ways to write them."""
    drafts: dict[str, Draft] = {}
    ask = ("Write as YYYY-MM-DD: ", "Date in ISO format: ")
    while len(drafts) < 330:
        month = chance.randrange(12)
        day, year = chance.randint(1, MONTHS[month][1]), chance.randint(1950, 2029)
        name = MONTHS[month][0]
        forms = (
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{day} {name[:3]} {year}",
            f"{name[:3]} {day}, {year}",
        )
        iso = f"{year}-{month + 1:02}-{day:02}"
        drafts[iso] = Draft(chance.choice(ask) + chance.choice(forms), iso, iso)
    return list(drafts.values())


def draft_time(chance: random.Random) -> list[Draft]:
    """Take every five minutes of the day, said in words and with am or pm; both go to one part."""
    ask = ("Write as 24-hour time: ", "On a 24-hour clock: ")
    drafts = []
    for hour in range(24):
        for minute in range(0, 60, 5):
            if hour % 12 == 0 and minute == 0:  # people disagree about 12 am and 12 pm
                continue
            answer = f"{hour:02}:{minute:02}"
            short = f"{(hour - 1) % 12 + 1}:{minute:02} {'am' if hour < 12 else 'pm'}"
            drafts.append(Draft(chance.choice(ask) + short, answer, answer))
            if hour:  # nobody says "ten past twelve in the morning" for 00:10
                drafts.append(Draft(chance.choice(ask) + spoken(hour, minute), answer, answer))
    return drafts


def spoken(hour: int, minute: int) -> str:
    """Say a time from 01:00 to 23:55, in steps of five minutes: 15:45 -> quarter to four in the afternoon."""
    when = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    if hour >= 22:
        when = "at night"
    this, following = (in_words((h - 1) % 12 + 1) for h in (hour, hour + 1))
    if minute == 0:
        return f"{this} o'clock {when}"
    if minute == 30:
        return f"half past {this} {when}"
    if minute < 30:
        return f"{MINUTES[minute]} past {this} {when}"
    return f"{MINUTES[60 - minute]} to {following} {when}"


RECIPES = (
    Recipe(
        "convert_digits",
        "convert",
        "Write a number in words as digits.",
        "By rule, 330 numbers drawn from 13 to 9999; each comes once.",
        draft_digits,
    ),
    Recipe(
        "convert_iso_date",
        "convert",
        "Write a date as YYYY-MM-DD.",
        "By rule, 330 days drawn from 1950 to 2029, in four ways to write them; each comes once.",
        draft_iso,
    ),
)
HELDOUT = (
    Recipe(
        "convert_time",
        "convert",
        "Write a time of day on the 24-hour clock. Related to convert_digits and convert_iso_date.",
        "By rule, every five minutes of the day, in words and with am or pm; both forms of a time are in one part.",
        draft_time,
    ),
)
