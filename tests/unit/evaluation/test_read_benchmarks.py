"""Where benchmarks' data is found, which part of it is scored, and the mean over benchmarks."""

import gzip
import json
from types import SimpleNamespace

import pytest

from benchmark_rows import HUB, OURS
from lorary.errors import EvaluationError, LoraryError
from lorary.evaluation.benchmarking.mean import mean_over
from lorary.evaluation.benchmarking.read import read_benchmarks
from lorary.evaluation.benchmarks.piqa import PIQA
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import FORMAT, Scores
from lorary.tasks.rows import hub_rows


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def examples(exams, name):
    return exams[name].tasks[name].test


def refusal(*arguments):
    with pytest.raises(LoraryError) as caught:
        read_benchmarks(*arguments)
    return str(caught.value)


def test_a_directory_gives_every_benchmark_that_it_has(tmp_path):
    for name, rows in OURS.items():
        write(tmp_path / f"{name}.jsonl.gz", rows)
    (tmp_path / "README.md").write_text("notes")
    exams = read_benchmarks(tmp_path)
    assert list(exams) == sorted(OURS)
    assert {len(examples(exams, name)) for name in OURS} == {2, 3}
    titles = ["ARC-C", "ARC-E", "BBH", "BoolQ", "HSwag", "HumanEval", "MBPP", "OQA", "PIQA", "WG"]
    assert [exam.title for exam in exams.values()] == titles


def test_the_hubs_files_give_the_same(tmp_path):
    own, hub = tmp_path / "own", tmp_path / "hub"
    places = {
        "piqa": "piqa/plain_text/validation-00000-of-00001.jsonl",
        "boolq": "boolq/data/validation-00000-of-00001.jsonl",
        "winogrande": "winogrande/winogrande_xl/validation-00000-of-00001.jsonl",
        "hellaswag": "hellaswag/data/validation-00000-of-00001.jsonl",
        "arc_easy": "ai2_arc/ARC-Easy/test-00000-of-00001.jsonl",
        "arc_challenge": "ai2_arc/ARC-Challenge/test-00000-of-00001.jsonl",
        "openbookqa": "openbookqa/main/test-00000-of-00001.jsonl",
        "bbh": "bbh/sums/test-00000-of-00001.jsonl",
    }
    for name, place in places.items():
        write(own / f"{name}.jsonl", OURS[name])
        write(hub / place, HUB[name])
    write(hub / "winogrande/winogrande_xs/validation-00000-of-00001.jsonl", [{"sentence": "another configuration"}])
    write(hub / "hellaswag/data/test-00000-of-00001.jsonl", [{"label": "", "endings": []}])
    write(hub / "piqa/plain_text/train-00000-of-00001.jsonl", HUB["piqa"])
    assert read_benchmarks(hub) == read_benchmarks(own)


def test_parquet_and_datasets_objects_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list(HUB["arc_easy"])
    write(tmp_path / "arc_easy.jsonl", HUB["arc_easy"])
    expected = read_benchmarks(tmp_path, "arc_easy")
    place = tmp_path / "parquet/ai2_arc/ARC-Easy/test-00000-of-00001.parquet"
    place.parent.mkdir(parents=True)
    table.to_parquet(place)
    assert read_benchmarks(tmp_path / "parquet", "arc_easy") == expected
    assert read_benchmarks(place, "arc_easy") == expected
    assert read_benchmarks(table, "arc_easy") == expected
    parts = datasets.DatasetDict({"train": table.select([1]), "test": table})
    with_shots = read_benchmarks(parts, "arc_easy:shots=1")["arc_easy:shots=1"].tasks["arc_easy"].test
    assert [example.prompt.count("What do owls do?\nAnswer: fly\n\n") for example in with_shots] == [1, 1, 1]


def test_by_name_the_hubs_own_data_sets_are_read(monkeypatch):
    asked = []

    def load(repo, config, *, revision, split):
        asked.append((repo, config, split))
        name = {"baber/piqa": "piqa", "lukaemon/bbh": "bbh"}[repo]

        class Table(list):
            column_names = list(HUB[name][0])

        return Table(HUB[name])

    monkeypatch.setattr(hub_rows, "_datasets", lambda name: SimpleNamespace(load_dataset=load))
    exams = read_benchmarks("hf://datasets", ["piqa", "bbh:n_examples=10"])
    assert asked[0] == ("baber/piqa", None, "validation")
    assert len(asked) == 28
    assert asked[1] == ("lukaemon/bbh", "boolean_expressions", "test")
    assert len(examples(exams, "piqa")) == 3
    assert len(exams["bbh:n_examples=10"].tasks["bbh"].test) == 10


@pytest.mark.parametrize(
    ("files", "n"),
    [
        ({"piqa.valid.jsonl": 2, "piqa.train.jsonl": 3, "piqa.test.jsonl": 1}, 2),
        ({"piqa.test.jsonl": 1, "piqa.train.jsonl": 3}, 1),
        ({"piqa/train_xl.jsonl": 3, "piqa/dev.jsonl": 2}, 2),
        ({"piqa/other.jsonl": 2}, 2),
        ({"piqa/other.jsonl": 2, "piqa/valid.jsonl": 1}, 1),
        ({"piqa_old.jsonl": 3, "piqa.jsonl": 1}, 1),
    ],
)
def test_what_is_held_out_is_scored(tmp_path, files, n):
    for name, count in files.items():
        write(tmp_path / name, OURS["piqa"][:count])
    assert len(examples(read_benchmarks(tmp_path, "piqa"), "piqa")) == n


def test_rows_may_say_their_part_themselves(tmp_path):
    parts = ("train", "Validation", "test")
    write(tmp_path / "piqa.jsonl", [{**row, "split": part} for row, part in zip(OURS["piqa"], parts, strict=True)])
    assert [example.prompt for example in examples(read_benchmarks(tmp_path, PIQA()), "piqa")] == [
        "Question: open a jar.\nAnswer: "
    ]


def test_options_of_all_go_to_those_that_know_them(tmp_path):
    for name in ("piqa", "bbh"):
        write(tmp_path / f"{name}.jsonl", OURS[name])
    exams = read_benchmarks(tmp_path, "all:prompts=harness,score=acc,n_examples=1")
    assert list(exams) == ["bbh:prompts=harness,n_examples=1", "piqa:prompts=harness,score=acc"]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("piqua", "[E-NAME] unknown benchmark 'piqua'. Did you mean 'piqa'? Known: "),
        ("all:promts=paper", "[E-OPTION] all: unknown option 'promts'. Did you mean 'prompts'? Known: "),
        (["piqa", "piqa:shots=0"], "[E-NAME] benchmark 'piqa' is given twice. Give each once."),
        ([], "[E-OPTION] no benchmark was named. Name one, or 'all'."),
        ([3], '[E-OPTION] which[0] is 3, expected a list of benchmarks, as PIQA() or "piqa".'),
    ],
)
def test_benchmarks_that_are_none_are_refused(tmp_path, which, message):
    assert refusal(tmp_path, which).startswith(f"error{message}")


def test_data_that_is_not_there_is_refused(tmp_path):
    hint = "A directory of benchmarks has a file or a directory of the name of each, as piqa.jsonl."
    assert refusal(tmp_path, "piqa") == f"error[E-DATA] {tmp_path}: there are no rows of 'piqa'. {hint}"
    assert refusal(tmp_path).startswith(f"error[E-DATA] {tmp_path}: there are no rows of 'arc_challenge', ")
    file = write(tmp_path / "piqa.jsonl", OURS["piqa"])
    assert refusal(file) == (
        f"error[E-DATA] '{file}' is no directory of benchmarks, and several are asked for. "
        "Give a directory, hf://datasets, or name one benchmark."
    )
    assert len(examples(read_benchmarks(file, "piqa"), "piqa")) == 3
    assert "no such file" in refusal(tmp_path / "piqua.jsonl", "piqa")


def test_training_rows_alone_are_refused(tmp_path):
    file = write(tmp_path / "piqa.train.jsonl", OURS["piqa"])
    assert refusal(tmp_path, "piqa") == (
        f"error[E-DATA] {file}:1: piqa has rows to train on only, expected some of 'valid'. "
        "Add that part's file; a benchmark is never scored on what models are trained on."
    )


def test_one_of_several_configurations_is_not_guessed(tmp_path):
    for name in ("winogrande_m", "winogrande_s"):
        write(tmp_path / "winogrande" / name / "dev.jsonl", HUB["winogrande"])
    assert refusal(tmp_path, "winogrande") == (
        f"error[E-DATA] {tmp_path / 'winogrande'}: 'winogrande_m', 'winogrande_s' may each hold winogrande. "
        "Keep one of them, or give the files of one for winogrande alone."
    )
    assert len(read_benchmarks(tmp_path / "winogrande" / "winogrande_s" / "*.jsonl", "winogrande")) == 1


@pytest.mark.parametrize("other", ["piqa.jsonl.gz", "piqa/valid.jsonl"])
def test_two_copies_of_a_benchmark_are_refused(tmp_path, other):
    write(tmp_path / "piqa.jsonl", OURS["piqa"])
    write(tmp_path / other, OURS["piqa"])
    second = "piqa.jsonl.gz" if other.endswith("gz") else "piqa/"
    told = f"error[E-DATA] {tmp_path}: piqa.jsonl and {second} hold one benchmark twice. Keep one of them."
    assert refusal(tmp_path, "piqa") == told


# ---- the mean -----------------------------------------------------------------------------------------


def scores(task, values, *, name="m", unit="0-100"):
    header = {
        "format": FORMAT, "name": name, "metric": "choice", "options": {}, "unit": unit, "higher_is_better": True,
        "model": {}, "tasks": {task: {"n_examples": len(values), "hash": "x"}},
    }  # fmt: skip
    return Scores(header, tuple(Outcome(task, index, value) for index, value in enumerate(values)))


def test_the_mean_weighs_benchmarks_alike():
    found = mean_over([scores("a", [100.0] * 30), scores("b", [0.0, 0.0, 0.0, 100.0])])
    assert (found.n_benchmarks, found.mean) == (2, 62.5)
    assert found.low == 50.0 < found.mean < found.high <= 100.0, "only b varies, and counts for half"


def test_there_is_no_mean_of_what_differs():
    for runs in ([], [scores("a", [1.0]), scores("b", [1.0], name="n")],
                 [scores("a", [1.0]), scores("b", [1.0], unit="nats per token")]):  # fmt: skip
        with pytest.raises(EvaluationError, match=r"E-EVAL\] there is no mean over"):
            mean_over(runs)
