import gzip
import json
import os

import pytest

from lorary.errors import TaskError
from lorary.tasks.example import Message
from lorary.tasks.gather import split_by_hash
from lorary.tasks.read import read_tasks

PAIR = {"prompt": "2+2", "completion": "4", "task": "sums", "split": "train"}


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def only_example(tmp_path, row):
    task = read_tasks(lines(tmp_path / "t.train.jsonl", row))["t"]
    (example,) = task.train
    return example


def test_prompt_and_completion(tmp_path):
    example = only_example(tmp_path, {"prompt": "2+2", "completion": "4"})
    assert (example.prompt, example.completion, example.task) == ("2+2", "4", "t")
    assert example.references == example.choices == example.messages == ()
    assert example.answers == ("4",)


def test_prompt_and_completion_as_messages(tmp_path):
    user = {"role": "user", "content": "hi"}
    for completion in ("hello", [{"role": "assistant", "content": "hello"}]):
        example = only_example(tmp_path, {"prompt": [user], "completion": completion})
        assert (example.prompt, example.completion) == ("hi", "hello")
        assert example.messages == (Message("user", "hi"),)


def test_messages_keep_all_turns_before_the_answer(tmp_path):
    turns = [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns], "prompt": "c"}
    example = only_example(tmp_path, row)
    assert (example.prompt, example.completion) == ("c", "d")
    assert example.messages == tuple(Message(*turn) for turn in turns[:-1])
    assert example.whole_prompt == "system: be brief\nuser: a\nassistant: b\nuser: c"


@pytest.mark.parametrize(
    ("definition", "given", "prompt"),
    [
        ("Add.", "2+2", "Add.\n\n2+2\n\nOutput: "),
        ("Tell a joke. ", "", "Tell a joke.\n\nOutput: "),
        ("", "What is 2+2?", "What is 2+2? "),
        (None, "What is 2+2?", "What is 2+2? "),
    ],
)
def test_super_natural_instructions(tmp_path, definition, given, prompt):
    example = only_example(tmp_path, {"definition": definition, "input": given, "output": ["4", "four"]})
    assert (example.prompt, example.completion, example.references) == (prompt, "4", ("4", "four"))


def test_flan(tmp_path):
    row = {"source": "2+2?", "target": "4", "task_name": "sums:1.0", "split": "dev"}
    tasks = read_tasks(lines(tmp_path / "flan.jsonl", row))
    assert [example.completion for example in tasks["sums:1.0"].valid] == ["4"]


def test_one_reference_is_no_list_of_references(tmp_path):
    assert only_example(tmp_path, {"prompt": "a", "completion": ["b"]}).references == ()


def test_choices(tmp_path):
    assert only_example(tmp_path, {"prompt": "a", "completion": "x", "choices": ["x", "y"]}).choices == ("x", "y")


@pytest.mark.parametrize(
    ("name", "task", "part"),
    [
        ("race.train.jsonl", "race", "train"),
        ("race.validation.jsonl.gz", "race", "valid"),
        ("race.2.test.jsonl", "race.2", "test"),
        ("poems/dev.jsonl", "poems", "valid"),
        ("poems/test-00000-of-00001.jsonl", "poems", "test"),
    ],
)
def test_task_and_part_from_the_name_of_the_file(tmp_path, name, task, part):
    tasks = read_tasks(lines(tmp_path / name, {"prompt": "a", "completion": "b"}))
    assert list(tasks) == [task]
    assert len(getattr(tasks[task], part)) == 1


def test_fields_go_before_the_name_of_the_file(tmp_path):
    tasks = read_tasks(lines(tmp_path / "race.train.jsonl", {**PAIR, "split": "Test"}))
    assert len(tasks["sums"].test) == 1


def test_directory_glob_file_and_list_read_the_same(tmp_path):
    one = lines(tmp_path / "data" / "one.train.jsonl", {"prompt": "a", "completion": "b"})
    two = lines(tmp_path / "data" / "two.train.jsonl.gz", {"prompt": "c", "completion": "d"})
    (tmp_path / "data" / "README.md").write_text("not data")
    (tmp_path / "data" / ".hidden.jsonl").write_text("not data")
    hashes = {
        tuple(task.hash for task in read_tasks(source).values())
        for source in ("data", tmp_path / "data", "data/*.jsonl*", [one, str(two)], ["data/*.gz", one])
    }
    assert len(hashes) == 1


def test_a_file_with_brackets_in_its_name_is_no_glob(tmp_path):
    assert len(read_tasks(str(lines(tmp_path / "a[1].jsonl", PAIR)))) == 1


def test_bom_blank_lines_and_windows_line_ends(tmp_path):
    text = "\ufeff" + json.dumps(PAIR) + "\r\n\r\n" + json.dumps(PAIR) + "\r\n"
    (tmp_path / "x.jsonl").write_bytes(text.encode())
    assert len(read_tasks("x.jsonl")["sums"].train) == 2  # duplicates stay


def test_only(tmp_path):
    lines(tmp_path / "x.jsonl", PAIR, {**PAIR, "task": "other"})
    assert list(read_tasks("x.jsonl", only=["sums"])) == list(read_tasks("x.jsonl", only="sums")) == ["sums"]
    assert list(read_tasks("x.jsonl", only=["sums", "sums"])) == ["sums"], "a name that comes twice is taken once"
    with pytest.raises(TaskError, match=r"unknown task 'sum'\. Did you mean 'sums'"):
        read_tasks("x.jsonl", only=["sum"])


def test_split_by_hash_is_by_prompt_alone_and_near_80_10_10(tmp_path):
    rows = [{"prompt": f"p{i % 1000}", "completion": str(i)} for i in range(2000)]
    task = read_tasks(lines(tmp_path / "x.jsonl", *rows))["x"]
    parts = [{example.prompt for example in part} for part in (task.train, task.valid, task.test)]
    assert sum(map(len, parts)) == 1000
    assert [len(part) for part in parts] == pytest.approx([800, 100, 100], abs=30)
    assert {split_by_hash(example) for example in task.test} == {"test"}
    assert task.hash == read_tasks("x.jsonl")["x"].hash


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    mixed = [
        {**PAIR, "messages": None},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(mixed), tmp_path / "x.train.parquet")
    tasks = read_tasks("x.train.parquet")
    assert list(tasks) == ["sums", "x"]
    assert tasks["x"].train[0].completion == "b"


class FakeDataset(list):
    column_names = ("prompt", "completion")
    builder_name = "poems"


class FakeDatasetDict(dict):
    column_names = None


def test_datasets_objects_need_no_import():
    row = {"prompt": "a", "completion": "b"}
    both = FakeDatasetDict(train=FakeDataset([row]), validation=FakeDataset([row, row]))
    task = read_tasks(both)["poems"]
    assert (len(task.train), len(task.valid), len(task.test)) == (1, 2, 0)
    assert len(read_tasks(both["train"])) == 1
    with pytest.raises(TaskError) as caught:
        read_tasks(FakeDatasetDict(test=FakeDataset([{"prompt": "a"}])))
    assert "poems[test]:1: the field 'completion' is missing, found prompt." in str(caught.value)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.jsonl")
    with pytest.raises(TaskError) as caught:
        read_tasks("x.jsonl")
    expected = ".jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"
    assert str(caught.value) == f"error[E-DATA] x.jsonl: not a regular file. Expected {expected}."
