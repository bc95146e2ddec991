"""Family extract: find one thing in a sentence and give it back as it stands there."""

import random

from .recipe import Draft, Recipe, spread
from .words import CITIES, DAYS, FIRST, LAST

MONTHS = (
    ("January", 31), ("February", 28), ("March", 31), ("April", 30), ("May", 31), ("June", 30),
    ("July", 31), ("August", 31), ("September", 30), ("October", 31), ("November", 30), ("December", 31),
)  # fmt: skip

PERSON = (
    "{name} called this morning about the invoice.",
    "Please tell {name} that the meeting is on {day}.",
    "The parcel was signed for by {name} at noon.",
    "On {day} we had lunch with {name} in {city}.",
    "A letter from {name} arrived on {day}.",
    "Our new manager in {city} is {name}.",
    "The room was booked by {name} for two nights.",
    "I spoke with {name} about the broken lift.",
    "The prize went to {name}, a nurse from {city}.",
    "{name} will teach the Spanish class on {day}.",
    "We bought the house in {city} from {name}.",
    "If you have questions, ask {name} at the front desk.",
    "The last chapter was written by {name}.",
    "Yesterday {name} won the race in {city}.",
    "The keys were found by {name} near the station.",
    "Dr. {name} can see you on {day} at ten.",
    "{name} sold the old piano last {day}.",
    "Send the contract to {name} before {day}.",
    "The photo shows {name} at the harbour in {city}.",
    "Have you met {name}, our neighbour from {city}?",
    "The tour of {city} is led by {name}.",
    "A ticket for {name} is waiting at the counter.",
    "My dentist, {name}, is moving to {city}.",
    "The cake was baked by {name} for the school.",
    "Last night {name} sang at the theatre in {city}.",
    "The report by {name} is due on {day}.",
    "{name} left a blue umbrella on the bus.",
    "Reserve a table for {name} on {day} evening.",
    "The witness, {name}, saw a white van.",
    "Thank you, {name}, for the kind words.",
)

DATE_BEFORE = (
    "{first} was born on {date} in {city}.",
    "We moved to {city} on {date}.",
    "{first} and {first2} got married on {date}.",
    "The letter is dated {date} and signed by {first}.",
    "A storm hit {city} on {date}.",
    "The new bridge opened on {date}.",
    "They met for the first time on {date}.",
    "{first} returned the two books on {date}.",
    "The train strike ended on {date}.",
)
DATE_AHEAD = (
    "The concert is on {date} at the town hall.",
    "On {date} the museum opens late.",
    "Please pay the bill before {date}.",
    "Room 12 is booked for {date}.",
    "My flight to {city} leaves on {date}.",
    "The shop will be closed on {date}.",
    "Your parcel should arrive by {date}.",
    "The exam starts at nine on {date}.",
    "The contract with {first} ends on {date}.",
    "From {date} the pool opens at seven.",
    "Our dentist can see you on {date} at ten.",
    "The library card expires on {date}.",
    "The school trip to {city} is planned for {date}.",
    "Water will be off on {date} from eight to noon.",
    "Tickets for {city} go on sale on {date}.",
    "The warranty is valid until {date}.",
    "The rent is due on {date}.",
    "The team plays in {city} on {date}.",
    "The course begins on {date} with ten students.",
    "The garden party is on {date}, rain or shine.",
    "Bring your old lamp to the repair day on {date}.",
)

ORDER = (
    "My order {code} has not arrived yet.",
    "I paid twice for order {code}.",
    "Order {code} was sent to {city} on {day}.",
    "Could you cancel order {code} for me?",
    "The {item} from order {code} is broken.",
    "When will order {code} be delivered?",
    "I would like to return order {code}.",
    "On {day} I placed order {code} for two shirts.",
    "Order {code} came without the {item}.",
    "Please change the address of order {code} to {city}.",
    "The invoice for order {code} is wrong.",
    "{first} picked up order {code} at the shop.",
    "I can't find order {code} in my account.",
    "Your order {code} is ready in {city}.",
    "We refunded 30 dollars for order {code}.",
    "Is the {item} in order {code} still under warranty?",
    "Order {code} contains one {item} and 3 books.",
    "The driver left order {code} with {first}.",
    "Thanks, order {code} arrived on {day}.",
    "There is a {item} missing from order {code}.",
    "Add a second {item} to order {code}, please.",
    "Our team packed order {code} this morning.",
    "Order {code} is late, it was due on {day}.",
    "The label says order {code}, weight 4 kilos.",
    "{first} wants a receipt for order {code}.",
)

PLACE = (
    "{first} moved to {city} last summer.",
    "The train from {city} is ten minutes late.",
    "We met {first} in {city} on {day}.",
    "It has rained in {city} since {day}.",
    "My sister studies law in {city}.",
    "The next conference will be held in {city}.",
    "{first} opened a small bakery in {city}.",
    "On {day} the band plays in {city}.",
    "{first} took the night bus to {city}.",
    "The factory near {city} makes bicycles.",
    "Snow closed the airport of {city} on {day}.",
    "Have you ever been to {city} in May?",
    "{first} sent us a postcard from {city}.",
    "Our office in {city} is closed on {day}.",
    "The painting was sold in {city} for a high price.",
    "A flat in {city} costs too much for {first}.",
    "Next year {first} will run the marathon in {city}.",
    "The river in {city} rose after the storm.",
    "{first} and {first2} grew up in {city}.",
    "The parcel is still at the depot in {city}.",
)

ITEMS = (
    "lamp",
    "mug",
    "jacket",
    "kettle",
    "charger",
    "blanket",
    "clock",
    "mirror",
    "radio",
    "backpack",
    "chair",
    "toaster",
)


def _slots(chance: random.Random) -> dict[str, str]:
    first, second = chance.sample(FIRST, 2)
    return {
        "first": first,
        "first2": second,
        "day": chance.choice(DAYS),
        "city": chance.choice(CITIES),
        "item": chance.choice(ITEMS),
    }


def draft_person(chance: random.Random) -> list[Draft]:
    """Give each full name one sentence, with a city or a day beside it."""
    names = sorted({f"{chance.choice(FIRST)} {chance.choice(LAST)}" for _ in range(400)})
    return _drafts(chance, _paired(chance, PERSON, names), "name", ("Name the person: ", "Who is mentioned? "))


def draft_date(chance: random.Random) -> list[Draft]:
    """Give each day of the year one sentence, in one of four ways to write it."""
    pairs = []
    days = [(month, day) for month, n_days in MONTHS for day in range(1, n_days + 1)]
    for template, (month, day) in zip(spread(chance, DATE_BEFORE + DATE_AHEAD, len(days)), days, strict=True):
        year = chance.randint(1985, 2020) if template in DATE_BEFORE else chance.randint(2027, 2035)
        forms = (f"{day} {month}", f"{month} {day}", f"{day} {month} {year}", f"{month} {day}, {year}")
        pairs.append((template, chance.choice(forms)))
    return _drafts(chance, pairs, "date", ("Find the date: ", "Which date is mentioned? "))


def draft_order(chance: random.Random) -> list[Draft]:
    """Give each order number one sentence, in one of three ways to write it."""
    codes = []
    for _ in range(400):
        one, two = chance.choices("ABCDEFGHJKLMNPRSTUVWXZ", k=2)
        number = chance.randint(1000, 9999)
        codes.append(
            chance.choice((f"{one}{number}", f"{one}{two}-{number % 900 + 100}", str(chance.randint(10000, 99999))))
        )
    return _drafts(
        chance, _paired(chance, ORDER, sorted(set(codes))), "code", ("Find the order number: ", "Order number? ")
    )


def draft_place(chance: random.Random) -> list[Draft]:
    """Give each city three sentences; all three go to one part."""
    cities = [city for city in CITIES for _ in range(3)]
    return _drafts(chance, _paired(chance, PLACE, cities), "city", ("Name the city: ", "Which city? "))


def _paired(chance: random.Random, templates: tuple[str, ...], answers: list[str]) -> list[tuple[str, str]]:
    return list(zip(spread(chance, templates, len(answers)), answers, strict=True))


def _drafts(
    chance: random.Random, pairs: list[tuple[str, str]], slot: str, instructions: tuple[str, ...]
) -> list[Draft]:
    drafts = []
    for template, answer in pairs:
        text = template.format(**{**_slots(chance), slot: answer})
        drafts.append(Draft(chance.choice(instructions) + text, answer, answer))
    return drafts


RECIPES = (
    Recipe(
        "extract_person",
        "extract",
        "Extract the full name of the person from a sentence.",
        "30 hand-written sentences, 400 names drawn from common first and last names; each name comes once.",
        draft_person,
    ),
    Recipe(
        "extract_date",
        "extract",
        "Extract the date from a sentence, as written.",
        "30 hand-written sentences, each day of the year once, in four ways to write it.",
        draft_date,
    ),
    Recipe(
        "extract_order_number",
        "extract",
        "Extract the order number from a customer's message.",
        "25 hand-written sentences, random numbers in three forms (A4821, KX-204, 58213); each comes once.",
        draft_order,
    ),
)
HELDOUT = (
    Recipe(
        "extract_place",
        "extract",
        "Extract the city from a sentence. Related to extract_person and extract_date.",
        "20 hand-written sentences, 134 well-known cities; all sentences about one city are in one part.",
        draft_place,
    ),
)
