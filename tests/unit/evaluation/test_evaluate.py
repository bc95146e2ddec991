import json
import os
from pathlib import Path

import pytest

from lorary.disk.growing import part_of
from lorary.errors import EvaluationError, LibraryError, LoraryError, OptionError
from lorary.evaluation.contract import LogLikelihood
from lorary.evaluation.evaluate import check_into, evaluate
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.scores import read_scores
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks


class Counting:
    """A fake model whose likelihood depends on the prompt; it dies after `lives` examples."""

    def __init__(self, *, lives=10**9, router="arrow"):
        self.lives, self.n_asked = lives, 0
        self.identity = {"base": "b0", "router": router, "sites": ("q", "v")}

    def log_likelihood(self, examples):
        self.n_asked += len(examples)
        if self.n_asked > self.lives:
            raise KeyboardInterrupt
        return [LogLikelihood(-1.0 - len(example.prompt) / 10, 1) for example in examples]


def make_tasks(**sizes):
    return Tasks(Task(name, test=tuple(Example("x" * i, "y", name) for i in range(n))) for name, n in sizes.items())


TASKS = make_tasks(alpha=40, beta=3, gamma=70)


def test_a_run_writes_a_header_and_one_line_per_example(tmp_path):
    into = tmp_path / "runs" / "arrow.jsonl"
    scores = evaluate(Perplexity(), Counting(), TASKS, into=into)
    header, *lines = [json.loads(line) for line in into.read_text().splitlines()]
    assert header["name"] == "arrow"
    assert header["metric"] == "perplexity"
    assert header["model"] == {"base": "b0", "router": "arrow", "sites": ["q", "v"]}
    assert header["tasks"]["beta"]["n_examples"] == 3
    assert lines[41] == {"task": "beta", "index": 1, "value": 1.1, "details": {"nats": -1.1, "n_tokens": 1}}
    assert len(lines) == 113
    assert read_scores(into) == scores
    assert [path.name for path in into.parent.iterdir()] == ["arrow.jsonl"]


def test_without_a_file_it_gives_the_same_scores(tmp_path):
    filed = evaluate(Perplexity(), Counting(), TASKS, into=tmp_path / "a.jsonl", name="x")
    assert evaluate(Perplexity(), Counting(), TASKS, name="x") == filed


@pytest.mark.parametrize("lives", [0, 31, 63, 64, 65, 100, 112])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, lives):
    into = tmp_path / "run.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Perplexity(), dying := Counting(lives=lives), TASKS, into=into)
    assert not into.exists()
    resumed = evaluate(Perplexity(), model := Counting(), TASKS, into=into)
    assert resumed == evaluate(Perplexity(), Counting(), TASKS, name="run")
    assert read_scores(into) == resumed
    assert model.n_asked + dying.n_asked - 113 in range(65)  # only the batch that died is asked again


@pytest.mark.parametrize("cut", [1, 10, 600, 900, 2500])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    into, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    whole = evaluate(Perplexity(), Counting(), TASKS, into=into)
    part.write_bytes(into.read_bytes()[:cut])
    finished = into.read_bytes()
    into.unlink()
    assert evaluate(Perplexity(), Counting(), TASKS, into=into) == whole
    assert into.read_bytes() == finished


def test_a_finished_run_does_not_ask_the_model(tmp_path):
    into = tmp_path / "run.jsonl"
    first = evaluate(Perplexity(), Counting(), TASKS, into=into)
    assert evaluate(Perplexity(), Counting(lives=-1), TASKS, into=into) == first


def test_another_run_in_the_file_is_refused(tmp_path):
    into = tmp_path / "run.jsonl"
    evaluate(Perplexity(), Counting(), TASKS, into=into, limit=4)
    with pytest.raises(EvaluationError) as caught:
        evaluate(Perplexity(), Counting(router="uniform"), TASKS, into=into, limit=4)
    assert str(caught.value) == (
        f'error[E-RUN] {into}: holds another run: model.router was "arrow", now "uniform". '
        "Write to another file, or delete this one to start again."
    )
    with pytest.raises(EvaluationError, match=r"metric was .perplexity., now .exact_match.; options.* \(and 4 more\)"):
        evaluate(ExactMatch(), Counting(), TASKS, into=into, limit=4)
    with pytest.raises(EvaluationError, match=r"tasks.beta.hash was absent, now"):
        evaluate(Perplexity(), Counting(), make_tasks(alpha=4, beta=3), into=_copy_of(into, ["alpha"]))


def _copy_of(into, names):
    other = into.with_name("other.jsonl")
    evaluate(Perplexity(), Counting(), TASKS.only(names), into=other, limit=4)
    return other


def test_an_unfinished_run_of_another_model_is_refused(tmp_path):
    into = tmp_path / "run.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Perplexity(), Counting(lives=40), TASKS, into=into)
    with pytest.raises(EvaluationError, match=r"run.jsonl.part: holds another run: model.router was"):
        evaluate(Perplexity(), Counting(router="uniform"), TASKS, into=into)


def test_two_writers_are_noticed(tmp_path):
    into = tmp_path / "run.jsonl"

    class Rude(Counting):
        def log_likelihood(self, examples):
            with (tmp_path / "run.jsonl.part").open("a") as file:
                file.write("mine\n")
            return super().log_likelihood(examples)

    with pytest.raises(EvaluationError, match=r"run.jsonl.part: another process writes to it too\. Let one run finish"):
        evaluate(Perplexity(), Rude(), TASKS, into=into)


def test_progress_counts_examples(tmp_path):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        evaluate(Perplexity(), Counting(lives=70), TASKS, into=tmp_path / "r.jsonl")
    evaluate(Perplexity(), Counting(), TASKS, into=tmp_path / "r.jsonl", progress=lambda *pair: seen.append(pair))
    assert seen == [(64, 113), (113, 113)]


def test_limit_keeps_the_first_examples():
    scores = evaluate(Perplexity(), Counting(), TASKS, limit=2)
    assert [(o.task, o.index) for o in scores.outcomes] == [(t, i) for t in ("alpha", "beta", "gamma") for i in (0, 1)]
    assert evaluate(Perplexity(), Counting(), TASKS, limit=1000) == evaluate(Perplexity(), Counting(), TASKS)


@pytest.mark.parametrize(
    ("tasks", "limit", "message"),
    [
        (Tasks([]), None, "error[E-EVAL] there are no tasks to evaluate."),
        (make_tasks(alpha=1, void=0), None, "error[E-EVAL] task 'void' has no test examples."),
        (TASKS, 0, "error[E-OPTION] limit=0, expected 1 or more."),
        (TASKS, -1, "error[E-OPTION] limit=-1, expected 1 or more."),
        (TASKS, "3", "error[E-OPTION] limit='3', expected a whole number."),
    ],
)
def test_nothing_to_evaluate_is_an_error_before_the_model_is_asked(tasks, limit, message):
    with pytest.raises(LoraryError) as caught:
        evaluate(Perplexity(), Counting(lives=-1), tasks, limit=limit)
    assert str(caught.value) == message


def test_outcomes_bear_the_name_of_their_task():
    tasks = Tasks([Task("named", test=(Example("?", "y"),))])
    assert evaluate(Perplexity(), Counting(), tasks).outcomes[0].task == "named"


def test_a_metric_may_be_a_text():
    assert evaluate("perplexity", Counting(), TASKS) == evaluate(Perplexity(), Counting(), TASKS)


@pytest.mark.parametrize(
    ("metric", "tasks", "message"),
    [
        ("rouge", TASKS, "unknown metric 'rouge'. Did you mean 'rouge_l'?"),
        (Perplexity, TASKS, "evaluator is the class Perplexity, expected a metric, as RougeL"),
        (Perplexity(), "heldout/", "tasks is 'heldout/', expected tasks. read_tasks"),
    ],
)
def test_wrong_arguments_are_said_to_be_so(metric, tasks, message):
    with pytest.raises(OptionError, match=message):
        evaluate(metric, Counting(), tasks)


def test_a_full_disk_names_the_file_and_leaves_none(tmp_path, full_disk):
    with full_disk(), pytest.raises(LibraryError) as caught:
        evaluate(Perplexity(), Counting(), TASKS, into=tmp_path / "run.jsonl")
    assert str(caught.value).startswith(f"error[E-DISK] '{tmp_path / 'run.jsonl'}': the disk is full (")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_costs_nothing_that_was_scored(tmp_path, full_disk):
    into, whole = tmp_path / "run.jsonl", tmp_path / "whole.jsonl"
    expected = evaluate(Perplexity(), Counting(), TASKS, into=whole, name="run")
    room = whole.read_bytes().find(b"gamma") + 2000  # within the second batch
    with full_disk(room), pytest.raises(LibraryError, match="E-DISK"):
        evaluate(Perplexity(), Counting(), TASKS, into=into)
    model = Counting()
    assert evaluate(Perplexity(), model, TASKS, into=into).outcomes == expected.outcomes
    assert model.n_asked < len(expected.outcomes)
    assert into.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.part"])
def test_a_pipe_in_the_place_of_the_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(EvaluationError) as caught:
        evaluate(Perplexity(), Counting(lives=-1), TASKS, into=tmp_path / "run.jsonl")
    assert str(caught.value) == f"error[E-RUN] {tmp_path / name}: can't be read: not a regular file."


def test_where_no_run_can_go_is_known_before_there_is_a_model(tmp_path):
    (tmp_path / "mine.txt").write_text("my notes\n")
    (tmp_path / "other.jsonl.part").write_text("my notes\n")
    for name in ("", "mine.txt", "other.jsonl"):
        with pytest.raises(EvaluationError, match="E-RUN"):
            check_into(tmp_path / name)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Perplexity(), Counting(lives=100), TASKS, into=tmp_path / "begun.jsonl")
    evaluate(Perplexity(), Counting(), TASKS, into=tmp_path / "done.jsonl")
    for name in ("new.jsonl", "begun.jsonl", "done.jsonl"):
        check_into(tmp_path / name)


@pytest.mark.parametrize("at", ["before", "in"])
def test_a_file_that_another_run_finishes_meanwhile_is_told(tmp_path, monkeypatch, at):
    into = tmp_path / "run.jsonl"
    part, stat = part_of(into), Path.stat

    class Finishing(Counting):
        def log_likelihood(self, examples):
            if at == "before" and self.n_asked:
                part.rename(into)
            elif self.n_asked:
                monkeypatch.setattr(Path, "stat", finished)
            return super().log_likelihood(examples)

    def finished(path, **how):
        found = stat(path, **how)
        if path == part:
            monkeypatch.setattr(Path, "stat", stat)
            part.rename(into)
        return found

    with pytest.raises(EvaluationError, match=r"E-RUN.*another process writes to it too"):
        evaluate(Perplexity(), Finishing(), TASKS, into=into)
    assert not part.exists()
