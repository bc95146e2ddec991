"""Files of prompts: rows and their order are kept, and a run that was stopped ends in the same bytes."""

import io
import json

import pytest

import lorary as lo
from lorary.asking import answers
from lorary.disk.growing import part_of
from lorary.testing.pico import pico_base

ROWS = [{"prompt": f"copy: {'ab' * i}", "id": i, "note": {"of": ["x", None]}} for i in range(7)]
WISH = lo.Wish(6, sampling=lo.Sampling(1.0, seed=5), field="said")


@pytest.fixture(scope="module")
def base():
    return pico_base()


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(answers, "_AT_ONCE", 3)


@pytest.fixture
def prompts(tmp_path):
    return lo.read_prompts(_file(tmp_path, ROWS), field="said")


def _file(place, rows):
    path = place / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class _StoppedError(Exception):
    pass


def _stop_at(wanted):
    def tell(done, total):
        if done == wanted:
            raise _StoppedError

    return tell


def test_rows_are_kept_and_answered_as_alone(base, prompts, tmp_path):
    lo.answer_prompts(base, prompts, into=tmp_path / "a.jsonl", wish=lo.Wish(6, field="said"))
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    texts = base.generate_text([prompt.example for prompt in prompts], max_new_tokens=6)
    assert found == [{**row, "said": text} for row, text in zip(ROWS, texts, strict=True)]
    assert [*found[0]] == ["prompt", "id", "note", "said"]


@pytest.mark.parametrize("torn", [b"", b'{"prompt": "cop', b'{"prompt": "a", "said": "a whole line"}\n{"pr'])
def test_a_stopped_run_ends_in_the_same_bytes(base, prompts, tmp_path, torn):
    whole, into = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    lo.answer_prompts(base, prompts, into=whole, wish=WISH)
    with pytest.raises(_StoppedError):
        lo.answer_prompts(base, prompts, into=into, wish=WISH, progress=_stop_at(3))
    assert not into.exists()
    part_of(into).write_bytes(part_of(into).read_bytes() + torn)
    told = []
    lo.answer_prompts(base, prompts, into=into, wish=WISH, progress=lambda n, total: told.append((n, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert into.read_bytes() == whole.read_bytes()
    assert not part_of(into).exists()


def test_a_run_that_was_stopped_at_its_very_end_is_finished(base, prompts, tmp_path):
    into = tmp_path / "a.jsonl"
    with pytest.raises(_StoppedError):
        lo.answer_prompts(base, prompts, into=into, wish=WISH, progress=_stop_at(7))
    into.write_bytes(b"as if it had been renamed")
    lo.answer_prompts(base, prompts, into=into, wish=WISH)
    assert len(into.read_text().splitlines()) == 7


def test_what_is_there_is_never_mixed_with_another_run(base, prompts, tmp_path):
    into = tmp_path / "a.jsonl"
    with pytest.raises(_StoppedError):
        lo.answer_prompts(base, prompts, into=into, wish=WISH, progress=_stop_at(3))
    for other, wish, word in ((prompts, lo.Wish(6, field="said"), "sampling"), (prompts[1:], WISH, "prompts")):
        with pytest.raises(lo.EvaluationError, match=f"another run: .*{word}"):
            lo.answer_prompts(base, other, into=into, wish=wish)
    into.write_text("mine")
    with pytest.raises(lo.EvaluationError, match="is there already"):
        lo.answer_prompts(base, prompts, into=into, wish=WISH)
    part_of(into).write_text("{}\n")
    with pytest.raises(lo.EvaluationError, match="no unfinished file of answers"):
        lo.answer_prompts(base, prompts, into=into, wish=WISH)
    assert into.read_text() == "mine"


def test_every_row_is_drawn_with_a_seed_of_its_own(base):
    same = [answers.Prompt({}, lo.Example("copy: a", ""))] * 4
    draw = {seed: _texts(base, same, lo.Sampling(1.0, seed=seed)) for seed in (0, 1)}
    assert len({*draw[0], *draw[1]}) == 8
    assert draw[0] == _texts(base, same, lo.Sampling(1.0, seed=0))


def _texts(base, prompts, sampling):
    groups = answers.answered(base, prompts, lo.Wish(12, sampling=sampling))
    return [row["answer"] for group in groups for row in group]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": " "}, "'prompt' is empty"),
        ({"prompt": "a", "answer": "b"}, "the row has a field 'answer'"),
        ({"foo": 1}, "expected the fields of a known shape"),
        ({"prompt": "a", "x": "\ud800"}, "'x' holds half a character"),
        ({"messages": [{"role": "system", "content": "a"}]}, "no message of 'user'"),
    ],
)
def test_a_row_that_asks_nothing_is_told_with_its_place(tmp_path, row, told):
    path = _file(tmp_path, [{"prompt": "fine"}, row])
    with pytest.raises(lo.TaskError, match=f"p.jsonl:2: .*{told}") as error:
        lo.read_prompts(path)
    assert error.value.code == "E-DATA"
    with pytest.raises(lo.TaskError, match=f"stdin:2: .*{told}"):
        lo.read_prompts(io.BytesIO(path.read_bytes()))


def test_an_empty_stream_is_told():
    with pytest.raises(lo.TaskError, match="there are no rows"):
        lo.read_prompts(io.BytesIO(b"\n"))
