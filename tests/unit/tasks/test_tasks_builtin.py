import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lorary.tasks.builtin
from lorary.tasks.builtin import builtin_heldout, builtin_tasks
from lorary.tasks.look import look

FOLDER = Path(lorary.tasks.builtin.__file__).parent
TOOLS = Path(__file__).parents[3] / "tools"
EVERYTHING = {**builtin_tasks(), **builtin_heldout()}


@pytest.mark.slow
def test_names():
    assert len(builtin_tasks()) == 12
    assert len(builtin_heldout()) == 4
    assert len(EVERYTHING) == 16
    kinds = {name.partition("_")[0] for name in builtin_tasks()}
    assert kinds == {"answer", "classify", "convert", "extract", "rewrite"}
    assert {name.partition("_")[0] for name in builtin_heldout()} <= kinds


@pytest.mark.parametrize("name", EVERYTHING)
def test_sizes_and_no_leaks(name):
    task = EVERYTHING[name]
    assert (len(task.train), len(task.valid), len(task.test)) == (220, 30, 50)
    everything = [*task.train, *task.valid, *task.test]
    assert len({example.prompt for example in everything}) == 300
    assert {example.task for example in everything} == {name}
    assert all(example.completion.strip() == example.completion for example in everything)


@pytest.mark.parametrize("name", EVERYTHING)
def test_short(name):
    task = EVERYTHING[name]
    texts = [e.prompt + e.completion for part in (task.train, task.valid, task.test) for e in part]
    # an upper bound of the tokens: pieces of at most six letters, digits and signs one by one
    assert max(len(re.findall(r"[a-zA-Z]{1,6}|[^a-zA-Z\s]", text)) for text in texts) <= 50
    assert max(len(text) for text in texts) <= 130


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n.startswith(("answer", "convert", "extract"))])
def test_no_fact_in_two_parts(name):
    task = EVERYTHING[name]
    if name == "answer_continent":  # the fact is the country
        facts = [
            {re.sub(r"On which.* is |Which.*does | belong.*|\?", "", e.prompt.strip()) for e in p} for p in _parts(task)
        ]
        assert len(set.union(*facts)) == 150
    else:
        facts = [{example.completion for example in part} for part in _parts(task)]
    assert sum(map(len, facts)) == len(set.union(*facts))


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n.startswith(("classify", "rewrite"))])
def test_no_text_in_two_parts_under_another_instruction(name):
    facts = [
        {re.split(r"[:?] ", example.prompt, maxsplit=1)[1] for example in part} for part in _parts(EVERYTHING[name])
    ]
    assert sum(map(len, facts)) == len(set.union(*facts)) == 300


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n.startswith("extract")])
def test_what_is_to_extract_stands_in_the_prompt_once(name):
    for part in _parts(EVERYTHING[name]):
        assert all(example.prompt.count(example.completion) == 1 for example in part)


@pytest.mark.parametrize("name", [n for n in EVERYTHING if n.startswith("classify")])
def test_labels_are_balanced_in_every_part(name):
    for part in _parts(EVERYTHING[name]):
        labels = [example.completion for example in part]
        counts = [labels.count(label) for label in set(labels)]
        assert max(counts) - min(counts) <= 3


def test_look_finds_nothing():
    assert look(builtin_tasks()).findings == look(builtin_heldout()).findings == ()


def test_card_has_a_section_for_each():
    text = (FOLDER / "README.md").read_text()
    assert [name for name in EVERYTHING if f"\n### {name}\n" not in text] == []


def test_the_tool_writes_what_is_committed(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import make_builtin_tasks

    made = make_builtin_tasks.make_files()
    committed = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in FOLDER.rglob("*")
        if path.suffix in (".gz", ".md")
    }
    assert sorted(made) == sorted(committed)
    for name, data in made.items():
        # compared unpacked: another build of zlib may pack the same lines in other bytes
        unpack = gzip.decompress if name.endswith(".gz") else bytes
        assert unpack(data) == unpack(committed[name]), name
        if name.endswith(".gz"):
            assert data[4:8] == b"\0\0\0\0", "the time must leave no mark"


def test_tasks_import_no_heavy_package():
    code = "import sys, lorary.tasks.builtin, lorary.tasks.look, lorary.tasks.toy; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "pyarrow", "datasets", "numpy", "pydantic"} & set(loaded)


def _parts(task):
    return task.train, task.valid, task.test
