import base64
import json
import os
import re
from xml.etree import ElementTree

import pytest

from lorary.errors import LibraryError, OptionError
from lorary.evaluation.scores import Scores
from lorary.pages.inspector import Told
from lorary.reporting.figure import Picture, draw_scores, draw_similarity, draw_training
from lorary.reporting.html import write_report
from lorary.reporting.report import report

BAD = "<img src=x onerror=alert(1)>"


@pytest.mark.slow
def test_the_whole_page(tmp_path, table, similarity, curves, trace):
    names, matrix, clusters = similarity
    pictures = [draw_scores(table), draw_similarity(names, matrix, clusters=clusters), draw_training(curves)]
    into = write_report(
        os.environ.get("LORARY_DEMO_REPORT", tmp_path / "report.html"),  # set it to look at the page
        title="A library of LoRAs on the toy base",
        summary=[
            "private-arrow reaches 55.2 Rouge-L on trained tasks, 26 above uniform and 7 below the oracle.",
            "On unseen tasks mbc-uniform is best; its lead over mbc-arrow is within the noise (p = 0.31).",
        ],
        tables=[table],
        pictures=pictures,
        traces=[trace],
        provenance={"base": {"name": "toy", "fingerprint": "8f2c41d0"}, "libraries": ["libs/private", "libs/mbc"]},
        png_dir=tmp_path / "figures",
    )
    html = into.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Scores", "Figures", "Who spoke", "Provenance"]
    assert "<dt>base.fingerprint</dt><dd>8f2c41d0</dd>" in html
    assert "<dt>libraries</dt><dd>libs/private, libs/mbc</dd>" in html
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "scores.png",
        "similarity.png",
        "training.png",
    ]


def test_the_page_loads_nothing(tmp_path, trace):
    html = write_report(
        tmp_path / "r.html", title="T", pictures=[Picture("p", "P", "c", "a", b"", b"<svg/>")], traces=[trace]
    )
    text = html.read_text().replace('"http://www.w3.org/2000/svg"', "")  # a name, which nobody asks
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'" in text
    assert not re.search(r"https?:|@import|url\(|<link", text)
    assert re.findall(r'src="([a-z]+:)', text) == ["data:"]


def test_everything_is_escaped(tmp_path):
    told = {"experts": [BAD], "sites": [BAD], "tokens": [BAD], "weights": [[[(0, 1.0)]]], "left_out": 0}
    trace = Told(BAD, told)
    text = write_report(
        tmp_path / "r.html",
        title=BAD,
        summary=[BAD],
        pictures=[Picture("p", BAD, BAD, BAD + '"', b"", b"")],
        traces=[trace],
        provenance={BAD: {BAD: [BAD]}},
    ).read_text()
    assert "<img src=x" not in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', text)
    (answer,) = json.loads(data)["answers"]
    assert answer == {"title": BAD, "told": {**told, "weights": [[[[0, 1.0]]]]}, "n_prompt": 0}
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 7
    assert 'onerror=alert(1)&gt;&quot;"' in text


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    into = write_report(tmp_path / "r.html", title="old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(into, title="new")
    assert "<h1>old</h1>" in into.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_an_empty_report_is_a_page(tmp_path):
    assert "<h2>" not in write_report(tmp_path / "deep" / "r.html", title="T").read_text()


@pytest.mark.slow
def test_runs_are_grouped_by_their_tasks(tmp_path, make_group):
    runs = make_group(0, ["rte", "boolq"]) + make_group(1, ["piqa", "quail", "race", "sciq"])
    text = report(runs, tmp_path / "r.html").read_text()
    assert re.findall(r'scope="colgroup">(.*?)<small>(.*?),', text) == [
        ("rte, boolq", "2 tasks"),
        ("piqa, quail, race, …", "4 tasks"),
    ]
    for tasks in ("rte, boolq", "piqa, quail, race, …"):
        assert f"<dt>mbc-arrow, rouge_l, {tasks}.router</dt><dd>mbc-arrow</dd>" in text
    assert "<dt>mbc-oracle, rouge_l.router</dt><dd>mbc-oracle</dd>" in text, "it has scores on one of them only"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["日本語", os.fsdecode(b"bad\xff"), "bell\a", "$x_{$", "\uffff"])
def test_any_name_of_a_run_stands_on_the_page(tmp_path, make_group, name):
    run, *_ = make_group(0, ["rte"])
    named = Scores({**run.header, "name": name, "tasks": {name: run.header["tasks"]["rte"]}}, run.outcomes)
    text = report([named], tmp_path / "r.html").read_text()
    (svg,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    assert ElementTree.fromstring(base64.b64decode(svg)).tag.endswith("svg")


@pytest.mark.parametrize("runs", ["runs/x.jsonl", ["runs/x.jsonl"]])
def test_what_is_no_run_is_refused(tmp_path, runs):
    with pytest.raises(OptionError, match=r"E-OPTION\] runs? is 'runs/x.jsonl', expected "):
        report(runs, tmp_path / "page.html")


@pytest.mark.slow
def test_a_page_and_its_figures_are_written_over_earlier_ones(tmp_path, make_group):
    for title in ("old", "new"):
        into = report(make_group(0, ["rte"]), tmp_path / "r.html", title=title, png_dir=tmp_path)
    assert "<h1>new</h1>" in into.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "scores.png"]


@pytest.mark.parametrize("text", ['{"prompt": "<footer>Written by lorary."}', "<!doctype html>mine", None])
def test_nothing_else_is_written_over(tmp_path, text):
    into = tmp_path / "mine"
    into.mkdir() if text is None else into.write_text(text)
    with pytest.raises(LibraryError) as caught:
        write_report(into, title="T")
    assert str(caught.value) == (
        f"error[E-EXISTS] '{into}' exists and isn't a page or figure that lorary wrote. "
        "Choose another path, or remove it."
    )
    assert text is None or into.read_text() == text


def test_a_foreign_picture_stays(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG mine")
    with pytest.raises(LibraryError, match=r"error\[E-EXISTS\] '.*p.png' exists"):
        write_report(tmp_path / "r.html", title="T", pictures=[Picture("p", "", "", "", b"", b"")], png_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_a_full_disk_names_the_page(tmp_path, full_disk):
    with full_disk(), pytest.raises(LibraryError, match=r"error\[E-DISK\] '.*/r.html': the disk is full \("):
        write_report(tmp_path / "r.html", title="T")
    assert list(tmp_path.iterdir()) == []


def test_a_place_of_others_is_told_by_the_page_s_name(tmp_path, someone_else):
    into = tmp_path / "r.html"
    with someone_else(), pytest.raises(LibraryError) as caught:
        write_report(into, title="T")
    assert str(caught.value) == (
        f"error[E-PERM] '{into}': writing is not allowed (Permission denied). Choose a place you can write to."
    )
