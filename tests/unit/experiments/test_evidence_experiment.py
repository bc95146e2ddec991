"""The study of evidence, on a pico base and collections of three tiny tasks."""

import gzip
import json
from dataclasses import replace

import evidence as script
import evidence_runs as evidence
import evidence_tasks
import pytest
from evidence_runs import Study, run_study
from evidence_table import make_lines, summarise, to_markdown
from evidence_tasks import UNSEEN, halves, in_turns, read_study_tasks
from evidence_texts import route_on_texts

from lorary.errors import OptionError, TaskError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores
from lorary.routing.routers.compass import Compass
from lorary.tasks.example import Example
from lorary.tasks.task import Task


def rows(name, category, word, n=100):
    for split, count in (("train", n), ("validation", 2), ("test", 2)):
        for i in range(count):
            about = {"task_name": name, "category": category, "definition": "", "split": split}
            yield {**about, "input": f"{word} {i} {split}", "output": [word]}


def write(path, tasks):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for task in tasks for row in rows(*task))


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence_tasks, "MOST", 3)
    write(tmp_path / "data/sni/train_tasks.jsonl.gz", [("a", "x", "ab"), ("b", "x", "c"), ("d", "y", "longer")])
    write(tmp_path / "data/sni/heldout.jsonl.gz", [(name, "z", "un") for name in UNSEEN])
    write(tmp_path / "data/p3/train.jsonl.gz", [("p", "x", "pp")])
    write(tmp_path / "data/induction/tasks.jsonl.gz", [("i", "x", "ii")])
    passages = tmp_path / "data/zeroshot/boolq.jsonl.gz"
    passages.parent.mkdir()
    with gzip.open(passages, "wt") as file:
        file.writelines(
            json.dumps({"passage": f"A passage about {n}, and many other things."}) + "\n" for n in (1, 2, 2)
        )
    return read_study_tasks(tmp_path / "data")


def test_families_take_turns_shortest_first():
    def task(name, n):
        return Task(name, train=(Example("x" * n, "y"),))

    tasks = [task("a", 9), task("b", 3), task("c", 5), task("d", 1)]
    assert in_turns(tasks, {"a": "one", "b": "one", "c": "two", "d": "two"}) == ["d", "b", "c", "a"]
    assert halves(("d", "b", "c")) == {"choose": ("d", "c"), "report": ("b",)}


def test_held_out_tasks_are_not_trained(data):
    assert data.order == ("b", "d", "a")
    assert list(data.alike) == ["p"]
    assert sorted(data.unseen) == sorted(UNSEEN)
    assert list(data.other) == ["i"]
    assert len(data.english) == 2


@pytest.fixture
def short(monkeypatch):
    private = replace(evidence._private(), steps=2, batch_size=2, max_valid=2, lr=0.1)
    monkeypatch.setattr(evidence, "_private", lambda: private)
    compass = "compass:n_texts=2,n_tokens=4"
    routers = ("uniform", "arrow", compass, "oracle")
    changed = {
        "routers": routers, "mixes": (f"{compass}@english",), "answers": ("arrow",), "routing": (compass, "arrow"),
    }  # fmt: skip
    monkeypatch.setattr(evidence, "ROUTERS", {**evidence.ROUTERS, **changed})


@pytest.mark.slow
def test_the_whole_study(base, data, short, tmp_path):
    told = []
    arms = ("routers", "mixes", "gates", "answers", "routing")
    study = Study(sizes=(2,), seeds=(7,), others=("mbc",), arms=arms, n_score=1, n_answer=1)
    lines = make_lines(run_study(study, base, data, tmp_path / "out", told.append), data)
    assert [(line.arm, line.library, line.mix) for line in lines[3:]] == [
        ("routers", "seed7-2", "factors"), ("mixes", "seed7-2", "outputs"), ("gates", "seed7-2", "outputs"),
        ("answers", "seed7-2", "factors"),
        ("answers, exact match", "seed7-2", "factors"), *[("routing", "seed7-2", "factors")] * 2,
        *[("routers", "mbc-2", "factors")] * 4,
    ]  # fmt: skip
    arrow, compass, oracle = lines[1:4]
    assert set(lines[-5].means) == {"trained choose", "trained report"}
    assert {line.means["trained choose"] for line in lines if line.arm == "routing"} <= {0.0, 100.0}
    assert arrow.against["arrow"]["unseen report"].difference == 0
    assert compass.against["arrow"]["other report"].difference == pytest.approx(
        compass.means["other report"] - arrow.means["other report"]
    )
    assert oracle.gap["trained report"] == pytest.approx(1)
    assert set(oracle.means) == {"trained choose", "trained report"}
    assert "### routers: mbc-2, mix of factors" in to_markdown(lines)
    assert (tmp_path / "out/evidence.png").exists()
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out/runs").iterdir())
    told.clear()
    run_study(study, base, data, tmp_path / "out", told.append)
    assert not any(what.startswith("trained") for what in told)
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "out/runs").iterdir()) == before


@pytest.mark.slow
def test_experts_start_from_the_same_a_or_not(base, data, short, tmp_path):
    run = evidence._Run(Study(), base, data, tmp_path, lambda what: None)
    seeds = {
        pool: [run._pool(pool, ["a", "b"])[name].provenance.seed for name in "ab"] for pool in ("seed7", "unshared")
    }
    assert seeds == {"seed7": [7, 7], "unshared": [1000, 1001]}


def test_prompts_to_calibrate_on_are_of_tasks_outside_the_library(base, data, tmp_path):
    prompts = evidence._Run(Study(), base, data, tmp_path, lambda what: None)._prompts(2)
    assert len(prompts) == 10
    assert {prompt.split()[0] for prompt in prompts} == {"ab"}


def test_answers_are_judged_to_the_letter_too(base, data, tmp_path):
    header = {
        "metric": "rouge_l",
        "options": {},
        "name": "arrow",
        "unit": "0-100",
        "higher_is_better": True,
        "tasks": {"b": {}, "d": {}},
    }
    said = [Outcome("b", 0, 70.0, {"prediction": "C!", "references": ["c"]})]
    said += [Outcome("d", 0, 99.0, {"prediction": "long", "references": ["longer"]})]
    cell = evidence.Cell("answers", "seed7", 2, "arrow", "factors", "rouge_l")
    found = make_lines([evidence.Result(cell, {"trained": Scores(header, tuple(said))})], data)
    assert [(line.arm, line.means) for line in found] == [
        ("answers", {"trained choose": 70.0, "trained report": 99.0}),
        ("answers, exact match", {"trained choose": 100.0, "trained report": 0.0}),
    ]


def test_seeds_are_averaged_example_by_example(data):
    header = {"metric": "perplexity", "options": {}, "name": "x", "unit": "", "higher_is_better": False}
    header |= {"tasks": {"b": {"n_examples": 1, "hash": ""}, "d": {"n_examples": 2, "hash": ""}}}
    values = {  # of task d, which reports; of two seeds
        "uniform": ([4.0, 6.0], [4.0, 4.0]),
        "arrow": ([3.0, 4.0], [5.0, 2.0]), "oracle": ([1.0, 1.0], [1.0, 3.0]),
        "compass": ([2.0, 1.0], [4.0, 1.0]),
    }  # fmt: skip
    results = []
    for router, seeds in values.items():
        for seed, found in zip((7, 8), seeds, strict=True):
            outcomes = (Outcome("b", 0, 9.0, {}), *(Outcome("d", i, value, {}) for i, value in enumerate(found)))
            cell = evidence.Cell("routers", f"seed{seed}", 2, router, "factors", "perplexity")
            results.append(evidence.Result(cell, {"trained": Scores(header, outcomes)}))
    lines = make_lines(results, data)
    (compass,) = [line for line in lines if line.library == "seeds7+8-2" and line.router == "compass"]
    assert compass.means == {"trained choose": 9.0, "trained report": 2.0}
    assert compass.gap["trained report"] == pytest.approx((4.5 - 2.0) / (4.5 - 1.5))
    assert compass.against["arrow"]["trained report"].difference == pytest.approx(2.0 - 3.5)
    assert compass.against["oracle"]["trained report"].difference == pytest.approx(2.0 - 1.5)
    libraries, rivals = summarise(lines).split("\n\n###")
    assert "| seeds7+8-2 | `oracle` | +0.500 [" in rivals
    assert libraries.splitlines()[4:] == [
        "| seed7-2 | 38% | 88% | – | – | – |",
        "| seed8-2 | 25% | 75% | – | – | – |",
        "| seeds7+8-2 | 33% | 83% | – | – | – |",
    ]


def test_a_library_needs_as_many_tasks(base, data, tmp_path):
    with pytest.raises(OptionError) as caught:
        evidence._Run(Study(), base, data, tmp_path, lambda what: None)._library("seed7", 4)
    assert str(caught.value) == "error[E-OPTION] study evidence: a library of 4, but 3 tasks to train on."


def test_too_few_texts_are_refused(base, data, short, tmp_path):
    library = evidence._Run(Study(), base, data, tmp_path, lambda what: None)._pool("seed7", ["a"])
    with pytest.raises(TaskError) as caught:
        route_on_texts(base, library, Compass(), data.english, "factors")
    assert str(caught.value) == "error[E-DATA] 0 of 2 texts have 64 tokens, expected 48."


def test_unknown_arms_are_refused():
    with pytest.raises(OptionError) as caught:
        Study(arms=("router",))
    assert str(caught.value).startswith("error[E-OPTION] study evidence: unknown 'router'. Did you mean 'routers'?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "there are no seeds. Give at least one, as 42."),
        ({"seeds": (10**23,)}, f"seed={10**23}, expected at most 4294967295."),
        ({"sizes": ()}, "there are no sizes. Give at least one, as 16."),
        ({"sizes": (0,)}, "size=0, expected 1 or more."),
    ],
)
def test_what_no_library_can_be_made_of_is_refused_at_once(options, message):
    with pytest.raises(OptionError) as caught:
        Study(**options)
    assert (
        str(caught.value).removeprefix("error[E-OPTION] study evidence: ").removeprefix("study evidence: ") == message
    )


@pytest.mark.slow
def test_the_script_prints_its_tables(base, data, short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "load_base", lambda name, **how: base)
    asked = ["--data", tmp_path / "data", "--into", tmp_path / "out", "--sizes", "2", "--n-score", "1"]
    script.main([str(part) for part in asked])
    told = capsys.readouterr()
    assert "### routers: seed42-2, mix of factors" in told.out
    assert "trained b" in told.err


def test_the_script_refuses_arms_before_it_reads_anything(tmp_path):
    with pytest.raises(OptionError, match="unknown 'router'"):
        script.main(["--data", str(tmp_path / "none"), "--arms", "router"])
