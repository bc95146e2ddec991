"""Full fine-tuning: a new base that opens anywhere, the same after a kill, and the old base untouched."""

import json
import os
import threading
import time
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorary.building.builders.private import Private
from lorary.building.finetune import FullFineTuning, finetune
from lorary.building.training import loop as training
from lorary.errors import LibraryError, OptionError
from lorary.model.base.base_model import load_base
from lorary.testing.contracts import Killed, files_of
from lorary.testing.pico import ARCHITECTURES, pico_base

QUICK = FullFineTuning(steps=6, batch_size=4, n_evaluations=3, lr=1e-3)


def hashes(base):
    return {name: float(p.double().abs().sum()) for name, p in base.hf.named_parameters()}


def loss(base, task):
    scores = base.log_likelihood(task.valid)
    return -sum(s.nats for s in scores) / sum(s.n_tokens for s in scores)


def test_the_new_base_opens_and_is_what_was_trained(base, toy, tmp_path):
    tasks, before = toy.only(["copy"]), hashes(base)
    into = finetune(QUICK, tasks, base, into=tmp_path / "full")
    facts = json.loads((into / "training.json").read_text())
    opened = load_base(str(into), dtype="float32", device="cpu")
    assert loss(opened, tasks["copy"]) == pytest.approx(facts["metrics"]["valid_loss"], rel=1e-4)
    assert loss(opened, tasks["copy"]) < loss(base, tasks["copy"])
    assert opened.fingerprint["weights"] != base.fingerprint["weights"]
    assert all(value != before[name] for name, value in hashes(opened).items()), "all weights were trained"
    assert hashes(base) == before and not any(p.requires_grad for p in base.hf.parameters())
    assert AutoTokenizer.from_pretrained(into)("ab")["input_ids"] == base.tokenizer("ab")["input_ids"]
    assert (facts["steps"], facts["tasks"], facts["base_fingerprint"]) == (6, ["copy"], base.fingerprint)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_tied_weights_stay_tied(toy, tmp_path):
    base = pico_base()
    base.hf.config.tie_word_embeddings = True
    base.hf.tie_weights()
    into = finetune(QUICK, toy.only(["copy"]), base, into=tmp_path / "full")
    hf = AutoModelForCausalLM.from_pretrained(into)
    assert hf.get_output_embeddings().weight is hf.get_input_embeddings().weight


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trainable_copy_is_the_model_again(architecture):
    base = pico_base(architecture, dtype=torch.bfloat16)
    copy = base.trainable_copy()
    assert copy.dtype == torch.float32
    for (name, ours), (other, theirs) in zip(base.hf.named_parameters(), copy.hf.named_parameters(), strict=True):
        assert name == other and torch.equal(ours.float(), theirs) and ours.data_ptr() != theirs.data_ptr()


@pytest.mark.parametrize("step", [3, 6])
def test_a_killed_run_goes_on_to_the_same_bytes(base, toy, tmp_path, monkeypatch, step):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    tasks = toy.only(["copy", "swap"])
    whole = finetune(QUICK, tasks, base, into=tmp_path / "whole" / "full")

    def die(reached):
        if reached.step == step:
            raise Killed

    into = tmp_path / "cut" / "full"
    with pytest.raises(Killed):
        finetune(QUICK, tasks, base, into=into, report=die)
    assert not into.exists()
    steps = []
    finetune(QUICK, tasks, base, into=into, report=steps.append)
    assert steps[0].step == step
    assert files_of(into) == files_of(whole)
    steps.clear()
    finetune(QUICK, tasks, base, into=into, report=steps.append)
    assert not steps


def test_what_is_there_is_not_written_over(base, toy, tmp_path):
    (tmp_path / "full").mkdir()
    with pytest.raises(LibraryError) as caught:
        finetune(QUICK, toy.only(["copy"]), base, into=tmp_path / "full")
    assert str(caught.value) == (
        f"error[E-EXISTS] '{tmp_path / 'full'}' exists and was not made by this run: other options, data or base. "
        "Give another --into, or remove it."
    )


def test_a_base_of_another_precision_makes_another_base(base, toy, tmp_path):
    tasks = toy.only(["copy"])
    finetune(QUICK, tasks, base, into=tmp_path / "full")
    with pytest.raises(LibraryError) as caught:
        finetune(QUICK, tasks, pico_base(dtype=torch.bfloat16), into=tmp_path / "full")
    assert str(caught.value) == (
        f"error[E-EXISTS] '{tmp_path / 'full'}' exists: it was made with dtype=float32, not dtype=bfloat16. "
        "Give --dtype float32: the default depends on the machine. Give another --into, or remove it."
    )


@pytest.mark.slow
def test_of_two_that_are_asked_for_the_same_one_trains(toy, tmp_path):
    tasks, into = toy.only(["copy"]), tmp_path / "full"
    began, told, ends = threading.Event(), {"first": [], "second": []}, []

    def hear(name, step):
        told[name].append(step.step)
        began.set()
        if name == "first" and step.step == 3:
            time.sleep(0.3)  # the second comes meanwhile

    def work(name):
        ends.append(finetune(QUICK, tasks, pico_base(), into=into, report=partial(hear, name)))

    threads = [threading.Thread(target=work, args=(name,)) for name in told]
    threads[0].start()
    assert began.wait(120)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert ends == [into, into] and told == {"first": [1, 2, 3, 4, 5, 6], "second": []}
    assert (into / "model.safetensors").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_a_builder_s_options_are_refused(base, toy, tmp_path):
    with pytest.raises(OptionError, match=r"options is Private\(.*, expected FullFineTuning\(...\)"):
        finetune(Private(), toy.only(["copy"]), base, into=tmp_path / "full")


def test_a_full_disk_is_told_before_training(base, toy, tmp_path, full_disk):
    steps = []
    with full_disk(), pytest.raises(LibraryError) as caught:
        finetune(QUICK, toy.only(["copy"]), base, into=tmp_path / "full", report=steps.append)
    assert str(caught.value).startswith(f"error[E-DISK] '{tmp_path / 'full'}': the disk is full (")
    assert not steps
    assert list(tmp_path.iterdir()) == []


def test_the_umask_says_who_may_read_the_new_base(base, toy, tmp_path):
    before = os.umask(0o022)
    try:
        into = finetune(QUICK, toy.only(["copy"]), base, into=tmp_path / "full")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in into.iterdir()} == {0o644}
