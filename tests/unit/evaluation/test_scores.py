import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores, find_runs, parse_lines, read_scores, to_line


def make_scores(unit="0-100", name="run", metric="rouge_l", higher_is_better=True, **values):
    header = {
        "format": 1,
        "name": name,
        "metric": metric,
        "options": {"name": metric},
        "unit": unit,
        "higher_is_better": higher_is_better,
        "model": {},
        "tasks": {task: {"n_examples": len(values[task]), "hash": "0"} for task in sorted(values)},
    }
    outcomes = [Outcome(task, i, float(v)) for task in sorted(values) for i, v in enumerate(values[task])]
    return Scores(header, tuple(outcomes))


def write(path, scores):
    path.write_bytes(b"".join(map(to_line, [scores.header, *scores.outcomes])))
    return path


def test_the_mean_is_over_tasks_not_examples():
    scores = make_scores(big=[0, 0, 0, 0], small=[100])
    assert scores.per_task() == {"big": 0.0, "small": 100.0}
    assert scores.mean == 50.0


def test_perplexity_is_exp_of_the_mean():
    assert make_scores("nats per token", a=[1.0], b=[3.0]).perplexity == pytest.approx(math.exp(2))
    with pytest.raises(EvaluationError) as caught:
        _ = make_scores(a=[1.0]).perplexity
    assert str(caught.value) == "error[E-EVAL] rouge_l: no perplexity of values in '0-100'."


def test_the_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(50, 10, size=(4, 400))
    scores = make_scores(**{f"t{i}": row for i, row in enumerate(values)})
    low, high = scores.interval()
    half = 1.96 * np.sqrt((values.var(axis=1) / 400).sum()) / 4
    assert (low, high) == pytest.approx((scores.mean - half, scores.mean + half), abs=0.1)
    assert scores.interval() == (low, high)
    assert scores.interval(seed=1) != (low, high)
    narrow = scores.interval(0.5)
    assert low < narrow[0] < scores.mean < narrow[1] < high


@pytest.mark.slow
def test_big_tasks_are_resampled_in_pieces():
    rng = np.random.default_rng(0)
    low, high = make_scores(huge=rng.normal(size=9000)).interval()
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(9000), rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), min_size=1))
def test_intervals_stay_between_the_extremes(values):
    scores = make_scores(**values)
    low, high = scores.interval()
    least, most = (np.mean([f(v) for v in values.values()]) for f in (min, max))
    assert least - 1e-6 <= low <= high <= most + 1e-6


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.text(max_size=9), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), st.text()
)
def test_lines_give_back_what_was_written(task, values, prediction):
    scores = make_scores(**{task: values})
    outcomes = [Outcome(o.task, o.index, o.value, {"prediction": prediction}) for o in scores.outcomes]
    header, found = parse_lines(b"".join(map(to_line, [scores.header, *outcomes])), "x")
    assert (header, found) == (scores.header, outcomes)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 600), st.integers(0, 600))
def test_damaged_files_are_refused_by_name_or_read(noise, start, stop):
    scores = make_scores(a=[1, 2], b=[3])
    data = b"".join(map(to_line, [scores.header, *scores.outcomes]))
    message = ""
    try:
        parse_lines(data[:start] + noise + data[stop:], "run.jsonl")
    except EvaluationError as error:
        message = str(error)
    assert not message or message.startswith("error[E-RUN] run.jsonl:")


def refused(tmp_path, change):
    path = write(tmp_path / "run.jsonl", make_scores(a=[1.0, 2.0], b=[3.0]))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(EvaluationError) as caught:
        read_scores(path)
    return str(caught.value).replace(str(path), "run.jsonl")


def test_a_file_that_is_less_than_whole_is_refused(tmp_path):
    assert refused(tmp_path, lambda lines: lines.pop()) == (
        "error[E-RUN] run.jsonl: 1 examples are missing at the end. Delete it; run again."
    )
    assert refused(tmp_path, lambda lines: lines.pop(2)) == (
        "error[E-RUN] run.jsonl:3: task 'b', example 0, expected task 'a', example 1. Delete it; run again."
    )
    assert refused(tmp_path, lambda lines: lines.append(lines[1])) == (
        "error[E-RUN] run.jsonl:5: task 'a', example 0, expected the end. Delete it; run again."
    )
    assert refused(tmp_path, lambda lines: lines[1].update(value=math.nan)) == (
        "error[E-RUN] run.jsonl:2: value is nan, expected a finite number."
    )
    assert refused(tmp_path, lambda lines: lines[0].update(format=2)) == (
        "error[E-RUN] run.jsonl:1: format 2, expected 1. Is this a file of scores?"
    )
    assert refused(tmp_path, lambda lines: lines[0].pop("unit")) == (
        "error[E-RUN] run.jsonl:1: 'unit' is None, expected str."
    )
    assert refused(tmp_path, lambda lines: lines.insert(1, "hello")) == (
        "error[E-RUN] run.jsonl:2: not a JSON object: b'\"hello\"'. Is this a file of scores?"
    )


def test_a_missing_file_is_an_error_that_knows_of_its_part(tmp_path):
    with pytest.raises(EvaluationError, match=r"error\[E-RUN\] .*run.jsonl: no such file\.$"):
        read_scores(tmp_path / "run.jsonl")
    (tmp_path / "run.jsonl.part").touch()
    with pytest.raises(
        EvaluationError, match=r"no such file\. The run stopped early: repeat it to finish run\.jsonl\.$"
    ):
        read_scores(tmp_path / "run.jsonl")


def test_its_repr_says_what_it_came_to():
    assert repr(make_scores(a=[50.0, 50.0])) == "<run: rouge_l 50 (0-100), 2 examples, 1 tasks>"


@pytest.mark.parametrize(
    ("line", "fields", "message"),
    [
        (0, {"tasks": {}}, "1: there are no tasks. Delete it; run again."),
        (0, {"tasks": {"a": {"n_examples": 0, "hash": "0"}}},
         "1: task 'a' is {'hash': '0', 'n_examples': 0}, expected n_examples, 1 or more, and hash."),
        (0, {"tasks": {"a": {"n_examples": -3, "hash": "0"}}},
         "1: task 'a' is {'hash': '0', 'n_examples': -3}, expected n_examples, 1 or more, and hash."),
        (0, {"tasks": {"a": {"n_examples": True, "hash": "0"}}},
         "1: task 'a' is {'hash': '0', 'n_examples': True}, expected n_examples, 1 or more, and hash."),
        (0, {"tasks": {"a": {"n_examples": 2}}},
         "1: task 'a' is {'n_examples': 2}, expected n_examples, 1 or more, and hash."),
        (0, {"model": {"deep": json.loads("[" * 40 + "]" * 40)}},
         "1: nested deeper than 32 levels. Is this a file of scores?"),
        (1, {"value": True}, "2: value is True, expected a finite number."),
        (1, {"value": 10**400}, "2: value is 100000000000000000...0000000000000000000, expected a finite number."),
        (1, {"details": [1]}, "2: details is [1], expected a JSON object."),
    ],
)  # fmt: skip
def test_fields_that_mean_nothing_are_refused(tmp_path, line, fields, message):
    assert refused(tmp_path, lambda lines: lines[line].update(fields)) == f"error[E-RUN] run.jsonl:{message}"


def test_a_promise_of_a_hundred_milliard_examples_is_not_counted_one_by_one(tmp_path):
    facts = {"n_examples": 10**11, "hash": "0"}
    assert refused(tmp_path, lambda lines: (lines[0]["tasks"].update(b=facts), lines.pop())) == (
        "error[E-RUN] run.jsonl: 100000000000 examples are missing at the end. Delete it; run again."
    )


def test_a_line_of_brackets_is_refused(tmp_path):
    path = write(tmp_path / "run.jsonl", make_scores(a=[1.0]))
    with path.open("ab") as file:
        file.write(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")
    with pytest.raises(EvaluationError, match=r"run.jsonl:3: nested deeper than 32 levels\. Is this"):
        read_scores(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "run.jsonl")
    with pytest.raises(EvaluationError) as caught:
        read_scores(tmp_path / "run.jsonl")
    assert str(caught.value) == f"error[E-RUN] {tmp_path / 'run.jsonl'}: can't be read: not a regular file."


@pytest.mark.parametrize("level", [0, 1, 2, -0.5, math.nan])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(OptionError, match=r"error\[E-OPTION\] level=.*, expected above 0, below 1\.$"):
        make_scores(a=[1.0, 2.0]).interval(level)


def test_what_is_no_path_is_refused():
    for path, reason in (("x" * 5000, "can't be read: File name too long"), ("a\0b", "is no path")):
        with pytest.raises(EvaluationError, match=rf"error\[E-RUN\] .*{reason}\.$"):
            read_scores(path)


def test_a_directory_of_runs_is_known_for_one(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.jsonl", make_scores(a=[1.0]))
    (tmp_path / "c.jsonl.part").touch()
    one = tmp_path / "a.jsonl"
    assert find_runs([tmp_path, one]) == [one, tmp_path / "b.jsonl", one]
    with pytest.raises(EvaluationError, match=rf"a directory, expected the file of one run\. Name .*{one}"):
        read_scores(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"E-RUN.*empty: no runs in this directory"):
        find_runs([tmp_path / "empty"])
