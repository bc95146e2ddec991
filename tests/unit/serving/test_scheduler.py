"""Who is answered when: long prompts hold nobody up, and what is answered at once has the bound that was set."""

from itertools import pairwise

import pytest

from lorary.model.decoding.answer import bare
from lorary.model.decoding.decoder import Arriving, Decoder, Request
from lorary.serving.scheduler import Ask, Limits, Scheduler
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base

LONG, SHORT = "l" * 200, "s" * 6


@pytest.fixture(scope="module")
def caller():
    return bare(pico_base().hf)


@pytest.fixture
def events(monkeypatch):
    """What was read, as the number of prompts and of tokens left, and whose token was heard, in order."""
    noted = []
    read = Arriving.read

    def note(arriving, n_tokens=None):
        is_over = read(arriving, n_tokens)
        noted.append((len(arriving.requests), arriving.n_left))
        return is_over

    monkeypatch.setattr(Arriving, "read", note)
    return noted


def run(caller, events, asked, *, desks=("base",), **limits):
    """Answer (name, prompt, number of tokens), all of whom wait from the start, at each of the desks in turn."""
    scheduler, left = Scheduler(dict.fromkeys(desks, caller), caller.hf.device, Limits(**limits)), len(asked)

    def ask(name, prompt, n_new):
        def hear(token):
            nonlocal left
            events.append(name)
            left -= token.ending is not None
            scheduler._stopping = left == 0
            return True

        def fail(error):
            events.append(error)
            scheduler._stopping = True

        return Ask(Request(Example(prompt, ""), [2 + ord(c) % 200 for c in prompt], n_new, hear), fail)

    for i, one in enumerate(asked):
        scheduler.submit(desks[i % len(desks)], [ask(*one)])
    scheduler._run()
    return events


def test_a_short_request_is_answered_while_a_long_prompt_is_read(caller, events):
    run(caller, events, [("long", LONG, 2), ("next long", LONG, 2), ("short", SHORT, 4)], piece=8)
    assert events[1:3] == [(1, 0), "short"]  # it waits for the piece under way, not for the next one
    first_long = events.index("long")
    assert events[:first_long].count("short") == 4
    assert sum(event == (1, 0) for event in events[:first_long]) == 2  # the short one's prompt, and the long one's
    assert events.count("long") == events.count("next long") == 2


def test_a_long_prompt_is_read_between_the_tokens_of_others(caller, events):
    run(caller, events, [("short", SHORT, 40), ("long", LONG, 1)], piece=8)
    tokens = [i for i, event in enumerate(events) if event == "short"]
    pieces = [i for i, event in enumerate(events) if isinstance(event, tuple) and event[1]]
    assert len(pieces) == 24
    assert all(b - a <= 3 for a, b in pairwise(tokens))  # a piece, and at the end the other's token


def test_prompts_that_others_would_wait_for_are_read_a_piece_at_a_time(caller, events):
    run(caller, events, [("long", LONG, 1), *((f"s{i}", SHORT, 8) for i in range(7))], piece=18)
    groups = [event[0] for event in events if isinstance(event, tuple) and event[0] > 1]
    assert groups == [3, 3]


@pytest.mark.parametrize("desks", [("base",), ("base", "other")])
def test_what_is_answered_at_once_is_bounded_padding_included(caller, events, monkeypatch, desks):
    """Of all models together: they share the memory."""
    held, rows, step = [], {}, Decoder.step

    def note(decoder):
        rows[decoder] = decoder.n_rows * decoder.n_tokens
        held.append(sum(rows.values()))
        step(decoder)
        rows[decoder] = decoder.n_rows * decoder.n_tokens

    monkeypatch.setattr(Decoder, "step", note)
    short = [(f"s{i}", SHORT, 20) for i in range(12)]
    run(caller, events, [*short[:9], ("long", LONG, 4), *short[9:]], desks=desks, tokens=420, piece=300)
    assert 210 < max(held) <= 420
    assert all(events.count(name) == n for name, _, n in [*short, ("long", "", 4)])
