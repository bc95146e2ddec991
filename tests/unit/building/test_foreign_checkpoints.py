"""What a build does about a checkpoint in .work/ that this user's lorary didn't write."""

import json
import os
import warnings

import pytest
import safetensors.torch

from lorary.building.build import build
from lorary.building.builders.lorahub import LoraHub
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.builders.private import Private
from lorary.building.training import checkpoint
from lorary.building.training import loop as training
from lorary.disk.seal import seal
from lorary.testing.contracts import files_of
from lorary.testing.pico import random_library

BUILDER = Private(steps=6, batch_size=2, rank=2, n_evaluations=3, dropout=0.0, lr=1e-2, pack_tokens=1)
FOREIGN = (
    r"^warning\[W-CHECKPOINT\] .*checkpoint.safetensors: this checkpoint can't be used \(it was not written by you"
)


@pytest.fixture(autouse=True)
def _checkpoint_at_every_step(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def tasks(toy):
    return toy.only(["copy", "swap"])


@pytest.fixture(scope="module")
def whole(_pico, tasks, tmp_path_factory):
    """The files of a build that nobody disturbed."""
    return files_of(build(BUILDER, tasks, _pico, into=tmp_path_factory.mktemp("whole") / "lib").path)


@pytest.fixture
def as_user(monkeypatch, tmp_path):
    """Be somebody with a key of his own."""
    return lambda name: monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / name))


def cut(base, tasks, into, at=4):
    """Build until a step, and give the checkpoint that is left."""

    def stop(step):
        if step.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(BUILDER, tasks, base, into=into, report=stop)
    (saved,) = into.glob(".work/*/*/checkpoint.safetensors")
    return saved


def resume(base, tasks, into):
    """Build on; give the first step of each job, and the library's files."""
    first = {}
    library = build(BUILDER, tasks, base, into=into, report=lambda step: first.setdefault(step.job, step.step))
    return first, files_of(library.path)


def changed(saved, *, by_another=False):
    """Other weights, with the hash that they have."""
    content = saved.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    tensors = {key: tensor + 0.01 for key, tensor in safetensors.torch.load(content).items()}
    header["sha256"] = checkpoint._hash(json.loads(header["facts"]), tensors)
    if by_another:
        header["seal"] = seal("checkpoint", "the run", header["sha256"])
    saved.write_bytes(safetensors.torch.save(tensors, header))


@pytest.mark.slow
def test_ones_own_checkpoint_is_gone_on_from(base, tasks, whole, tmp_path):
    cut(base, tasks, tmp_path / "lib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, files = resume(base, tasks, tmp_path / "lib")
    assert sorted(first.values()) == [1, 5]
    assert files == whole


def test_a_moved_library_goes_on_at_its_owners(base, tasks, whole, tmp_path):
    cut(base, tasks, tmp_path / "lib")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lib").rename(tmp_path / "elsewhere" / "lib")  # its name stands in its README
    first, files = resume(base, tasks, tmp_path / "elsewhere" / "lib")
    assert sorted(first.values()) == [1, 5]
    assert files == whole


def unsealed(saved):
    """As an older lorary wrote it."""
    content = saved.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    del header["seal"]
    saved.write_bytes(safetensors.torch.save(safetensors.torch.load(content), header))


def no_metadata(saved):
    saved.write_bytes(safetensors.torch.save(safetensors.torch.load(saved.read_bytes())))


def enormous(saved):
    """Four gigabytes, of which the disk holds none."""
    n_bytes = 1 << 32
    header = json.dumps({"now/a": {"dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}}).encode()
    with saved.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + n_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("make", [unsealed, no_metadata, changed, enormous])
def test_what_this_user_did_not_seal_is_not_gone_on_from(make, base, tasks, whole, tmp_path):
    make(cut(base, tasks, tmp_path / "lib"))
    with pytest.warns(RuntimeWarning, match=FOREIGN + r".*\)\. The training starts anew"):
        first, files = resume(base, tasks, tmp_path / "lib")
    assert set(first.values()) == {1}
    assert files == whole


@pytest.mark.slow
def test_what_another_user_sealed_is_not_gone_on_from(base, tasks, whole, as_user, tmp_path):
    as_user("stranger")
    changed(cut(base, tasks, tmp_path / "lib"), by_another=True)
    as_user("me")
    with pytest.warns(RuntimeWarning, match=FOREIGN):
        first, files = resume(base, tasks, tmp_path / "lib")
    assert set(first.values()) == {1}
    assert files == whole


@pytest.mark.slow
def test_hosts_with_keys_of_their_own_take_over_from_each_other(base, tasks, whole, as_user, tmp_path):
    """Each starts the pack again, with a word; neither fails, and it ends as an undisturbed build."""
    as_user("first-host")
    cut(base, tasks, tmp_path / "lib")
    as_user("second-host")
    with pytest.warns(RuntimeWarning, match=FOREIGN):
        cut(base, tasks, tmp_path / "lib", at=2)
    as_user("first-host")
    with pytest.warns(RuntimeWarning, match=FOREIGN):
        first, files = resume(base, tasks, tmp_path / "lib")
    assert set(first.values()) == {1}
    assert files == whole


def test_a_checkpoint_of_another_run_is_not_gone_on_from(base, tasks, whole, tmp_path):
    """One of the user's own, of the same shapes: without the run in its seal it would become another expert."""
    of_copy = cut(base, tasks.only(["copy"]), tmp_path / "other").read_bytes()
    into = tmp_path / "lib"
    cut(base, tasks.only(["swap"]), into).write_bytes(of_copy)
    with pytest.warns(RuntimeWarning, match=FOREIGN):
        first, files = resume(base, tasks.only(["swap"]), into)
    assert first == {"swap": 1}
    same = {name: content for name, content in whole.items() if name.startswith("experts/swap/")}
    assert same and {name: files[name] for name in same} == same


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_what_is_no_file_is_not_opened(kind, base, tasks, tmp_path):
    """A build refuses such a thing before; a finetuning has no library that looks."""
    path = tmp_path / "pack" / "1" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    os.mkfifo(path if kind == "fifo" else tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(RuntimeWarning, match=r"^warning\[W-CHECKPOINT\]"):
        assert checkpoint.load_checkpoint(path, "the run", {}, None) is None


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "source", base, ["ant", "bee"], ranks=2)


def cut_search(base, tasks, library, into):
    def stop(step):
        if step.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(LoraHub(steps=6), tasks, base, source=library, into=into, report=stop)
    (tried,) = into.glob(".work/*/*/copy.json")
    return tried


def resume_search(base, tasks, library, into):
    steps = []
    made = build(LoraHub(steps=6), tasks, base, source=library, into=into, report=lambda step: steps.append(step.step))
    return steps[0], files_of(made.path)


def forged(told):
    return {**told, "losses": [9.0, 1.0, 9.0]}


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (None, 4),
        (lambda told: told["losses"], 1),  # as an older lorary kept it
        (forged, 1),
        (lambda told: {**forged(told), "seal": None}, 1),
        (lambda told: {**forged(told), "seal": "\ud800"}, 1),
        (lambda told: {"losses": "[", "seal": "]"}, 1),
    ],
)
def test_a_search_goes_on_from_its_own_tries_only(damage, first, base, tasks, library, tmp_path):
    """Who forges their losses would choose the weights."""
    only = tasks.only(["copy"])
    whole = build(LoraHub(steps=6), only, base, source=library, into=tmp_path / "whole" / "lib")
    into = tmp_path / "cut" / "lib"
    tried = cut_search(base, only, library, into)
    if damage:
        tried.write_text(json.dumps(damage(json.loads(tried.read_text()))))
    with (
        warnings.catch_warnings() if first == 4 else pytest.warns(RuntimeWarning, match="W-CHECKPOINT.*not written by")
    ):
        if first == 4:
            warnings.simplefilter("error")
        assert resume_search(base, only, library, into) == (first, files_of(whole.path))


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff"])
def test_damaged_tries_are_made_anew(content, base, tasks, library, tmp_path):
    only = tasks.only(["copy"])
    tried = cut_search(base, only, library, tmp_path / "lib")
    tried.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="W-CHECKPOINT"):
        assert resume_search(base, only, library, tmp_path / "lib")[0] == 1


@pytest.mark.slow
def test_pi_tuning_goes_on_with_its_parts(base, tasks, tmp_path):
    """Its checkpoints lie in folders of their own, in the directory of each owner in turn."""
    known = build(BUILDER, tasks, base, into=tmp_path / "known" / "lib")
    builder = PiTuning(
        steps=6, batch_size=2, rank=2, n_evaluations=2, dropout=0.0, lr=1e-2, top_k=2, adapt_to=("swap",)
    )
    given = tasks.only(["copy", "swap"])

    def stop_at(number):
        def hear(step):
            if step.step == number:
                raise KeyboardInterrupt

        return hear

    undisturbed = build(builder, given, base, source=known, into=tmp_path / "whole" / "lib")
    into, steps = tmp_path / "cut" / "lib", []
    for number in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            build(builder, given, base, source=known, into=into, report=stop_at(number))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = build(builder, given, base, source=known, into=into, report=lambda step: steps.append(step.step))
    assert steps == [6]
    assert files_of(made.path) == files_of(undisturbed.path)
