"""Large files are read once; their examples stay on disk and are what they would be in memory."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.clustering.clusters import Clusters
from lorary.disk import seal as seals
from lorary.disk.processes import place
from lorary.errors import LibraryError, TaskError
from lorary.hashing import canonical_json, hash_json
from lorary.tasks import on_disk
from lorary.tasks.example import Example, Message
from lorary.tasks.joined import JoinedExamples, joined
from lorary.tasks.read import read_tasks
from lorary.tasks.stored import entry
from lorary.tasks.stored.rows_file import INDEX, ROWS, RowsWriter, Store, StoredExamples, example_of, line_of
from lorary.tasks.telling import telling

TURNS = {
    "messages": [{"role": "user", "content": "How warm?"}, {"role": "assistant", "content": "Very. ☀"}],
    "tools": [{"type": "function", "function": {"name": "look", "arguments": {"z": 1, "a": [2.5, None, True]}}}],
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, in which files of any size are kept."""
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LORARY_TASK_CACHE", raising=False)
    monkeypatch.setattr(on_disk, "LARGE_BYTES", 1)
    return tmp_path / "cache" / "tasks"


@pytest.fixture
def source(tmp_path):
    """Three tasks: two in files of their own, one spread over both."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("ash", "birch"):
        rows = [{"prompt": f"{name} {i}?", "completion": f"a\u2028{i}", "id": i} for i in range(30)]
        rows += [{**TURNS, "task": "chat", "split": part} for part in ("train", "train", "test")]
        rows.insert(3, {"prompt": "pick", "completion": ["x", "y"], "choices": ["x", "y"]})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def in_memory(source, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(on_disk, "LARGE_BYTES", 1 << 40)
        return read_tasks(source)


def is_on_disk(tasks):
    return all(isinstance(part, StoredExamples | tuple) for task in tasks.values() for part in parts_of(task)) and any(
        isinstance(part, StoredExamples) for task in tasks.values() for part in parts_of(task)
    )


def parts_of(task):
    return task.train, task.valid, task.test


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


@pytest.fixture
def reads(monkeypatch):
    """Count the readings of rows."""
    seen, rows_at = [], on_disk.rows_at
    monkeypatch.setattr(on_disk, "rows_at", lambda *given: seen.append(given) or rows_at(*given))
    return seen


# ---- what is read ---------------------------------------------------------------------------------


def test_tasks_on_disk_are_those_in_memory(cache, source, in_memory):
    tasks = read_tasks(source)
    assert is_on_disk(tasks) and list(tasks) == list(in_memory) == ["ash", "birch", "chat"]
    for name, task in tasks.items():
        known = in_memory[name]
        assert task == known and known == task and task.hash == known.hash
        assert task.origin == known.origin and task.first(train=2, test=0) == known.first(train=2, test=0)
        for mine, theirs in zip(parts_of(task), parts_of(known), strict=True):
            assert tuple(mine[::-1]) == theirs[::-1] and tuple(mine[1:9:3]) == theirs[1:9:3]
            assert hash_json(mine[1:]) == hash_json(theirs[1:]) and bool(mine) == bool(theirs)
            assert hash_json({"b": mine, "a": [mine, 1]}) == hash_json({"b": theirs, "a": [theirs, 1]})
    assert tasks["ash"].train[-1] == in_memory["ash"].train[-1]
    assert tasks["ash"].train != in_memory["birch"].train and tasks["ash"].train[:1] != in_memory["ash"].train[:2]
    assert tuple(tasks["ash"].train + in_memory["ash"].test) == in_memory["ash"].train + in_memory["ash"].test
    with pytest.raises(IndexError):
        tasks["ash"].train[10_000]
    tools = tasks["chat"].train[0].template["tools"][0]["function"]["arguments"]
    assert list(tools) == ["z", "a"], "a chat template sees the order of keys"


def test_tests_of_code_stay_on_disk_too(cache, tmp_path):
    row = {"prompt": "def one():", "completion": " return 1", "tests": ["assert one() == 1"], "split": "test"}
    (tmp_path / "code.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    tasks = read_tasks(tmp_path / "code.jsonl")
    assert is_on_disk(tasks) and tasks["code"].test[0].tests == "assert one() == 1"


def test_only_and_ignore_hold_on_disk_too(cache, source, in_memory):
    assert list(read_tasks(source, only=["chat"])) == ["chat"]
    (source / "cedar.jsonl").write_text('{"prompt": "p", "completion": "c", "aside": "words of some kind"}\n')
    with pytest.raises(TaskError, match=r"E-DATA.*cedar.jsonl:1.*'aside'"):
        read_tasks(source)
    assert read_tasks(source, ignore="aside")["cedar"].origin.unread == {"aside": 1}
    assert len(entries(cache)) == 2, "what is ignored is a part of the key, what is picked out isn't"


@pytest.mark.parametrize("builder", [Private(), Shared(), PerCluster(Clusters({"c": ("ash", "chat")}))])
def test_keys_of_jobs_stay_what_they_are(cache, source, in_memory, builder):
    on, off = (builder.plan(tasks) for tasks in (read_tasks(source), in_memory))
    assert [job.key({"base": 1}) for job in on] == [job.key({"base": 1}) for job in off]
    assert [job.describe() for job in on] == [job.describe() for job in off]
    assert [(job.train, job.valid, job.train_tasks) for job in on] == [(j.train, j.valid, j.train_tasks) for j in off]
    assert not any(isinstance(job.train, tuple) for job in on) and all(isinstance(job.train, tuple) for job in off)


def test_examples_that_are_dealt_out_are_the_same(cache, source, in_memory):
    clusters = Clusters({"c0": ("ash",), "c1": ("ash",)}, dealt=3)
    for name in clusters:
        on, off = (clusters.part(name, tasks["ash"]) for tasks in (read_tasks(source), in_memory))
        assert on == off and on.hash == off.hash and on.train and isinstance(on.train, JoinedExamples)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.dictionaries(TEXT, JSON, max_size=3)
MESSAGES = st.lists(st.builds(Message, TEXT, TEXT, EXTRA), max_size=3).map(tuple)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
FIELDS = {
    "prompt": TEXT, "completion": TEXT, "task": TEXT, "references": TEXTS, "choices": TEXTS, "messages": MESSAGES,
    "extra": EXTRA, "template": EXTRA, "contexts": TEXTS, "tests": TEXT,
}  # fmt: skip
EXAMPLES = st.builds(Example, **FIELDS)


def test_every_field_of_an_example_is_drawn():
    assert FIELDS.keys() == {field.name for field in dataclasses.fields(Example)}


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(EXAMPLES, max_size=4))
def test_any_example_comes_back_and_hashes_alike(tmp_path_factory, examples):
    folder = tmp_path_factory.mktemp("rows")
    writer = RowsWriter(folder)
    writer.put("t", "train", examples)
    spans = writer.finish()
    store = Store((folder / ROWS).open("rb"), (folder / INDEX).open("rb"), (Store, ()))
    found = store.examples(spans.get("t", {}).get("train", (0, 0)) if spans else (0, 0))
    assert found == tuple(examples) and hash_json(found) == hash_json(examples)
    for example in examples:
        line, _ = line_of(example)
        assert repr(example_of(line)) == repr(example), "with the keys in their order"
    both = joined([found, tuple(examples)])
    assert b"".join(JoinedExamples([found, tuple(examples)]).json_pieces()) == canonical_json(tuple(both)).encode()


# ---- the cache ------------------------------------------------------------------------------------


def test_files_are_read_once(cache, source, reads):
    first = read_tasks(source)
    assert len(reads) == 1 and read_tasks(str(source)) == first and len(reads) == 1
    moved = source.with_name("elsewhere")
    shutil.copytree(source, moved)
    os.utime(source / "ash.jsonl", (0, 0))
    assert read_tasks(moved) == read_tasks(source) == first and len(reads) == 1, "content counts, not place or time"
    assert len(entries(cache)) == 1
    with (source / "ash.jsonl").open("a") as file:
        file.write('{"prompt": "new", "completion": "row", "split": "test"}\n')
    assert len(read_tasks(source)["ash"].test) == len(first["ash"].test) + 1 and len(reads) == 2
    assert (cache / entries(cache)[0]).stat().st_mode & 0o777 == 0o700


def test_other_rules_of_reading_are_another_entry(cache, source, reads, monkeypatch):
    read_tasks(source)
    monkeypatch.setattr(on_disk, "rules", lambda: "newer")
    read_tasks(source)
    read_tasks(source, answers="all")
    assert len(reads) == len(entries(cache)) == 3


def test_small_files_leave_nothing_on_disk(cache, source, monkeypatch):
    monkeypatch.setattr(on_disk, "LARGE_BYTES", 1 + sum(path.stat().st_size for path in source.iterdir()))
    assert all(isinstance(part, tuple) for task in read_tasks(source).values() for part in parts_of(task))
    assert not cache.exists()
    with (source / "ash.jsonl").open("a") as file:
        file.write("\n")
    assert is_on_disk(read_tasks(source))
    monkeypatch.setenv("LORARY_TASK_CACHE", "off")
    assert not is_on_disk(read_tasks(source))


def _flip(folder):
    data = bytearray((folder / ROWS).read_bytes())
    data[40] ^= 1
    (folder / ROWS).write_bytes(data)


def _cut(folder):
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[:-5])


def _lie(folder):
    facts = json.loads((folder / "entry.json").read_text())
    facts["tasks"]["ash"]["parts"]["train"][1] -= 1
    (folder / "entry.json").write_text(json.dumps(facts))


def _link(folder):
    shutil.move(folder, folder.with_name("real"))
    folder.symlink_to(folder.with_name("real"))


def _link_rows(folder):
    shutil.move(folder / ROWS, folder.parent / "stray")
    (folder / ROWS).symlink_to(folder.parent / "stray")


def _file(folder):
    shutil.rmtree(folder)
    folder.write_text("no entry")


def _empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("damage", [_flip, _cut, _lie, _link, _link_rows, _file, _empty])
def test_what_is_damaged_is_made_anew(cache, source, in_memory, reads, damage):
    read_tasks(source)
    (name,) = entries(cache)
    damage(cache / name)
    assert read_tasks(source) == in_memory and len(reads) == 2
    assert (cache / name / ROWS).is_file() and not (cache / name).is_symlink()
    assert read_tasks(source) == in_memory and len(reads) == 2


def test_nobody_takes_what_another_user_sealed(cache, source, in_memory, reads, monkeypatch, tmp_path):
    read_tasks(source)
    (theirs,) = entries(cache)
    try:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
        seals._key.cache_clear()
        assert read_tasks(source) == in_memory and len(reads) == 2
        (mine,) = set(entries(cache)) - {theirs}
        shutil.rmtree(cache / mine)
        shutil.copytree(cache / theirs, cache / mine)
        assert read_tasks(source) == in_memory and len(reads) == 3
    finally:
        seals._key.cache_clear()


def test_a_copy_of_the_cache_is_told_by_its_hashes(cache, source, in_memory, reads, monkeypatch, tmp_path):
    read_tasks(source)
    shutil.copytree(cache.parent, tmp_path / "copy")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "copy"))
    hashed = []
    monkeypatch.setattr(entry, "hash_open", lambda file, f=entry.hash_open: hashed.append(file.name) or f(file))
    assert read_tasks(source) == read_tasks(source) == in_memory and len(reads) == 1
    assert len(hashed) == 2, "the second time they are known"


# ---- what goes wrong ------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("fault", ["full", "no place", "no home", "changed"])
def test_where_nothing_can_be_kept_all_is_read_into_memory(cache, source, in_memory, monkeypatch, fault):
    if fault == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    if fault == "no place":
        cache.parent.mkdir()
        cache.write_text("a file")
    if fault == "no home":
        monkeypatch.setattr(entry, "cache_directory", lambda: Path("~nobody-at-all").expanduser())
        assert entry.collect() == []
    if fault == "changed":
        rows_at = on_disk.rows_at

        def changing(*given):
            yield from rows_at(*given)
            with (source / "ash.jsonl").open("a") as file:
                file.write("\n")

        monkeypatch.setattr(on_disk, "rows_at", changing)
    with pytest.warns(RuntimeWarning, match=r"W-CACHE.*LORARY_CACHE"):
        tasks = read_tasks(source)
    assert tasks == in_memory and not is_on_disk(tasks)
    assert not cache.is_dir() or list(cache.iterdir()) == []


def test_a_touch_while_it_is_read_changes_nothing(cache, source, in_memory, monkeypatch):
    rows_at = on_disk.rows_at

    def touching(*given):
        yield from rows_at(*given)
        os.link(source / "ash.jsonl", source.with_name("backup"))

    monkeypatch.setattr(on_disk, "rows_at", touching)
    assert read_tasks(source) == in_memory and len(entries(cache)) == 1
    monkeypatch.delattr(on_disk, "rows_at")
    assert read_tasks(source) == in_memory


def test_a_row_that_cant_be_read_is_said_as_ever(cache, source):
    with (source / "birch.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(TaskError, match=r"E-DATA.*birch.jsonl:35"):
        read_tasks(source)
    assert list(cache.iterdir()) == []


def test_a_file_that_cant_be_opened_is_said_as_ever(cache, source, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(on_disk, "hash_file", refuse)
    monkeypatch.setattr("lorary.tasks.rows.files.open_file", refuse)
    with warnings.catch_warnings(), pytest.raises(TaskError, match=r"E-DATA.*ash.jsonl: can't be read"):
        warnings.simplefilter("error")
        read_tasks(source)


def test_reading_tells_how_far_it_is_and_can_be_stopped(cache, source, monkeypatch):
    monkeypatch.setattr(on_disk, "_TELL_EVERY", 10)
    heard = []
    with telling(lambda *now: heard.append(now)):
        read_tasks(source)
        total = sum(path.stat().st_size for path in source.iterdir())
        assert heard == sorted(heard) and len(heard) > 4 and heard[-1] == (total, total)
        n = len(heard)
        read_tasks(source)
        assert len(heard) == n, "what is only opened isn't worth a word"

    def stop(done, total):
        raise KeyboardInterrupt

    shutil.rmtree(cache)
    with telling(stop), pytest.raises(KeyboardInterrupt):
        read_tasks(source)
    assert list(cache.iterdir()) == []


def test_who_comes_second_waits_for_the_first(cache, source, in_memory, reads):
    read_tasks(source)
    (name,) = entries(cache)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        shutil.move(cache / name, cache / f".{name}.{place()}-{other.pid}-0.0123abcd.tmp")
        found = []
        thread = threading.Thread(target=lambda: found.append(read_tasks(source)))
        thread.start()
        time.sleep(0.5)
        assert thread.is_alive() and len(reads) == 1
        shutil.move(cache / f".{name}.{place()}-{other.pid}-0.0123abcd.tmp", cache / name)
        thread.join(20)
        assert found == [in_memory] and len(reads) == 1
        shutil.move(cache / name, cache / f".{name}.{place()}-{other.pid}-0.0123abcd.tmp")
        other.kill()
    assert read_tasks(source) == in_memory and len(reads) == 2, "nobody waits for the dead"
    assert entries(cache) == [name]


def test_other_processes_get_paths_and_no_data(cache, source, in_memory, reads):
    tasks = read_tasks(source)
    data = pickle.dumps(tasks)
    assert b"birch 7?" not in data
    assert pickle.loads(data) == in_memory and len(reads) == 1
    shutil.rmtree(cache)
    assert pickle.loads(data) == in_memory and len(reads) == 2, "another host has a cache of its own"
    (source / "ash.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    assert pickle.loads(data) == in_memory, "the entry is there"
    shutil.rmtree(cache)
    with pytest.raises(TaskError, match=r"E-DATA.*the files changed"):
        pickle.loads(data)


def test_a_file_that_is_cut_in_use_is_an_error_with_a_code(cache, source):
    tasks = read_tasks(source)
    (name,) = entries(cache)
    os.truncate(cache / name / ROWS, 100)
    with pytest.raises(LibraryError, match=r"E-FILE.*changed while it was in use"):
        list(tasks["birch"].test)
    (cache / name / ROWS).write_bytes(b"x" * 100_000)
    with pytest.raises(LibraryError, match="E-FILE"):
        tasks["birch"].test[0]


def test_what_nobody_used_for_a_month_is_collected(cache, source, in_memory):
    read_tasks(source)
    (name,) = entries(cache)
    (cache / ".x.0123456789abcdef-1-1.0123abcd.tmp").mkdir()
    os.utime(cache / ".x.0123456789abcdef-1-1.0123abcd.tmp", (0, 0))
    assert entry.collect() == [".x.0123456789abcdef-1-1.0123abcd.tmp"]
    old = time.time() - entry.OLD_S - 60
    for path in (cache / name / "entry.json", *cache.glob("*.json")):
        os.utime(path, (old, old))
    tasks = read_tasks(source)
    assert entry.collect() == [] and len(entry.collect(0.0)) == 2
    assert list(cache.iterdir()) == [] and tasks == in_memory, "who has them open reads on"
    assert is_on_disk(read_tasks(source))
