"""Every message about bad data, literally."""

import gzip
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorary.errors import LoraryError, TaskError
from lorary.tasks.example import Example, Message
from lorary.tasks.read import read_tasks
from lorary.tasks.rows import json_rows
from lorary.tasks.task import Task

GOOD = '{"prompt": "a", "completion": "b"}\n'
USER = {"role": "user", "content": "a"}
ANSWER = {"role": "assistant", "content": "b"}


def message(source):
    with pytest.raises(LoraryError) as caught:
        read_tasks(source)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


SUFFIXES = ".jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"
KNOWN = (
    "{messages}, {conversations}, {conversation}, {prompt, completion}, {instruction, output}, "
    "{instruction, response}, {definition, input, output}, {definition, inputs, targets}, {input, output}, "
    "{question, answer}, {question, response}, {query, response}, {inputs_pretokenized, targets_pretokenized}, "
    "{inputs, targets}, {input, target}, {source, target}"
)
ROWS = [
    ({}, f"expected the fields of a known shape, found none. Rename the fields. Known: {KNOWN}."),
    ({"text": "a"}, f"expected the fields of a known shape, found text. Rename the fields. Known: {KNOWN}."),
    ({"prompt": "a"}, "the field 'completion' is missing, found prompt. Add it to the row."),
    ({"completion": "a"}, "the field 'prompt' is missing, found completion. Add it to the row."),
    ({"input": "a", "output": None, "definition": ""},
     "'output' is empty. Fill it, or leave the row out."),
    ({"output": "a"}, "the field 'instruction' is missing, found output. Add it to the row."),
    ({"source": "a"}, "the field 'target' is missing, found source. Add it to the row."),
    ({"prompt": 1, "completion": "b"}, "'prompt' must be a text or a list of messages, found int 1. Fix the row."),
    ({"prompt": "a", "completion": 4}, "'completion' must be a text or a list of texts, found int 4. Fix the row."),
    ({"prompt": "a", "completion": []}, "'completion' must be a text or a list of texts, found list []. Fix the row."),
    ({"prompt": "a", "completion": ["b", 1]}, "'completion' must be a text, found int 1. Fix the row."),
    ({"prompt": "a", "completion": "  "}, "'completion' is empty. Fill it, or leave the row out."),
    ({"prompt": "", "completion": "b"}, "'prompt' is empty. Fill it, or leave the row out."),
    ({"definition": "", "input": "", "output": "b"}, "'input' is empty. Fill it, or leave the row out."),
    ({"prompt": "\ud800", "completion": "b"}, "'prompt' holds half a character (\\ud800). Write the text as UTF-8."),
    ({"prompt": "a", "completion": "b", "task": 3}, "'task' must be a text, found int 3. Fix the row."),
    ({"prompt": "a", "completion": "b", "split": "tst"},
     "unknown split 'tst'. Did you mean 'test'? Known: train, valid, validation, val, dev, test."),
    ({"prompt": "a", "completion": "b", "choices": ["b"]},
     "'choices' must be a list of at least two texts, found list ['b']. Fix the row."),
    ({"prompt": "a", "completion": "b", "choices": ["x", "y"]},
     "the completion 'b' isn't one of its choices. Write it as in 'choices'."),
    ({"messages": []}, "'messages' must be a list of messages, found list []. Fix the row."),
    ({"messages": [{"from": "human"}]},
     "message 1 of 'messages' isn't {role, content} or {from, value}. Rename its fields."),
    ({"messages": [USER, {"role": "asistant", "content": "b"}]},
     "message 2 of 'messages' has the unknown role 'asistant'. "
     "Did you mean 'assistant'? Known: assistant, developer, function, system, tool, user."),
    ({"messages": [{"role": "user", "content": None}, ANSWER]},
     "'content' must be a text, found NoneType None. Fix the row."),
    ({"messages": [USER]}, "the last message is of 'user', expected 'assistant'. End with the answer."),
    ({"messages": [USER, {"role": "assistant", "content": ""}]},
     "the last message is empty. Every row needs an answer."),
    ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, ANSWER]},
     "message 1 of 'messages' holds a part of type 'image'; only text is read. Leave it out."),
    ({"conversations": [{"from": "humn", "value": "a"}, {"from": "gpt", "value": "b"}]},
     "message 1 of 'conversations' has the unknown role 'humn'. Did you mean 'human'? Known: assistant, bot, chatgpt, "
     "developer, function, function_call, gpt, human, model, observation, system, tool, user."),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "rain()"}]},
     "message 2 of 'conversations' must be JSON, found 'rain()'. Fix the row."),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "3"}]},
     "message 2 of 'conversations' isn't a call {name, arguments}, found '3'. Fix the row."),
    ({"messages": [USER, ANSWER], "tools": "none"}, "'tools' must be JSON, found 'none'. Fix the row."),
    ({"messages": [USER, ANSWER], "tools": '{"a": 1}'},
     "'tools' must be a list of tools, or its JSON, found dict {'a': 1}. "
     "Fix the row."),
    ({"messages": [USER, ANSWER], "chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
     "'chat_template_kwargs' can't hold 'chat_template'. Leave it out."),
    ({"messages": [USER, {**ANSWER, "tool_calls": [float("nan")]}]},
     "'messages[2]' holds NaN or an infinite number, which JSON has not. Fix the row."),
    ({"messages": [USER, {**ANSWER, "name": "\ud800"}]}, "'messages[2]' holds half a character. Fix the row."),
    ({"system": "Be brief.", "messages": [{"role": "system", "content": "Be long."}, USER, ANSWER]},
     "there is a system turn both among the turns and beside them. Keep one."),
    ({"instruction": "a", "output": "b", "history": [["c"]]},
     "'history' must be a list of [question, answer], found list ['c']. Fix the row."),
    ({"question": "a", "answer": "b", "system": "c", "system_prompt": "d"},
     "'system' and 'system_prompt' are both filled. Keep one."),
    ({"messages": [ANSWER]}, "no message of 'user' before the answer. Every row needs a question."),
    ({"prompt": [USER], "completion": [ANSWER, ANSWER]},
     "'completion' has 2 messages, expected one. Move the others to 'prompt'."),
    ({"prompt": "a", "completion": {"a": "x" * 99}},
     "'completion' must be a text or a list of texts, found dict "
     f"{{'a': '{'x' * 32}…. Fix the row."),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), ROWS)
def test_bad_rows(tmp_path, row, expected):
    (tmp_path / "x.jsonl").write_text(GOOD + json.dumps(row) + "\n")
    assert message("x.jsonl") == f"error[E-DATA] x.jsonl:2: {expected}"


BYTES = [
    (b"", "x.jsonl: the file holds no rows. Fill it, or leave it out."),
    (b" \n\n", "x.jsonl: the file holds no rows. Fill it, or leave it out."),
    (b'{"prompt": "a"', "x.jsonl:1: not JSON: Expecting ',' delimiter at column 15. Write one JSON object a line."),
    (GOOD.encode() + b"oops\n", "x.jsonl:2: not JSON: Expecting value at column 1. Write one JSON object a line."),
    (b'[{"prompt": "a"}]', "x.jsonl:1: expected a JSON object, found list. Write one JSON object a line."),
    (b'{"prompt": "a", "prompt": "b"}', "x.jsonl:1: not a row: key 'prompt' comes twice."),
    (b"[" * 200_000, "x.jsonl:1: not a row: nested too deeply. Write one flat object a line."),
    (b'{"prompt": "caf\xe9"}', "x.jsonl:1: not UTF-8 (byte 16 of the line is 0xe9). Save the file as UTF-8."),
    (GOOD.encode("utf-16"), "x.jsonl:1: not UTF-8 (byte 1 of the line is 0xff). Save the file as UTF-8."),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), BYTES, ids=lambda value: repr(value)[:30])
def test_bad_files(tmp_path, data, expected):
    (tmp_path / "x.jsonl").write_bytes(data)
    assert message("x.jsonl") == f"error[E-DATA] {expected}"


def test_a_line_that_is_too_long_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_LINE_BYTES", 1000)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() + b" " * 5000))
    assert message("x.jsonl.gz") == (
        "error[E-DATA] x.jsonl.gz:2: the line is longer than 1,000 bytes. Write one JSON object a line."
    )


def test_damaged_gzip(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-9])
    assert message("x.jsonl.gz").startswith("error[E-DATA] x.jsonl.gz: damaged gzip file (Compressed file ended")
    path.write_text(GOOD)
    assert message("x.jsonl.gz").startswith("error[E-DATA] x.jsonl.gz: damaged gzip file (Not a gzipped file")
    assert message("x.jsonl.gz").endswith(". Copy or compress it again.")


def test_damaged_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_text(GOOD)
    assert message("x.parquet").startswith("error[E-DATA] x.parquet: damaged Parquet file (")


def test_a_parquet_column_that_comes_twice_is_refused(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = [pyarrow.array([text]) for text in "abc"]
    table = pyarrow.Table.from_arrays(columns, names=["prompt", "completion", "completion"])
    parquet.write_table(table, tmp_path / "x.parquet")
    assert message("x.parquet") == ("error[E-DATA] x.parquet: column 'completion' comes twice. Rename one of them.")


def test_a_parquet_value_that_python_has_not_names_its_column(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    strange = {
        "date": pyarrow.array([2**30], pyarrow.date32()),
        "time": pyarrow.array([0], pyarrow.timestamp("s", tz="Mars/X")),
    }
    for name, column in strange.items():
        parquet.write_table(pyarrow.table({"prompt": ["a"], name: column}), tmp_path / "x.parquet")
        found = message("x.parquet")
        assert found.startswith(f"error[E-DATA] x.parquet: column {name!r} holds values that Python can't represent: ")
        assert found.endswith(". Convert it to text, or leave the column out.")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"")
    assert message("x.parquet") == (
        'error[E-EXTRA] x.parquet: reading Parquet needs pyarrow>=21, found none. Run: pip install "pyarrow>=21".'
    )


def test_bad_sources(tmp_path):
    expected = f"Expected {SUFFIXES}."
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("a,b")
    assert message("empty") == f"error[E-DATA] empty: no task files in this directory. {expected}"
    assert message("x.txt") == f"error[E-DATA] x.txt: unknown format. {expected}"
    assert message("*.txt") == f"error[E-DATA] x.txt: unknown format. {expected}"
    assert message("none.jsonl") == "error[E-DATA] none.jsonl: no such file or directory. Check the path."
    assert message("none/*.jsonl") == "error[E-DATA] none/*.jsonl: no files match. Check the pattern."
    assert message("x" * 5000) == (f"error[E-DATA] '{'x' * 38}…: can't be read (File name too long). Check the path.")
    assert message([]) == "error[E-DATA] the list of files is empty. Name at least one file."
    assert message(3) == (
        "error[E-DATA] can't read tasks from int. "
        "Give a path, a glob, hf://datasets/USER/NAME, a list of these, or a datasets object."
    )


def test_a_pipe_among_the_files_is_refused_at_once(tmp_path):
    (tmp_path / "tasks").mkdir()
    os.mkfifo(tmp_path / "tasks" / "x.jsonl")
    expected = f"error[E-DATA] tasks/x.jsonl: not a regular file. Expected {SUFFIXES}."
    assert message("tasks") == message("tasks/*.jsonl") == expected


def test_a_file_name_that_is_not_utf_8_is_no_name_of_a_task(tmp_path):
    name = os.fsdecode(b"caf\xe9.jsonl")
    try:
        (tmp_path / name).write_text(GOOD)
    except OSError:
        pytest.skip("needs a file system that takes any bytes")
    assert message(name) == (
        f"error[E-DATA] {name}:1: the name of the file holds half a character (\\udce9). Write the text as UTF-8."
    )


def test_rows_of_a_data_set_are_mappings():
    class Odd:
        column_names = ("a",)

        def __iter__(self):
            return iter([["a", "b"]])

    assert message(Odd()) == (
        "error[E-DATA] dataset:1: expected a mapping, found list ['a', 'b']. Give rows with named fields."
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Example("a\udcff", "b"),
         "example: 'prompt' holds half a character (\\udcff). Write the text as UTF-8."),
        (lambda: Example("a", "b", choices=("b", "\ud800")),
         "example: 'choices' holds half a character (\\ud800). Write the text as UTF-8."),
        (lambda: Example("a", None), "example: 'completion' must be a text, found NoneType None."),
        (lambda: Message("user", "\ud800"),
         "message: 'content' holds half a character (\\ud800). Write the text as UTF-8."),
        (lambda: Task("\ud800"), "task: 'name' holds half a character (\\ud800). Write the text as UTF-8."),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_where_it_comes_in(make, expected):
    with pytest.raises(TaskError) as caught:
        make()
    assert str(caught.value) == f"error[E-DATA] {expected}"


NAMES = (
    "prompt completion messages role content definition input output source target task task_name split choices "
    "instruction history system conversations from value tools tool_calls chat_template_kwargs question answer"
)
KEYS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
CELLS = st.lists(KEYS | st.text(max_size=5), max_size=4).map(lambda cells: ",".join(cells).encode())
ROW = st.dictionaries(KEYS, VALUES, max_size=6).map(lambda row: json.dumps(row).encode())


GARBAGE = st.lists(ROW | CELLS | st.binary(max_size=30), max_size=3).map(b"\n".join) | st.lists(ROW, max_size=3).map(
    lambda rows: b"[" + b",".join(rows) + b"]"
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from((".jsonl", ".json", ".csv", ".tsv")), GARBAGE)
def test_garbage_gives_a_task_error_and_nothing_else(tmp_path, suffix, data):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    try:
        tasks = read_tasks(path)
    except TaskError as caught:
        tasks, error = {}, caught
    else:
        error = None
    assert error is None or (error.code == "E-DATA" and str(path) in error.message)
    assert all(len(task.hash) == 64 for task in tasks.values())
