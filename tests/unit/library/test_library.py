import json
import mmap
import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from library_pico import BASE, SITES, D, tensors, write_adapter

from lorary.disk.processes import host
from lorary.errors import AdapterError, LibraryError, ModelError, OptionError
from lorary.library import staging
from lorary.library.adapter.expert import copy_adapter
from lorary.library.adapter.provenance import Provenance
from lorary.library.library import Library

PRINT = {"architecture": "LlamaForCausalLM", "hidden_size": D, "name": "pico"}
FILES = ["adapter_config.json", "adapter_model.safetensors", "expert.json"]


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "lib", base=PRINT)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def message(caught) -> str:
    return str(caught.value)


# ---- add and read -------------------------------------------------------------------------------


def test_add_and_open_again(library, poems):
    made = Provenance(
        tasks=("poetry",), data_hash="abc", builder={"name": "private", "rank": 2}, seed=1, steps=100,
        metrics={"loss": 1.25}, base_fingerprint=PRINT, licence="mit", parents=("mother",), extra={"colour": "red"},
    )  # fmt: skip
    expert = library.add(poems, "poems", provenance=made, base=BASE)
    again = Library.open(library.path)["poems"]
    assert again == expert
    assert files(expert.directory) == FILES
    assert again.directory == library.path / "experts" / "poems"
    assert (again.rank, again.ranks[SITES[0]], again.scales[SITES[0]], again.n_parameters) == (2, 2, 2.0, 96)
    assert again.header[again.sites[SITES[0]][0]][:2] == ("F32", (2, D))
    found = again.provenance
    assert found.created_by.startswith("lorary ")
    assert len(found.weights_sha256) == 64
    assert (found.tasks, found.builder, found.metrics, found.extra) == (
        made.tasks, made.builder, made.metrics, made.extra,
    )  # fmt: skip
    assert list((library.path / ".staging").iterdir()) == []


def test_it_is_a_mapping_sorted_by_name(library, poems):
    for name in ("b", "a", "c"):
        library.add(poems, name)
    assert list(library) == list(Library.open(library.path)) == ["a", "b", "c"]
    assert "a" in library
    assert "z" not in library
    assert library.get("z") is None


def test_unknown_name(library, poems):
    library.add(poems, "poems")
    with pytest.raises(OptionError) as caught:
        library["poem"]
    assert message(caught) == "error[E-NAME] unknown expert 'poem'. Did you mean 'poems'? Known: poems."


def test_source_is_copied_without_its_other_files(library, poems):
    (poems / "optimizer.pt").write_bytes(b"x")
    before = {path.name: path.read_bytes() for path in poems.iterdir()}
    expert = library.add(poems, "poems")
    assert files(expert.directory) == FILES
    assert {path.name: path.read_bytes() for path in poems.iterdir()} == before
    for name in FILES[:2]:
        assert (expert.directory / name).read_bytes() == before[name]


def test_bad_adapter_leaves_nothing(library, tmp_path):
    bad = write_adapter(tmp_path / "bad", r=8)
    with pytest.raises(AdapterError) as caught:
        library.add(bad, "bad")
    assert message(caught).startswith("error[E-RANK] expert 'bad': site 'model.layers.0.self_attn.q_proj'")
    assert files(library.path / "experts") == []


def test_foreign_code_is_neutralised_and_nothing_else(library, tmp_path):
    """Of two patterns that match a site, PEFT takes the first: they must stay in their order."""
    patterns = {"v_proj": 2, "layers.0.self_attn.v_proj": 64, "q_proj": 8}
    source = write_adapter(tmp_path / "p", alpha_pattern=patterns, auto_mapping={"base_model_class": "X"})
    before = json.loads((source / "adapter_config.json").read_text())
    expert = library.add(source, "p")
    config = json.loads((expert.directory / "adapter_config.json").read_text())
    assert config.pop("auto_mapping") is None
    assert list(config.items()) == [item for item in before.items() if item[0] != "auto_mapping"]
    assert list(config["alpha_pattern"].items()) == list(patterns.items())
    again = Library.open(library.path)["p"]
    assert (again.hash, again.scales) == (expert.hash, expert.scales)
    assert set(expert.scales.values()) == {1.0, 4.0}


def test_promised_hash_is_verified(library, poems):
    with pytest.raises(LibraryError) as caught:
        library.add(poems, "poems", provenance=Provenance(weights_sha256="0" * 64))
    assert caught.value.code == "E-FILE"
    assert "expected 000000000000" in message(caught)
    assert files(library.path / "experts") == []


def test_weights_that_changed_behind_our_back(library, poems):
    expert = library.add(poems, "poems")
    write_adapter(expert.directory, seed=1)
    with pytest.raises(LibraryError, match=r"error\[E-FILE\] expert 'poems': adapter_model.safetensors has changed"):
        Library.open(library.path)["poems"].hash  # noqa: B018


def test_copy_to_is_a_plain_adapter_directory(library, poems, tmp_path):
    expert = library.add(poems, "poems")
    out = expert.copy_to(tmp_path / "out" / "poems")
    assert files(out) == FILES
    assert (out / "adapter_model.safetensors").read_bytes() == expert.weights_path.read_bytes()
    with pytest.raises(LibraryError, match=r"error\[E-EXISTS\]"):
        expert.copy_to(out)


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "/etc", "..", "../x", "a/b", "a\\b", "a.b", "x" * 65, "a\0", "a\n", "\u202ea", "é", "-a", "_a", " a", "a "],
)
def test_refused_name(library, poems, name):
    with pytest.raises(OptionError) as caught:
        library.add(poems, name)
    assert caught.value.code == "E-NAME"
    assert "Use 1 to 64 letters (A-Z, a-z), digits, _ or -, starting with a letter or digit." in message(caught)
    assert files(library.path / "experts") == []


@pytest.mark.parametrize("name", ["lora", "weight", "default", "base", "LoRA"])
def test_reserved_name(library, poems, name):
    with pytest.raises(OptionError) as caught:
        library.add(poems, name)
    assert message(caught) == f"error[E-NAME] expert name '{name}' is reserved: it occurs inside PEFT's tensor keys."


def test_device_name(library, poems):
    with pytest.raises(OptionError, match="it is a device on Windows"):
        library.add(poems, "CON")


def test_taken_name_and_case_twin(library, poems):
    library.add(poems, "poems")
    with pytest.raises(LibraryError) as caught:
        library.add(poems, "poems")
    assert (
        message(caught)
        == "error[E-EXISTS] expert 'poems' exists already. Choose another name, or replace it (--replace)."
    )
    with pytest.raises(LibraryError) as caught:
        library.add(poems, "Poems")
    assert message(caught) == (
        "error[E-EXISTS] expert 'Poems' differs from 'poems' only by case, which some disks can't tell apart. "
        "Choose another name."
    )


# ---- base ---------------------------------------------------------------------------------------


def test_another_base_is_refused(library, poems):
    with pytest.raises(ModelError) as caught:
        library.add(poems, "poems", provenance=Provenance(base_fingerprint={**PRINT, "hidden_size": 7, "name": "x"}))
    assert message(caught) == (
        "error[E-BASE] expert 'poems': made for another base (hidden_size is 7, the library's is 6). "
        "Put it into a library of its own base."
    )
    library.add(poems, "poems", provenance=Provenance(base_fingerprint={**PRINT, "name": "renamed"}))
    with pytest.raises(ModelError, match=r"error\[E-BASE\]"):
        Library.create(library.path, base={**PRINT, "hidden_size": 7}, exist_ok=True)


def test_base_of_the_first_expert_counts_when_the_library_names_none(tmp_path, poems):
    library = Library.create(tmp_path / "lib2")
    library.add(poems, "a", provenance=Provenance(base_fingerprint=PRINT))
    assert library.base == PRINT
    with pytest.raises(ModelError, match=r"error\[E-BASE\]"):
        library.add(poems, "b", provenance=Provenance(base_fingerprint={**PRINT, "hidden_size": 7}))


# ---- stage, replace, remove ---------------------------------------------------------------------


def test_builders_stage(library):
    with library.stage("poems") as directory:
        write_adapter(directory)
        assert "poems" not in Library.open(library.path)
    assert library["poems"] == Library.open(library.path)["poems"]


def test_a_failing_builder_leaves_nothing(library):
    with pytest.raises(ZeroDivisionError), library.stage("poems") as directory:
        1 / len(files(write_adapter(directory))[2:])
    unfinished = pytest.raises(LibraryError, match=r"error\[E-FILE\] expert 'poems': adapter_config.json is missing")
    with unfinished, library.stage("poems"):
        pass
    assert files(library.path / "experts") == files(library.path / ".staging") == []


def test_replace_keeps_the_old_bytes_for_their_readers(library, poems, tmp_path):
    old = library.add(poems, "poems")
    before = old.hash
    with old.weights_path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        bytes_before = bytes(mapped)
        new = library.replace(write_adapter(tmp_path / "new", seed=1), "poems")
        assert bytes(mapped) == bytes_before
        assert new.weights_path.read_bytes() != bytes_before
    assert library["poems"].hash != before
    assert Library.open(library.path).hash == library.hash
    assert files(library.path / ".staging") == []


def test_replace_by_a_bad_one_changes_nothing(library, poems, tmp_path):
    before = library.add(poems, "poems").hash
    with pytest.raises(AdapterError, match=r"error\[E-RANK\]"):
        library.replace(write_adapter(tmp_path / "bad", r=3), "poems")
    assert Library.open(library.path)["poems"].hash == before


def test_replace_of_what_another_writer_removed(library, poems):
    library.add(poems, "poems")
    Library.open(library.path).remove("poems")
    with pytest.raises(OptionError) as caught:
        library.replace(poems, "poems")
    assert message(caught) == ("error[E-NAME] expert 'poems' was removed by another writer. Add it instead.")


def test_replace_where_the_system_cannot_exchange(library, poems, tmp_path, monkeypatch):
    monkeypatch.setattr("lorary.library.staging._exchange", lambda one, other: False)
    before = library.add(poems, "poems").hash
    assert library.replace(write_adapter(tmp_path / "new", seed=1), "poems").hash != before
    assert files(library.path / ".staging") == []


def test_gc_moves_back_what_a_killed_replace_left(library, poems):
    library.add(poems, "poems")
    os.rename(library.path / "experts/poems", library.path / ".staging" / "poems.gone.1.abcd.old")
    os.utime(library.path / ".staging" / "poems.gone.1.abcd.old", (0, 0))
    assert library.gc() == ["restored poems"]
    assert "poems" in Library.open(library.path)


def test_remove(library, poems):
    library.add(poems, "poems")
    library.remove("poems")
    assert list(library) == list(Library.open(library.path)) == []
    with pytest.raises(OptionError, match=r"error\[E-NAME\] unknown expert 'poems'"):
        library.remove("poems")


# ---- identity -----------------------------------------------------------------------------------


def test_hash_does_not_depend_on_order_or_path(tmp_path):
    sources = {f"e{i}": write_adapter(tmp_path / f"s{i}", seed=i) for i in range(4)}
    hashes = set()
    for turn in range(3):
        library = Library.create(tmp_path / f"lib{turn}")
        for name in random.Random(turn).sample(sorted(sources), 4):
            library.add(sources[name], name)
        hashes.add(library.hash)
    shutil.move(library.path, tmp_path / "moved")
    assert hashes == {Library.open(tmp_path / "moved").hash}
    library = Library.open(tmp_path / "moved")
    library.remove("e0")
    assert library.hash not in hashes


def test_hash_is_of_the_mathematics(tmp_path):
    library = Library.create(tmp_path / "lib")

    def of(name, **config):
        return library.add(write_adapter(tmp_path / name, **config), name).hash

    plain = of("a")
    assert plain == of("b") == of("c", lora_dropout=0.5) == of("d", alpha_pattern={"q_proj": 4})
    assert plain != of("e", lora_alpha=8)
    assert plain != of("f", use_rslora=True)
    assert plain != of("g", alpha_pattern={"q_proj": 8})


# ---- opening ------------------------------------------------------------------------------------


def test_not_a_library(tmp_path, poems):
    with pytest.raises(LibraryError, match=r"error\[E-LIBRARY\] there is no directory"):
        Library.open(tmp_path / "nowhere")
    with pytest.raises(LibraryError) as caught:
        Library.open(poems)
    assert message(caught).startswith("error[E-LIBRARY] 'poems' is one adapter, not a library. `lorary add LIBRARY /")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError) as caught:
        Library.open(tmp_path / "empty")
    assert message(caught).startswith("error[E-LIBRARY] 'empty' is not a library: no library.json, no adapters in it.")


def test_create_refuses_what_is_there(library, tmp_path):
    with pytest.raises(LibraryError, match=r"error\[E-EXISTS\]"):
        Library.create(library.path)
    assert Library.create(library.path, exist_ok=True).base == PRINT
    (tmp_path / "half" / "experts").mkdir(parents=True)  # killed between its two steps
    assert len(Library.create(tmp_path / "half")) == 0


@pytest.mark.parametrize("layout", ["flat", "experts"])
def test_a_folder_of_others_opens_read_only(tmp_path, layout):
    root = tmp_path / "theirs"
    parent = root if layout == "flat" else root / "experts"
    for name in ("b", "a"):
        write_adapter(parent / name)
    (root / "logs").mkdir()
    before = sorted(root.rglob("*"))
    library = Library.open(root)
    assert list(library) == ["a", "b"]
    assert len(library.hash) == 64
    with pytest.raises(LibraryError) as caught:
        library.add(root, "c")
    assert message(caught).startswith("error[E-PERM] 'theirs' is a folder of adapters without library.json")
    assert sorted(root.rglob("*")) == before


def test_newer_schema_and_damaged_manifest(library):
    manifest = library.path / "library.json"
    manifest.write_text('{"schema_version": 2}')
    with pytest.raises(LibraryError) as caught:
        Library.open(library.path)
    assert message(caught) == (
        f"error[E-SCHEMA] {library.layout.manifest} has schema 2; this lorary reads up to 1. Install a newer lorary."
    )
    manifest.write_text("{")
    with pytest.raises(LibraryError, match=r"lib/library.json:1:2 is not JSON.*delete it, then"):
        Library.open(library.path)


def test_manifest_is_only_a_note(library, poems):
    library.add(poems, "a")
    note = json.loads((library.path / "library.json").read_text())
    assert (note["schema_version"], list(note["experts"]), note["experts"]["a"]["rank"]) == (1, ["a"], 2)
    write_adapter(library.path / "experts" / "b")  # a writer that was killed before its note
    assert list(Library.open(library.path)) == ["a", "b"]
    library.gc()
    assert list(json.loads((library.path / "library.json").read_text())["experts"]) == ["a", "b"]


def noted(library) -> list[str]:
    return sorted(json.loads((library.path / "library.json").read_text())["experts"])


def test_many_changes_are_noted_once(library, poems, notes):
    with library.noted_once():
        for name in ("a", "b", "c"):
            library.add(poems, name)
        with library.noted_once():
            library.remove("a")
            with library.stage("d") as stage:
                copy_adapter(poems, stage)
        library.replace(poems, "b")
        assert notes == []
        assert sorted(library) == ["b", "c", "d"], "what stands doesn't wait for the notes"
    assert notes == [["b", "c", "d"]]
    assert noted(library) == ["b", "c", "d"]
    assert "3 LoRA experts" in library.layout.card.read_text()
    library.remove("d")
    assert notes[1:] == [["b", "c"]], "after the block each change is noted"


def test_changes_are_noted_when_the_block_ends_by_an_exception(library, poems, notes):
    with pytest.raises(KeyboardInterrupt), library.noted_once():
        library.add(poems, "a")
        with pytest.raises(ZeroDivisionError), library.noted_once():
            library.add(poems, "b")
            raise ZeroDivisionError
        raise KeyboardInterrupt
    assert notes == [["a", "b"]]


def test_without_changes_nothing_is_noted_and_gc_notes_at_once(library, poems, notes):
    with library.noted_once():
        pass
    assert notes == []
    with library.noted_once():
        library.add(poems, "a")
        library.gc()
        assert notes == [["a"]]
    assert len(notes) == 1


def test_who_ends_last_notes_what_all_have_added(library, poems):
    other = Library.open(library.path)
    with library.noted_once():
        library.add(poems, "a")
        with other.noted_once():
            other.add(poems, "b")
            library.add(poems, "c")
        library.add(poems, "d")
        assert noted(library) == ["a", "b", "c"]
    assert noted(library) == ["a", "b", "c", "d"]


def test_one_bad_expert_of_many(library, poems):
    for i in range(5):
        library.add(poems, f"e{i}")
    (library.path / "experts/e3/adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(LibraryError) as caught:
        Library.open(library.path)
    assert message(caught) == (
        "error[E-FILE] expert 'e3': adapter_model.safetensors is damaged: it has 5 bytes, a header needs more than 8. "
        f"Fetch or save it again. `lorary remove {library.path} e3` takes it out; "
        "Library.open(..., skip_bad=True) skips it."
    )
    partial = Library.open(library.path, skip_bad=True)
    assert list(partial) == ["e0", "e1", "e2", "e4"]
    assert list(partial.bad) == ["e3"]
    assert partial.bad["e3"].startswith("error[E-FILE] expert 'e3'")


def test_case_twins_and_links_on_disk_are_bad_experts(library, poems):
    library.add(poems, "poems")
    write_adapter(library.path / "experts" / "Poems")
    (library.path / "experts" / "link").symlink_to(poems)
    (library.path / "experts" / "empty").mkdir()
    partial = Library.open(library.path, skip_bad=True)
    assert list(partial) == ["Poems"]
    assert {name: text[: text.index("]") + 1] for name, text in partial.bad.items()} == {
        "empty": "error[E-FILE]",
        "link": "error[E-PATH]",
        "poems": "error[E-EXISTS]",
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"tasks": "x"}', "error[E-CONFIG] expert 'poems': expert.json: tasks is 'x', expected a list of names."),
        ('{"steps": -1}', "error[E-CONFIG] expert 'poems': expert.json: steps is -1, expected a whole number."),
        ("{", "error[E-CONFIG] expert 'poems': expert.json:1:2 is not JSON: "),
    ],
)
def test_bad_provenance(library, poems, text, error):
    (poems / "expert.json").write_text(text)
    with pytest.raises(LibraryError) as caught:
        library.add(poems, "poems")
    assert message(caught).startswith(error)


# ---- folders that lead elsewhere ----------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path):
    """A directory outside the library, which nobody may touch."""
    (tmp_path / "home" / "letters").mkdir(parents=True)
    (tmp_path / "home" / "letters" / "a.txt").write_text("dear")
    yield tmp_path / "home"
    assert [str(p.relative_to(tmp_path)) for p in sorted((tmp_path / "home").rglob("*"))] == [
        "home/letters", "home/letters/a.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["experts", "derived", "learned", ".staging", ".work"])
@pytest.mark.parametrize("change", ["add", "stage", "replace", "remove", "gc"])
def test_nothing_is_changed_through_a_link(library, poems, elsewhere, folder, change):
    library.add(poems, "poems")
    shutil.rmtree(library.path / folder, ignore_errors=True)
    (library.path / folder).symlink_to(elsewhere)
    changes = {
        "add": lambda: library.add(poems, "new"),
        "stage": lambda: library.stage("new").__enter__(),
        "replace": lambda: library.replace(poems, "poems"),
        "remove": lambda: library.remove("poems"),
        "gc": library.gc,
    }
    with pytest.raises(LibraryError) as caught:
        changes[change]()
    assert message(caught) == (
        f"error[E-PATH] '{library.path / folder}' is a link, expected a directory of its own. "
        "Look at it and remove it: nothing is written or deleted outside a library."
    )


def test_a_library_is_not_made_through_a_link(tmp_path, elsewhere):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "experts").symlink_to(elsewhere)
    with pytest.raises(LibraryError, match="E-PATH"):
        Library.create(tmp_path / "new")
    assert files(tmp_path / "new") == ["experts"]


def test_a_link_that_comes_meanwhile_is_not_followed(library, elsewhere):
    library.layout.staging.symlink_to(elsewhere)
    staging.discard(library.layout.staging / "letters")


def test_links_among_what_writers_left_are_removed_themselves(library, elsewhere):
    library.layout.staging.mkdir()
    for name in ("a.old", "b", f"c.{host()}.\u00b2.ab"):
        (library.layout.staging / name).symlink_to(elsewhere)
    (library.layout.staging / "d").symlink_to(elsewhere / "nowhere")
    library.gc()
    assert files(library.layout.staging) == files(library.layout.experts) == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_card_that_is_no_file_is_left_alone(library, poems, make):
    library.layout.card.unlink(missing_ok=True)
    make(library.layout.card)
    library.add(poems, "poems")
    assert not library.layout.card.is_file()


# ---- the disk says no ---------------------------------------------------------------------------


def test_no_space_is_told_before_anything_is_written(library, poems, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 7, 3))
    with pytest.raises(LibraryError) as caught:
        library.add(poems, "poems")
    assert message(caught) == (
        "error[E-DISK] the disk is too full: needs 2 MB, 1 MB free. "
        "Free some space and run it again; nothing was changed."
    )
    assert files(library.path / "experts") == files(library.path / ".staging") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to become another user")
def test_other_users_library_is_read_only():
    with tempfile.TemporaryDirectory() as root:
        library = Library.create(Path(root) / "lib")
        poems = write_adapter(Path(root) / "poems")
        (poems / "adapter_model.safetensors").chmod(0o644)  # safetensors writes 0600
        library.add(poems, "poems")
        os.chmod(root, 0o755)
        os.seteuid(65534)
        try:
            again = Library.open(library.path)
            assert len(again.hash) == 64
            with pytest.raises(LibraryError) as caught:
                again.add(poems, "b")
            with pytest.raises(LibraryError, match=r"error\[E-PERM\]"):
                again.remove("poems")
        finally:
            os.seteuid(0)
    assert message(caught).startswith("error[E-PERM] expert 'b': writing is not allowed (Permission denied).")


def test_card(library, poems, tmp_path):
    made = Provenance(tasks=("po|etry",), steps=1200, metrics={"loss": 1.25}, licence="mit", parents=("m",))
    library.add(write_adapter(tmp_path / "x", base_model_name_or_path="/home/me/secret"), "poems", provenance=made)
    card = (library.path / "README.md").read_text()
    assert card.startswith(
        '---\nlibrary_name: peft\nbase_model: "pico"\nbase_model_relation: adapter\nlicense: "mit"\n'
        "tags:\n- lora\n- lorary\n- lora-library\n---\n"
    )
    assert "| poems | po\\|etry | 1,200 | loss 1.25 | mit | m |" in card
    assert "secret" not in card
    (library.path / "README.md").write_text("my own")
    library.add(poems, "more")
    assert (library.path / "README.md").read_text() == "my own"


def test_card_never_names_a_local_base(tmp_path):
    library = Library.create(tmp_path / "lib")
    for i, name in enumerate(["/home/me/base", "./base", "~/base", "C:\\base", "a/b/c"]):
        library.add(write_adapter(tmp_path / f"x{i}", base_model_name_or_path=name), f"x{i}")
    assert "base_model:" not in (library.path / "README.md").read_text()


def test_tensors_of_pico_are_what_the_tests_think():
    assert len(tensors()) == 2 * len(SITES)


# ---- what gets in -------------------------------------------------------------------------------


def test_a_nan_gets_in_by_no_door(library, poems, tmp_path):
    arrays = tensors()
    arrays[min(arrays)][0, 0] = np.inf
    bad = write_adapter(tmp_path / "bad", arrays)
    library.add(poems, "poems")

    def stage():
        with library.stage("b") as stage:
            write_adapter(stage, arrays)

    for door in (lambda: library.add(bad, "a"), lambda: library.replace(bad, "poems"), stage):
        with pytest.raises(AdapterError, match="E-NONFINITE"):
            door()
    assert list(Library.open(library.path)) == ["poems"]
    assert not list(library.layout.staging.iterdir())


def test_a_copy_may_call_its_base_otherwise(library, poems):
    config = json.loads((poems / "adapter_config.json").read_text())
    added = library.add(poems, "poems", base_name="me/base")
    stored = json.loads((added.directory / "adapter_config.json").read_text())
    assert stored == {**config, "base_model_name_or_path": "me/base"} == dict(added.config)


def test_bad_experts_are_replaced_and_removed(library, poems):
    for name in ("a", "b", "c"):
        library.add(poems, name)
        (library.path / "experts" / name / "adapter_model.safetensors").write_bytes(b"")
    library = Library.open(library.path, skip_bad=True)
    library.replace(poems, "a")
    library.remove("b")
    assert (list(library), list(library.bad)) == (["a"], ["c"])
    with pytest.raises(OptionError, match="E-NAME"):
        library.remove("b")
