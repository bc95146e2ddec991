"""The inspector in a real Chromium: ask, stream, open a token, switch routers, keys alone, a phone, hostile texts."""

import json
import re
import shutil

import pytest
from running_server import serving

from lorary.library.library import Library
from lorary.pages.inspector import MapOfExperts, Told, answer_page, in_notebook
from lorary.serving.app import Options
from lorary.serving.shelf import shelf
from lorary.testing.pico import random_library

playwright_of = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
expect = playwright_of.expect
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]

HOSTILE = "<img src=x onerror=\"document.title='struck'\"></script><script>document.title='struck'</script>\u202egnp"
KEY = "the-key"


@pytest.fixture(scope="module")
def address(base, tmp_path_factory):
    library = random_library(tmp_path_factory.mktemp("libs") / "skills <i> \u202e", base, 4)
    routers = ["compass:n_texts=4,n_tokens=8", "arrow:top_k=2"]
    with shelf(base, [Library.open(library.path)], routers, "factors") as on, serving(on, Options(api_key=KEY)) as at:
        yield at


@pytest.fixture(scope="module")
def browser():
    with playwright_of.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def make_page(browser):
    """Make pages that fail the test for an error, a violated policy or a request to anybody else."""
    wrong, contexts = [], []

    def note(message):
        if message.type == "error" and "401" not in message.text:
            wrong.append(message.text)

    def make(allowed="", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", note)
        page.on("request", lambda asked: wrong.append(asked.url) if not is_ours(asked.url, allowed) else None)
        return page

    def is_ours(url, allowed):
        return url.startswith(("file:", "data:", "about:")) or (allowed and url.startswith(f"{allowed}/"))

    yield make
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def page(make_page, address):
    """The server's page, with its key given and short answers asked for."""
    page = make_page(address)
    page.goto(address)
    give_key(page)
    page.get_by_text("How it is asked").click()
    page.get_by_label("Longest answer").fill("6")
    return page


def give_key(page):
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#first option")).to_have_count(2 + 4 + 1)


def ask(page, question="who are you?", n=1):
    page.get_by_label("Question", exact=True).fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".turn").last.locator(".tokens")).to_have_count(n)


def test_the_key_is_asked_for_and_kept_nowhere(page, address):
    ask(page)
    kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""]
    page.reload()
    expect(page.locator("#status")).to_contain_text("the key is missing or wrong")
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.get_by_label("API key")).to_have_value("")
    give_key(page)
    expect(page.locator("#status")).to_have_text("")


def test_an_answer_streams_and_its_tokens_open(page):
    page.get_by_label("Longest answer").fill("48")  # of a few tokens all may come in one piece, on a busy machine
    seen = []
    page.expose_function("note", lambda text: seen.append(text))
    page.evaluate("""new MutationObserver(() => {
      const text = document.querySelector(".streaming")?.textContent;
      if (text) note(text);
    }).observe(document.getElementById("turns"), { subtree: true, childList: true, characterData: true })""")
    ask(page)
    assert len(set(seen)) > 1, "the text came in pieces"
    tokens = page.locator(".t")
    expect(tokens).to_have_count(48)
    tokens.nth(3).click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("4 of 48, answer of")
    expect(panel.locator(".layers tbody tr")).to_have_count(8)
    weights = panel.locator(".layers tbody tr").first.locator("td").all_inner_texts()
    assert sum(float(weight) for weight in weights if weight != "·") == pytest.approx(1, abs=0.03)
    leader = panel.locator(".ranked li").first.inner_text().split("\n")
    assert tokens.nth(3).get_attribute("title") == f"{leader[0]} {leader[-1]}"
    expect(panel.get_by_label("Shown")).to_have_value("evidence")
    charts = {}
    for measure in ("evidence", "mean", "last", "odds"):
        panel.get_by_label("Shown").select_option(measure)
        charts[measure] = panel.locator(".chart path").first.get_attribute("d")
    assert len({*charts.values()}) == 4
    assert charts["evidence"].count("L") == 47, "a line through all 48 tokens"


def test_two_routers_answer_side_by_side_and_can_be_switched(page):
    library, arrow = page.locator("#first option").evaluate_all("options => options.slice(0, 2).map((o) => o.value)")
    page.get_by_label("Beside it").select_option(arrow)
    ask(page, n=2)
    boxes = [box.bounding_box() for box in page.locator(".turn .column").all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    experts_of = [set(), set()]
    for column in (0, 1):
        page.locator(".column").nth(column).locator(".t").nth(2).click()
        experts_of[column] = page.locator(".layers tbody tr").first.locator("td").all_inner_texts()
        expect(page.locator(".t[aria-pressed=true]")).to_have_count(1)
    assert sum(weight not in ("·", "0.00") for weight in experts_of[1]) <= 2, "arrow:top_k=2"
    expect(page.get_by_label("Shown")).to_have_value("mean")  # Arrow keeps no evidence
    expect(page.locator("#shown option")).to_have_count(3)
    page.get_by_label("Model", exact=True).select_option(arrow)
    page.get_by_label("Beside it").select_option("")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").last.locator(".tokens")).to_have_count(1)
    assert page.locator(".turn").last.locator(".model").inner_text().endswith("arrow:top_k=2")
    assert library != arrow


def test_keys_alone_reach_everything(page):
    ask(page)
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.classList.contains('t')"):
            break
    focused = page.locator(".t:focus")
    expect(focused).to_have_count(1)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel.open")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator("#panel")).to_contain_text("2 of 6")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel")).to_contain_text("3 of 6")
    page.keyboard.press("End")
    expect(page.locator("#panel")).to_contain_text("6 of 6")
    page.get_by_label("Shown").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#panel.open")).to_have_count(0)
    assert page.evaluate("[...document.querySelectorAll('.t')].indexOf(document.activeElement)") == 5
    summary = page.get_by_text("Map of the library")
    summary.focus()
    page.keyboard.press("Enter")
    page.locator("canvas").focus()
    first = page.locator("#map-told").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator("#map-told").inner_text() != first
    assert "Nearest to it: " in first


def test_a_phone_shows_one_column_and_nothing_too_wide(make_page, address):
    page = make_page(address, viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark")
    page.goto(address)
    give_key(page)
    page.get_by_label("Beside it").select_option(index=2)
    page.get_by_text("How it is asked").click()
    page.get_by_label("Longest answer").fill("6")
    ask(page, n=2)
    boxes = [box.bounding_box() for box in page.locator(".turn .column").all()]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["y"] < boxes[1]["y"]
    token = page.locator(".column").last.locator(".t").nth(4)
    token.tap()
    panel = page.locator("#panel").bounding_box()
    assert panel["y"] + panel["height"] == pytest.approx(844, abs=1) and panel["width"] <= 390
    box = token.bounding_box()
    assert box["y"] + box["height"] <= panel["y"], "the panel hides what was tapped"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 180 > 60 > max(map(int, re.findall(r"\d+", paper)[:3]))
    page.get_by_role("button", name="Close").tap()
    expect(page.locator("#panel.open")).to_have_count(0)


def test_hostile_answers_and_names_are_text(page, address):
    trace = {"experts": [HOSTILE, "e1"], "sites": [HOSTILE, "b"], "tokens": [HOSTILE, " </p>"],
             "weights": [[[[0, 0.75], [1, 0.25]], [[0, 1.0]]], [[[1, 1.0]], []]], "left_out": 3}  # fmt: skip
    pieces = [
        {"choices": [{"index": 0, "delta": {"content": HOSTILE}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "length", "trace": trace}]},
    ]
    body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    ask(page, HOSTILE)
    expect(page.locator(".question p")).to_contain_text("<img src=x")
    page.locator(".t").first.click()
    expect(page.locator("#panel h2")).to_contain_text("</script>")
    expect(page.locator(".layers tbody th").first).to_contain_text("onerror=")
    expect(page.locator(".answer .note")).to_have_text("Not told of the last 3 tokens: the trace was full.")
    assert "⟨202E⟩" in page.locator(".legend").inner_text()
    assert page.title() == "lorary inspector"
    assert page.locator("img, script:not([src]), iframe").count() == 0
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        content_type="text/event-stream", body=f"data: {json.dumps({'error': {'message': HOSTILE}})}\n\n"
    ))  # fmt: skip
    page.get_by_label("Question", exact=True).fill("again")
    page.keyboard.press("Enter")
    expect(page.locator(".error")).to_contain_text("<img src=x")
    assert page.title() == "lorary inspector"


def test_a_stopped_answer_stays_and_the_server_goes_on(page):
    page.get_by_label("Longest answer").fill("200")
    page.get_by_label("Question", exact=True).fill("a long one")
    page.keyboard.press("Enter")
    expect(page.locator(".streaming")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".column .note")).to_contain_text("Stopped")
    page.get_by_label("Longest answer").fill("6")
    ask(page, "a short one")


def test_a_saved_page_and_a_notebook_s_frame_work_offline(make_page, tmp_path):
    told = {"experts": ["poems", HOSTILE, "e"], "sites": ["l.0.q", "l.1.q"], "tokens": ["a", HOSTILE, " c", "\n"],
            "weights": [[[(0, 0.75), (1, 0.25)], [(1, 1.0)]]] * 4, "left_out": 0}  # fmt: skip
    experts = MapOfExperts(["poems", HOSTILE], [[1.0, 0.25], [0.25, 1.0]])
    whole = answer_page("An answer", [Told("library", told, 2)], experts)
    (tmp_path / "page.html").write_text(whole)
    (tmp_path / "cell.html").write_text(f"<!doctype html><title>cell</title>{in_notebook('An answer', whole)}")
    for name, title in (("page.html", "An answer"), ("cell.html", "cell")):
        page = make_page(offline=True)
        page.goto((tmp_path / name).as_uri())
        shown = page if name == "page.html" else page.frame_locator("iframe")
        expect(shown.locator(".t")).to_have_count(4)
        expect(shown.locator(".t.asked")).to_have_count(2)
        shown.locator(".t").nth(2).click()
        expect(shown.locator("#panel")).to_contain_text("3 of 4, answer of library")
        shown.locator("canvas").hover()
        expect(shown.locator("#map-told")).to_contain_text("Nearest to it")
        assert page.title() == title
