"""Data sets of the Hub by name. There is no Hub here: `load_dataset` is a fake, or finds the data set in a folder."""

import errno
import json
import sys
import types

import pytest

from lorary import extras
from lorary.errors import LoraryError
from lorary.tasks.read import read_tasks
from lorary.tasks.rows.files import SUFFIXES
from lorary.tasks.rows.hub_rows import HubSet, parse_name

ROW = {"prompt": "a", "completion": "b"}


class Rows(list):
    column_names = ("prompt", "completion")
    builder_name = "json"


@pytest.fixture
def asked(monkeypatch):
    """Let `load_dataset` give two splits, or the one that is asked for; note what it was asked."""
    calls = []

    def load_dataset(*arguments, **options):
        calls.append((arguments, options))
        splits = {"train_sft": Rows([ROW]), "test": Rows([ROW, ROW]), "other": Rows([ROW])}
        return Rows([ROW, ROW]) if options["split"] else splits

    fake = types.ModuleType("datasets")
    fake.__version__, fake.load_dataset = "4.0.0", load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return calls


def refusal(name):
    with pytest.raises(LoraryError) as caught:
        read_tasks(name)
    return str(caught.value)


NAMES = [
    ("hf://datasets/u/n", HubSet("u/n", None, None, None, None)),
    ("hf://datasets/u/n/", HubSet("u/n", None, None, None, None)),
    ("hf://datasets/u-1/n.x:train", HubSet("u-1/n.x", None, None, None, "train")),
    ("hf://datasets/u/n/main:train[:10%]", HubSet("u/n", None, "main", None, "train[:10%]")),
    ("hf://datasets/u/n@v1.0/main", HubSet("u/n", "v1.0", "main", None, None)),
    ("hf://datasets/u/n@refs/convert/parquet/c", HubSet("u/n", "refs/convert/parquet", "c", None, None)),
    ("hf://datasets/u/n@abc/data/a.train.jsonl", HubSet("u/n", "abc", None, "data/a.train.jsonl", None)),
    ("hf://datasets/u/n/x.csv.gz", HubSet("u/n", None, None, "x.csv.gz", None)),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names(name, expected):
    assert parse_name(name, SUFFIXES) == expected


GRAMMAR = "hf://datasets/USER/NAME[@REVISION][/CONFIG or /FILE][:SPLIT]"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, f"{name!r} isn't the name of a data set. Write {GRAMMAR}.")
          for name in ("hf://datasets/n", "hf://u/n", "hf://datasets/u/n/../x.jsonl", "hf://datasets/u/n/*.jsonl",
                       "hf://datasets/u/n:", "hf://datasets/u/n@", "hf://datasets/u/n:a/b")),
        ("hf://datasets/u/n/x.jsonl:train",
         "hf://datasets/u/n/x.jsonl:train: a file has no splits. Leave out what stands after the colon."),
        ("hf://datasets/u/n/a/b",
         "hf://datasets/u/n/a/b: 'a/b' is neither a configuration nor a file. "
         f"A file ends in one of {', '.join(SUFFIXES)}. Write {GRAMMAR}."),
    ],
)  # fmt: skip
def test_names_of_nothing(name, expected):
    assert refusal(name) == f"error[E-HUB] {expected}"


def test_all_splits_of_a_configuration(asked):
    task = read_tasks("hf://datasets/u/sums@v1/main")["sums.main"]
    assert asked == [(("u/sums", "main"), {"revision": "v1", "split": None})]
    assert (len(task.train) >= 1, len(task.test) >= 2) == (True, True), "a split train_sft is to train on"
    assert len(task.train) + len(task.valid) + len(task.test) == 4, "a split of another name goes by its prompts' hash"


def test_one_split_beside_a_file_of_ones_own(asked, tmp_path):
    (tmp_path / "mine.train.jsonl").write_text(json.dumps(ROW) + "\n")
    tasks = read_tasks(["hf://datasets/u/sums:validation", tmp_path])
    assert {name: (len(task.train), len(task.valid)) for name, task in tasks.items()} == {
        "mine": (1, 0),
        "sums": (0, 2),
    }


def test_one_file(asked):
    tasks = read_tasks("hf://datasets/u/n/data/sums.test.jsonl")
    assert asked == [
        (("u/n", None), {"revision": None, "split": "data", "data_files": {"data": "data/sums.test.jsonl"}})
    ]
    assert len(tasks["sums"].test) == 2
    assert len(read_tasks("hf://datasets/u/n/train-00000-of-00001.parquet")["n"].train) == 2


def test_rows_are_named_by_their_place(asked, monkeypatch):
    monkeypatch.setitem(ROW, "context", "Rome.")
    assert "sums[test]:1: text in fields that are not read: 'context' (2 rows)." in refusal("hf://datasets/u/sums:test")
    assert "error[E-DATA] hf://datasets/u/n/x.csv:1: text in" in refusal("hf://datasets/u/n/x.csv")


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (ValueError("BuilderConfig 'x' not found.\n Available: ['y']"), "E-HUB",
         "hf://datasets/u/n/x: BuilderConfig 'x' not found. Available: ['y'] (ValueError). Check name, configuration, "
         "split and connection, and HF_TOKEN for a private one."),
        (ConnectionError(""), "E-HUB", "hf://datasets/u/n/x: ConnectionError (ConnectionError). Check"),
        (RuntimeError("Dataset scripts are no longer supported, but found n.py"), "E-HUB", "are no longer supported"),
        (OSError(errno.ENOSPC, "No space left on device"), "E-DISK", "load hf://datasets/u/n/x"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses(asked, monkeypatch, error, code, expected):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", load_dataset)
    told = refusal("hf://datasets/u/n/x")
    assert f"error[{code}] " in told and expected in told


def test_datasets_that_could_run_code_are_refused(asked, monkeypatch):
    monkeypatch.setattr(extras, "version_of", {"datasets": "3.6.0"}.get)
    assert refusal("hf://datasets/u/n") == (
        "error[E-EXTRA] hf://datasets/u/n: reading a data set by name needs datasets>=4.7, found 3.6.0. "
        'Run: pip install "datasets>=4.7".'
    )
    assert asked == []


def test_without_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal("hf://datasets/u/n") == (
        "error[E-EXTRA] hf://datasets/u/n: reading a data set by name needs datasets>=4.7, found none. "
        'Run: pip install "datasets>=4.7".'
    )


@pytest.mark.slow
def test_with_datasets_itself(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    turns = [{"role": "user", "content": "Hi", "name": "Ann"}, {"role": "assistant", "content": "Yo"}]
    (tmp_path / "sums").mkdir()
    for part in ("train", "test"):
        rows = [{"messages": turns, "id": f"{part}-{i}"} for i in range(3)]
        (tmp_path / "sums" / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    real = datasets.load_dataset

    def here(repo, *rest, **options):
        return real(str(tmp_path / repo.partition("/")[2]), *rest, cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(datasets, "load_dataset", here)
    task = read_tasks("hf://datasets/u/sums")["sums"]
    assert (len(task.train), len(task.test), task.origin.unread) == (3, 3, {"id": 6})
    assert task.train[0].messages[0].extra == {"name": "Ann"}
    assert len(read_tasks("hf://datasets/u/sums:train[:2]")["sums"].train) == 2
    assert len(read_tasks("hf://datasets/u/sums/test.jsonl")["sums"].test) == 3
    for name, expected in (("sums/none", "BuilderConfig 'none' not found"), ("sums:none", 'Unknown split "none"')):
        assert f"error[E-HUB] hf://datasets/u/{name}: {expected}" in refusal(f"hf://datasets/u/{name}")
