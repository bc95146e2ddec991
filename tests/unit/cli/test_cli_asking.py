"""Questions, files of prompts and conversations on the command line."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from cli_line import Run, World

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
)
DRAWN = ("--temperature", 1, "--seed", 3)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    return tmp_path / "template.jinja"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [{"prompt": "swap: red", "id": 1}, {"question": "up?", "id": 2, "source": "s"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "p.jsonl"


def _type(monkeypatch: pytest.MonkeyPatch, typed: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))


def test_what_is_streamed_and_explained_is_the_answer(run: Run, world: World) -> None:
    line = ("ask", world.library, "swap: red", "--router", "arrow", "--max-new-tokens", 6, *DRAWN)
    whole, streamed = run(*line), run(*line, "--stream", "--explain")
    assert (whole.code, streamed.code) == (0, 0)
    assert streamed.out.startswith(f"{whole.out}\n")
    told = json.loads(run(*line, "--explain", "--json").out)
    assert len(told["trace"]["tokens"]) == len("swap: red") + 6  # a token is a byte
    assert run(*line[:-1], 4).out != whole.out


def test_an_answer_is_written_as_a_page(run: Run, world: World, tmp_path: Path) -> None:
    line = ("ask", world.library, "swap: red", "--router", "arrow", "--max-new-tokens", 3, "--html")
    found = run(*line, tmp_path / "a.html")
    assert (found.code, found.out) == (0, run(*line[:-1]).out)
    page = (tmp_path / "a.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
    (answer,) = json.loads(data)["answers"]
    assert (answer["title"], answer["n_prompt"]) == ("arrow", len("swap: red"))  # a token is a byte
    assert len(answer["told"]["tokens"]) == len(answer["told"]["weights"]) == len("swap: red") + 3
    assert sorted(json.loads(data)["map"]["experts"]) == ["copy", "swap", "upper"]
    (tmp_path / "mine.html").write_text("mine")
    refused = run(*line, tmp_path / "mine.html")
    assert (refused.code, refused.out) == (1, "") and "E-EXISTS" in refused.err


@pytest.mark.parametrize(
    ("options", "told"),
    [(("--seed", 1), "nothing is drawn without --temperature"), (("--stream", "--json"), "JSON is printed whole")],
)
def test_what_would_be_in_vain_is_refused(run: Run, world: World, options: tuple[object, ...], told: str) -> None:
    refused = run("ask", world.library, "x", *options)
    assert refused.code == 2
    assert told in refused.err


def test_a_file_of_prompts_is_answered(
    run: Run, world: World, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("answer", world.library, prompts, "--router", "arrow", "--max-new-tokens", 3, "--field", "said")
    found = run(*line, "--into", tmp_path / "a.jsonl")
    assert (found.code, found.out) == (0, "")
    assert "answering: 2/2" in found.err
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(row["id"], [*row][-1]) for row in rows] == [(1, "said"), (2, "said")]
    asked = run("ask", world.library, "swap: red", "--router", "arrow", "--max-new-tokens", 3, "--json")
    assert json.loads(asked.out)["answer"] == rows[0]["said"]

    _type(monkeypatch, prompts.read_bytes())
    piped = run("answer", world.library, "-", *line[3:])
    assert (piped.code, piped.out) == (0, (tmp_path / "a.jsonl").read_text())
    again = run(*line, "--into", tmp_path / "a.jsonl")
    assert (again.code, again.err.startswith("error[E-RUN]"), "loading" in again.err) == (1, True, False)


def test_workers_answer_a_file_in_the_same_bytes(run: Run, world: World, prompts: Path, tmp_path: Path) -> None:
    line = ("answer", world.library, prompts, "--router", "arrow", "--max-new-tokens", 3)
    alone = run(*line)
    shared = run(*line, "--workers", 1, "--into", tmp_path / "a.jsonl")
    assert (shared.code, shared.out, (tmp_path / "a.jsonl").read_text()) == (0, "", alone.out)
    assert "1 groups of rows to answer, 0 are there already." in shared.err and "answering: 2/2" in shared.err
    streamed = run(*line, "--workers", 1)
    assert (streamed.code, streamed.out) == (2, "") and "workers need a file" in streamed.err


def test_a_bad_row_is_told_before_the_base_is_loaded(run: Run, world: World, prompts: Path, tmp_path: Path) -> None:
    prompts.write_text(prompts.read_text() + '{"foo": 1}\n')
    refused = run("answer", world.library, prompts, "--into", tmp_path / "a.jsonl")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"error[E-DATA] {prompts}:3: ")
    assert [*tmp_path.glob("a.jsonl*")] == []


def test_a_conversation_through_a_pipe(run: Run, world: World, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("chat", world.library, "--router", "arrow", "--chat-template", template, "--max-new-tokens", 4)
    _type(
        monkeypatch, b"hi\n/explain\n/router uniform\n\n//slash\n/reset\nhi\n/router arrow\n/reset\nhi\n/quit\nnever\n"
    )
    found = run(*line)
    assert (found.code, "never" in found.out) == (0, False)
    assert "router: uniform" in found.err and "forgotten." in found.err
    first = found.out.splitlines()[0]
    asked = run("ask", world.library, "hi", "--chat", *line[2:])
    assert first == asked.out.rstrip("\n") == found.out.splitlines()[-1]
    assert f"{'h'!r}" in found.out  # of what was explained


def test_a_wrong_line_of_a_conversation_is_told_and_the_next_one_read(
    run: Run, world: World, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("chat", "base", "--base", world.base, "--chat-template", template, "--max-new-tokens", 4)
    _type(monkeypatch, b"/explain\n/nope\n/router uniform\n\xff\nhi\n/explain")
    found = run(*line)
    assert (found.code, len(found.out.splitlines())) == (1, 1)
    codes = [word.partition("]")[0] for word in found.err.split("error[")[1:]]
    assert codes == ["E-OPTION", "E-NAME", "E-OPTION", "E-DATA", "E-OPTION"]


def test_a_base_that_cannot_talk_is_told(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _type(monkeypatch, b"hi\n")
    refused = run("chat", "base", "--base", world.base)
    assert (refused.code, refused.out) == (1, "")
    assert "error[E-CHAT]" in refused.err and "--chat-template FILE" in refused.err


def test_ctrl_c_stops_an_answer_and_nothing_else(
    run: Run, world: World, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from lorary.asking import chat

    plain = chat.stream
    n = 0

    def interrupting(*given: object, **how: object) -> object:
        nonlocal n
        n += 1
        for place, piece in enumerate(plain(*given, **how)):  # type: ignore[arg-type]
            if n == 1 and place == 1:
                signal.raise_signal(signal.SIGINT)
            yield piece

    monkeypatch.setattr(chat, "stream", interrupting)
    line = ("chat", "base", "--base", world.base, "--chat-template", template, "--max-new-tokens", 24)
    _type(monkeypatch, b"hi\n/reset\nhi\n")
    found = run(*line)
    assert found.code == 0
    first, second = found.out.splitlines()
    assert second.startswith(first) and len(second) > len(first) > 0
