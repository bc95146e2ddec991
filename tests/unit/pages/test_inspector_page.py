"""Text on the inspector's pages is never HTML, and a page loads and runs nothing but what is ours."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lorary.pages.inspector import MapOfExperts, Told, answer_page, chat_asset, chat_page, in_notebook
from lorary.pages.render import render

HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(1)>",
    "\"' onfocus=alert(1) autofocus", "]]>&lt;b&gt;", "{{ 7 * 7 }}", "\u202egnp.exe", "\u2028\x00\x1b[31m", "\udcff",
)  # fmt: skip
ASSETS = Path(__file__).parents[3] / "src" / "lorary" / "pages" / "assets"


class Reader(HTMLParser):
    """Collects the tags, and what stands in scripts and styles."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.raw, self.policy, self.inside, self.srcdoc = [], [], "", None, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag in ("script", "style"):
            self.inside = (tag, attrs.get("type", ""))
            self.raw.append([*self.inside, ""])
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        self.srcdoc = attrs.get("srcdoc", self.srcdoc)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.raw[-1][2] += data


def told(tokens, experts):
    weights = [[[(0, 0.75), (len(experts) - 1, 0.25)], [(0, 1.0)]] for _ in tokens]
    return {
        "experts": list(experts),
        "sites": ["a.q", "a.v"],
        "tokens": list(tokens),
        "weights": weights,
        "left_out": 0,
    }


def hostile_page():
    answers = [Told(name, told(HOSTILE, HOSTILE), 2) for name in HOSTILE]
    n = len(HOSTILE)
    return answer_page(HOSTILE[0], answers, MapOfExperts(HOSTILE, [[1.0] * n] * n))


def tags_of(page):
    return [tag for tag, _ in Reader(page).tags]


def test_no_name_or_token_becomes_a_tag_and_all_come_back():
    plain = answer_page("T", [Told("m", told(["a"], ["e"]))], MapOfExperts(["e"], [[1.0]]))
    assert tags_of(hostile_page()) == tags_of(plain)
    (data,) = (text for tag, kind, text in Reader(hostile_page()).raw if kind == "application/json")
    read = json.loads(data)
    assert read["answers"][3]["told"]["tokens"] == list(HOSTILE)
    assert read["map"]["experts"] == list(HOSTILE)
    assert [one["title"] for one in read["answers"]] == list(HOSTILE)
    hostile_page().encode()  # lone surrogates, too, can be written


def test_a_title_is_text():
    for title in HOSTILE:
        page = answer_page(title, [])
        assert tags_of(page) == tags_of(answer_page("T", []))
        assert "\x00" not in page and "\x1b" not in page


def test_the_policy_names_what_stands_in_the_page_and_nothing_else():
    reader = Reader(hostile_page())
    named = re.findall(r"'sha256-([^']+)'", reader.policy)
    run = [text for _, kind, text in reader.raw if kind != "application/json"]
    assert named == [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert "default-src 'none'" in reader.policy and "unsafe" not in reader.policy


@pytest.mark.parametrize("page", [hostile_page(), chat_page()], ids=["answers", "chat"])
def test_a_page_reaches_nobody_else(page):
    places = [attrs[key] for _, attrs in Reader(page).tags for key in ("src", "href", "action") if key in attrs]
    assert all(place == "data:," or chat_asset(place.removeprefix("inspector/")) for place in places)
    handlers = [key for _, attrs in Reader(page).tags for key in attrs if key.startswith("on") or key == "style"]
    assert handlers == []


def test_the_chat_holds_no_script_of_its_own_and_finds_its_files():
    scripts = [attrs for tag, attrs in Reader(chat_page()).tags if tag == "script"]
    assert scripts and all(set(attrs) == {"src"} for attrs in scripts)
    assert all(text.strip() == "" for _, _, text in Reader(chat_page()).raw)
    styles = [attrs["href"] for tag, attrs in Reader(chat_page()).tags if attrs.get("rel") == "stylesheet"]
    assert chat_asset(styles[0].removeprefix("inspector/"))[1] == "text/css"
    assert chat_asset("saved.js") is None and chat_asset("../escape.py") is None


@pytest.mark.parametrize("path", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_no_asset_makes_html_of_text_or_asks_another_host(path):
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|</script|<!--"
        r"|(?:local|session)Storage|indexedDB|\.cookie|@import|url\("
    )
    assert re.findall(forbidden, text, re.IGNORECASE) == []
    assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, not a place


def test_a_notebook_holds_the_page_in_a_frame_of_its_own():
    reader = Reader(in_notebook("A title", hostile_page()))
    ((tag, attrs),) = reader.tags
    assert (tag, attrs["sandbox"]) == ("iframe", "allow-scripts")
    assert reader.srcdoc == html.unescape(reader.srcdoc.replace("&", "&amp;")) == hostile_page()


def test_what_a_template_lacks_is_an_error():
    with pytest.raises(Exception, match="'page' is undefined"):
        render("notebook.html", title="T")
