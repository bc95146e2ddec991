import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorary.errors import EvaluationError
from lorary.reporting.token_trace import TokenTrace

BAD = "<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Collects tags, and the text of each token span."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.titles, self.scripts, self.into = [], [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if attrs.get("class", "").startswith("t "):
            self.texts.append("")
            self.titles.append(attrs["title"])
            self.into = self.texts
        elif tag == "script":
            self.scripts.append("")
            self.into = self.scripts
        elif tag != "i":
            self.into = None

    def handle_endtag(self, tag):
        if tag in ("span", "script"):
            self.into = None

    def handle_data(self, data):
        if self.into:
            self.into[-1] += data


def trace_of(tokens, names=("poems", "news"), **more):
    weights = np.tile(np.linspace(0.75, 0.25, len(names)), (len(tokens), 1))
    return TokenTrace(tuple(tokens), tuple(names), weights, **more)


def test_each_token_wears_its_heaviest_expert():
    weights = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])
    html = TokenTrace(("Hello", " you"), ("poems", "news", "law"), weights).to_html()
    assert re.findall(r'class="t (e\d)" style="--w:(\d+)"', html) == [("e0", "90"), ("e1", "70")]
    assert Reader(html).titles == ["poems 90 %, news 10 %", "news 70 %, poems 30 %"]
    assert Reader(html).texts == ["Hello", " you"]


def test_a_tie_goes_to_the_first_and_nobody_is_named_twice():
    html = TokenTrace(("a",), ("x", "y", "z", "w", "v"), np.full((1, 5), 0.2)).to_html()
    assert Reader(html).titles == ["x 20 %, y 20 %, z 20 %, w 20 %"]


def test_most_experts_are_grey_in_a_big_library():
    weights = np.full((1, 20), 0.01)
    weights[0, 19] = 0.81
    html = TokenTrace(("a",), tuple(f"expert{i}" for i in range(20)), weights).to_html()
    assert 'class="t e0"' in html
    assert '<span class="key e0"></span>expert19 <small>81 %</small>' in html
    assert '<span class="key e8"></span>12 others <small>12 %</small>' in html


def test_white_space_is_visible_and_kept():
    html = trace_of(["a\n\tb", "", "\r\n", "\x00\u202e\ud800"]).to_html()
    assert Reader(html).texts == ["a↵\n⇥\tb", "∅", "↵\n", "␀\u202e?"]


def test_nothing_that_others_wrote_becomes_a_tag():
    bad = (BAD, "</script><script>alert(1)</script>", '" onmouseover="alert(1)', "<!--")
    trace = trace_of(bad, bad, title=BAD, sites=(BAD,), by_site=np.ones((1, 4, 4)))
    reader = Reader(html := trace.to_html())
    assert set(reader.tags) == {
        "section",
        "h3",
        "label",
        "select",
        "option",
        "p",
        "span",
        "div",
        "ul",
        "li",
        "small",
        "script",
    }
    assert reader.texts == list(bad)
    assert 'onmouseover="' not in html
    assert json.loads(reader.scripts[0])["names"] == list(bad)
    assert len(reader.scripts) == 1


def test_each_site_has_its_tops():
    by_site = np.array([[[0.8, 0.2]], [[0.1, 0.9]]])
    html = trace_of(["a"], sites=("q", "v"), by_site=by_site).to_html()
    assert '<option value="0">mean of all</option><option value="1">q</option><option value="2">v</option>' in html
    assert json.loads(Reader(html).scripts[0]) == {
        "names": ["poems", "news"],
        "colours": [0, 1],
        "tops": [[[[0, 75], [1, 25]]], [[[0, 80], [1, 20]]], [[[1, 90], [0, 10]]]],
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=["C", "Zl", "Zp"]), min_size=1), min_size=1, max_size=4))
def test_any_text_comes_back_as_it_was(tokens):
    assert Reader(trace_of(tokens).to_html()).texts == tokens


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TokenTrace(("a",), ("x",), np.ones((2, 1)), "T"),
            "error[E-REPORT] trace 'T': weights has shape (2, 1), expected (1, 1) (tokens, experts).",
        ),
        (
            lambda: TokenTrace((), ("x",), np.ones((0, 1)), "T"),
            "error[E-REPORT] trace 'T': weights has shape (0, 1), expected (0, 1) (tokens, experts). "
            "An empty text has no trace.",
        ),
        (
            lambda: TokenTrace(("a",), ("x",), np.ones((1, 1)), "T", ("q",), np.ones((2, 1, 1))),
            "error[E-REPORT] trace 'T': by_site has shape (2, 1, 1), expected (1, 1, 1) (sites, tokens, experts).",
        ),
        (
            lambda: TokenTrace(("a",), ("x",), np.full((1, 1), np.nan), "T"),
            "error[E-REPORT] trace 'T': weights holds NaN or infinity, expected finite numbers.",
        ),
        (
            lambda: TokenTrace(("a",), ("x",), np.ones((1, 1)), "T", ("q",), np.full((1, 1, 1), np.inf)),
            "error[E-REPORT] trace 'T': by_site holds NaN or infinity, expected finite numbers.",
        ),
    ],
)
def test_sizes_and_numbers_must_make_sense(make, message):
    with pytest.raises(EvaluationError) as caught:
        make()
    assert str(caught.value) == message
