"""Rows in JSON and in tables of text, as people have them."""

import gzip
import json

import pytest

from lorary.errors import TaskError
from lorary.tasks.read import read_tasks
from lorary.tasks.rows import json_rows

ROWS = [{"prompt": "2+2", "completion": "4"}, {"prompt": "3+3", "completion": "6"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(name, content):
    data = content if isinstance(content, bytes) else content.encode()
    with open(name, "wb") as file:
        file.write(gzip.compress(data) if name.endswith(".gz") else data)
    return name


def pairs(name):
    (task,) = read_tasks(name).values()
    return [(example.prompt, example.completion) for example in task.train]


def refusal(name, content):
    with pytest.raises(TaskError) as caught:
        read_tasks(written(name, content))
    return str(caught.value).removeprefix("error[E-DATA] ")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS),
        json.dumps({"version": "1", "canary": "x", "data": ROWS}, indent=1),
        json.dumps({"examples": ROWS, "tags": ["a"], "none": []}),
        json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
        json.dumps({key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}),
        LINES,
        "\ufeff\n\n" + LINES,
    ],
)
@pytest.mark.parametrize("name", ["t.train.json", "t.train.json.gz"])
def test_json_is_a_list_or_holds_one_or_is_lines(name, content):
    assert pairs(written(name, content)) == [("2+2", "4"), ("3+3", "6")]


def test_one_row_as_json():
    assert pairs(written("t.train.json", json.dumps(ROWS[0], indent=2))) == [("2+2", "4")]
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    assert pairs(written("t.train.json", json.dumps({"messages": turns}))) == [("Hi", "Yo")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "x.json: the file holds no rows. Fill it, or leave it out."),
        ("[]", "x.json: the file holds no rows. Fill it, or leave it out."),
        ("3", "x.json: expected a list of rows, found int. Write a list of objects."),
        ('[{"prompt": "a", "completion": "b"}, 3]',
         "x.json[2]: expected a JSON object, found int. Write a list of objects, or JSON lines."),
        ('[\n{"prompt": "a"},\noops]',
         "x.json: not JSON: Expecting value at line 3, column 1. Write a list of objects, or JSON lines."),
        ('[{"prompt": "a", "completion": "b"}, {"prompt": "a"}]',
         "x.json[2]: the field 'completion' is missing, found prompt. Add it to the row."),
        ('{"a": 1}', "x.json: expected an object that holds one list of rows, found none. Write the list alone."),
        ('{"a": [{}], "b": [{}]}',
         "x.json: expected an object that holds one list of rows, found 2 of them ('a', 'b'). Write the list alone."),
        (b'["caf\xe9"]', "x.json: not UTF-8 (byte 6 of the file is 0xe9). Save the file as UTF-8."),
        ("[" * 100_000, "x.json: not a row: nested too deeply. Write one flat object a line."),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n',
         "x.json:2: the field 'completion' is missing, found prompt. Add it to the row."),
        ('[{"prompt": "a", "prompt": "b"}]', "x.json: not a row: key 'prompt' comes twice."),
    ],
)  # fmt: skip
def test_json_that_is_none(content, expected):
    assert refusal("x.json", content) == expected


def test_what_a_file_says_beside_its_rows_is_said_of_each_row():
    rows = [{"input": "2+2", "output": "4"}, {"input": "3+3", "output": "6"}]
    path = written("sums.train.json", json.dumps({"version": "1.1", "instruction": "Add.", "data": rows}))
    asked = [prompt for prompt, _ in pairs(path)]
    assert all("### Instruction:\nAdd.\n" in prompt for prompt in asked)
    assert "### Input:\n3+3\n" in asked[1]
    assert refusal("x.json", json.dumps({"hint": "carry", "data": rows})) == (
        "x.json[1]: text in fields that are not read: 'hint' (2 rows). "
        "Put it into the prompt or the turns, or drop it: ignore=['hint'], --ignore hint."
    )
    both = json.dumps({"comment": "of all", "data": [{**row, "comment": "of one"} for row in rows]})
    assert "'comment of the file' (2 rows), 'comment' (2 rows)" in refusal("x.json", both)


def test_a_task_of_natural_instructions_as_it_is_published():
    instances = [{"id": f"task1-{i}", "input": f"{i}+1", "output": [str(i + 1), "more"]} for i in range(3)]
    content = {
        "Contributors": ["Ann"], "Source": ["sums"], "Categories": ["Mathematics"], "Definition": ["Add the two."],
        "Positive Examples": [{"input": "1+1", "output": "2", "explanation": "so"}], "Negative Examples": [],
        "Instances": instances, "Instance License": ["MIT"],
    }  # fmt: skip
    refused = refusal("task1_sums.json", json.dumps(content))
    assert "'Positive Examples' (3 rows)" in refused
    assert refused.endswith("--ignore 'Positive Examples'.")
    tasks = read_tasks(written("task1_sums.json", json.dumps(content)), ignore=["Positive Examples"])
    [example, *_] = [example for part in ("train", "valid", "test") for example in getattr(tasks["task1_sums"], part)]
    assert example.prompt.startswith("Add the two.\n\n")
    assert example.prompt.endswith("+1\n\nOutput: ")
    assert len(example.answers) == 2
    several = {**content, "Definition": ["Add the two.", "And then stop."], "Positive Examples": []}
    assert "'Definition' (3 rows)" in refusal("task1_sums.json", json.dumps(several))
    own = {**content, "Positive Examples": [], "Instances": [{**row, "definition": "Add."} for row in instances]}
    assert "'definition of the file' (3 rows)" in refusal("task1_sums.json", json.dumps(own))
    assert "'Definition' must be a text" in refusal("task1_sums.json", json.dumps({**content, "Definition": [3]}))


def test_json_is_read_whole_within_bounds(monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_JSON_BYTES", 50)
    expected = "{}: the file has more than 50 bytes. Write it as JSON lines (.jsonl), which are read one by one."
    for name in ("x.json", "x.json.gz"):
        assert refusal(name, json.dumps(ROWS)) == expected.format(name)
    assert pairs(written("x.train.json", LINES)) == [("2+2", "4"), ("3+3", "6")]


def test_json_about_a_folder_is_no_data(tmp_path):
    (tmp_path / "tasks").mkdir()
    written("tasks/sums.train.jsonl", LINES)
    for name, content in (("dataset_infos", {"default": {"rows": 2}}), ("dataset_dict", {"splits": ["train"]})):
        written(f"tasks/{name}.json", json.dumps(content))
    assert list(read_tasks("tasks")) == ["sums"]
    written("tasks/more.json", json.dumps(ROWS))
    assert list(read_tasks("tasks")) == ["more", "sums"]
    written("tasks/broken.json", "[")
    with pytest.raises(TaskError, match=r"tasks/broken\.json: not JSON"):
        read_tasks("tasks")
    with pytest.raises(TaskError, match="expected an object that holds one list of rows, found none"):
        read_tasks("tasks/dataset_infos.json")


TABLE = 'prompt,completion,id\r\n"2+2, please",4,a\r\n"two\nlines","say ""hi""",b\r\n\r\nlast,x,\r\n'


@pytest.mark.parametrize("name", ["t.train.csv", "t.train.csv.gz"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_csv(name, bom):
    written(name, bom + TABLE)
    assert pairs(name) == [("2+2, please", "4"), ("two\nlines", 'say "hi"'), ("last", "x")]
    assert read_tasks(name)["t"].origin.unread == {"id": 2}, "an empty cell is no field"


def test_other_separators():
    assert pairs(written("t.train.csv", "prompt;completion\n1,5?;yes\n")) == [("1,5?", "yes")]
    assert pairs(written("t.train.tsv", 'prompt\tcompletion\na, "b"\tc;d\n')) == [('a, "b"', "c;d")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "x.csv: the file holds no rows. Fill it, or leave it out."),
        ("prompt,completion\n", "x.csv: the file holds no rows. Fill it, or leave it out."),
        ("prompt,prompt\na,b\n", "x.csv:1: column 'prompt' comes twice. Rename one of them."),
        ("\nprompt,completion\na,b\n\nc,d,e\n",
         "x.csv:5: 3 cells, expected 2, one for each name of the first line. "
         "Put quotation marks around cells that hold the separator."),
        ('prompt,completion\n"a\nb",c\nd,\n',
         "x.csv:4: 'completion' is empty. Fill it, or leave the row out."),
        ('prompt,completion\n"a"b,c\n',
         "x.csv:2: not a row of a table: ',' expected after '\"'. "
         "Put quotation marks around cells that hold any, doubled."),
        ('prompt,completion\na,"' + "b\n" * 100_000,
         "x.csv:2: not a row of a table: field larger than field limit (131072). Is a quotation mark missing before "
         "it? Cells of more than 131,072 characters belong in JSON lines."),
        ('prompt,completion\na,"b',
         "x.csv:2: not a row of a table: unexpected end of data. "
         "Put quotation marks around cells that hold any, doubled."),
        (b"prompt,completion\ncaf\xe9,b\n", "x.csv:2: not UTF-8 (byte 4 of the line is 0xe9). Save the file as UTF-8."),
        ("prompt,completion,context\na,b,Rome.\n",
         "x.csv:2: text in fields that are not read: 'context' (1 row). Put it into the prompt or the turns, "
         "or drop it: ignore=['context'], --ignore context."),
    ],
)  # fmt: skip
def test_broken_tables(content, expected):
    assert refusal("x.csv", content) == expected
