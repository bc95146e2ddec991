"""`lorary compare`: two files of scores, told apart or not."""

import json

import pytest

from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import to_line


def write(path, values, metric="perplexity"):
    header = {
        "format": 1, "metric": metric, "options": {}, "name": path.stem, "unit": "nats per token",
        "higher_is_better": False, "model": {},
        "tasks": {task: {"n_examples": len(row), "hash": "h"} for task, row in values.items()},
    }  # fmt: skip
    outcomes = [Outcome(task, i, value, {}) for task, row in values.items() for i, value in enumerate(row)]
    path.write_bytes(b"".join(map(to_line, [header, *outcomes])))
    return path


@pytest.fixture
def files(tmp_path):
    """Runs of which the second is better, the third as good as the first, and the fourth too short to tell."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    mixed = [v + (0.1 if i % 2 else -0.1) for i, v in enumerate(values)]
    return {
        "slow": write(tmp_path / "slow.jsonl", {"a": values, "b": values}),
        "good": write(tmp_path / "good.jsonl", {"a": [v - 0.5 for v in values], "b": [v - 0.4 for v in values]}),
        "same": write(tmp_path / "same.jsonl", {"a": mixed, "b": mixed}),
    }


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("good", "slow", "good is better than slow."),
        ("slow", "good", "good is better than slow."),
        ("slow", "same", "slow and same can't be told apart here: the interval holds zero."),
    ],
)
def test_it_says_which_is_better_or_that_nobody_can_tell(one, other, said, files, run):
    done = run("compare", files[one], files[other])
    assert (done.code, done.out.splitlines()[-1]) == (0, said)


def test_it_shows_every_task(files, run):
    out = run("compare", files["good"], files["slow"]).out
    rows = [line.split() for line in out.splitlines()[:3]]
    assert rows == [
        ["task", "good", "slow", "difference"], ["a", "3.000", "3.500", "-0.500"], ["b", "3.100", "3.500", "-0.400"],
    ]  # fmt: skip


def test_as_json(files, run):
    found = json.loads(run("compare", files["good"], files["slow"], "--json").out)
    assert (found["difference"], found["can_be_told_apart"]) == (pytest.approx(-0.45), True)
    assert found["tasks"]["a"] == {"a": 3.0, "b": 3.5}


def test_too_few_examples_are_said_to_be_too_few(tmp_path, run):
    one, two = (write(tmp_path / f"{name}.jsonl", {"a": [value] * 3}) for name, value in (("x", 1.0), ("y", 9.0)))
    done = run("compare", one, two)
    assert (done.code, done.out.splitlines()[-1]) == (0, "x and y can't be told apart here: too few examples.")
    assert json.loads(run("compare", one, two, "--json").out)["low"] is None


def test_runs_of_other_metrics_are_refused(files, tmp_path, run):
    other = write(tmp_path / "other.jsonl", {"a": [1.0]}, metric="rouge_l")
    done = run("compare", files["slow"], other)
    assert done.code == 1
    assert "error[E-PAIR]" in done.err
