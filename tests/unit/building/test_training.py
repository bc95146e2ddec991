"""Training: what a pack learns, what is kept, what is refused, and what a kill costs."""

import json
import math
import os
import reprlib
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import safetensors.torch
import torch

from lorary.adapters.lora import LoRA
from lorary.building.build import build
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.clustering.clusters import Clusters
from lorary.building.training import checkpoint
from lorary.building.training import loop as training
from lorary.building.training.batches import batch_rows
from lorary.building.training.job import expert_name
from lorary.disk.seal import seal
from lorary.errors import AdapterError, BuildError, LibraryError, LoraryError, ModelError, OptionError, TaskError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.contracts import files_of

QUICK = {"steps": 6, "batch_size": 2, "rank": 2, "n_evaluations": 3, "dropout": 0.0, "lr": 1e-2}


def only(toy, *names):
    return toy.only(names)


def test_experts_of_a_pack_learn_what_they_learn_alone(base, toy, tmp_path):
    tasks = only(toy, "copy", "swap", "upper")
    builder = Private(**QUICK)
    assert [len(pack) for pack in builder.packs(builder.plan(tasks), base)] == [3]
    together = build(builder, tasks, base, into=tmp_path / "together")
    for name in tasks:
        alone = build(builder, only(toy, name), base, into=tmp_path / name)
        found, expected = read_experts(together)[name], read_experts(alone)[name]
        for site, weights in expected.items():
            assert weights.b.abs().max() > 0.01
            torch.testing.assert_close(found[site].a, weights.a, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found[site].b, weights.b, atol=1e-5, rtol=1e-4)
        curves = [metrics(library, name) for library in (together, alone)]
        for one, other in zip(*curves, strict=True):
            for key in one:
                assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-5)


def metrics(library, name):
    return [json.loads(line) for line in (library[name].directory / "metrics.jsonl").read_text().splitlines()]


def test_an_expert_learns_its_task(base, toy, tmp_path):
    tasks = only(toy, "copy")
    library = build(Private(**{**QUICK, "steps": 40, "batch_size": 8}), tasks, base, into=tmp_path / "lib")
    curve = metrics(library, "copy")
    losses = [row["valid_loss"] for row in curve if "valid_loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    found = library["copy"].provenance
    assert found.metrics == {"valid_loss": min(losses[1:]), "best_step": found.metrics["best_step"]}

    before = sum(s.nats for s in base.log_likelihood(tasks["copy"].valid))
    with route(base, library, "uniform") as model:
        scores = model.log_likelihood(tasks["copy"].valid)
    assert -sum(s.nats for s in scores) / sum(s.n_tokens for s in scores) == pytest.approx(min(losses[1:]), rel=1e-4)
    assert -before / sum(s.n_tokens for s in scores) == pytest.approx(losses[0], rel=1e-4)


def test_the_best_weights_are_kept_not_the_last(base, toy, tmp_path, monkeypatch):
    measured = iter([[5.0], [1.0], [3.0], [2.0]])  # at the start, and after steps 2, 4 and 6
    monkeypatch.setattr(training, "_valid_losses", lambda run, live: next(measured))
    kept = build(Private(**QUICK), only(toy, "copy"), base, into=tmp_path / "kept")
    assert kept["copy"].provenance.metrics == {"valid_loss": 1.0, "best_step": 2.0}

    seen = []
    monkeypatch.setattr(training, "_valid_losses", lambda run, live: seen.append(snapshot(run)) or [9.0 - len(seen)])
    build(Private(**QUICK), only(toy, "copy"), base, into=tmp_path / "seen")
    found = read_experts(kept)["copy"]
    for site, weights in found.items():
        assert torch.equal(weights.a, seen[1][f"{site}.a"][0]) and torch.equal(weights.b.T, seen[1][f"{site}.b"][0])
        assert not torch.equal(weights.b.T, seen[3][f"{site}.b"][0])


def snapshot(run):
    layers = run.trainable.attachment.layers
    return {f"{site}.{side}": getattr(layers[site].bank, side).detach().clone() for site in layers for side in "ab"}


def test_only_completions_are_learnt(base, tmp_path):
    """The prompt's own tokens bring no gradient: with nothing to say but the end, only the end is learnt."""
    examples = tuple(Example(f"{i} {i}", "", "x") for i in range(4))
    library = build(Private(**QUICK), Tasks([Task("x", examples, examples)]), base, into=tmp_path / "lib")
    assert {row["n_tokens"] for row in metrics(library, "x")[1:]} == {2}


def test_all_experts_start_from_the_same_a_and_from_the_base(base, toy, tmp_path, monkeypatch):
    starts, evaluate = {}, training._evaluate
    monkeypatch.setattr(
        training,
        "_evaluate",
        lambda run, step, live: starts.setdefault(step, snapshot(run)) and evaluate(run, step, live),
    )
    build(Private(**QUICK), only(toy, "copy", "swap"), base, into=tmp_path / "lib")
    for name, p in starts[0].items():
        one, two = p.chunk(2)
        assert torch.equal(one, two)
        assert name.endswith(".a") == bool(p.any())


def test_without_validation_data_the_training_loss_decides(base, toy, tmp_path):
    task = toy["copy"].first(valid=0)
    library = build(Private(**QUICK), Tasks([task]), base, into=tmp_path / "lib")
    rows = {row["step"]: row for row in metrics(library, "copy")}
    best = min((2, 4, 6), key=lambda step: rows[step]["loss"])
    found = library["copy"].provenance.metrics
    assert found == {"valid_loss": rows[best]["loss"], "best_step": float(best)}


def test_provenance_says_where_an_expert_comes_from(base, toy, tmp_path):
    builder = Private(**QUICK)
    library = build(builder, only(toy, "copy"), base, into=tmp_path / "lib")
    found = library["copy"].provenance
    (job,) = builder.plan(only(toy, "copy"))
    assert (found.tasks, found.steps, found.seed, found.data_hash) == (("copy",), 6, 42, job.data_hash)
    assert found.builder["name"] == "private" and found.builder["rank"] == 2
    assert found.base_fingerprint == base.fingerprint
    assert found.extra == {"job": job.key(base.identity), "dtype": "float32", "max_tokens": base.max_tokens}
    assert sorted(p.name for p in library.path.iterdir()) == [".staging", "README.md", "experts", "library.json"]


def test_other_data_options_or_seeds_are_other_jobs(toy, base):
    keys = [
        builder.plan(tasks)[0].key(fingerprint)
        for builder, tasks, fingerprint in (
            (Private(**QUICK), only(toy, "copy"), base.fingerprint),
            (Private(**{**QUICK, "seed": 1}), only(toy, "copy"), base.fingerprint),
            (Private(**{**QUICK, "lr": 0.1}), only(toy, "copy"), base.fingerprint),
            (Private(**QUICK), Tasks([toy["copy"].first(train=5)]), base.fingerprint),
            (Private(**QUICK), only(toy, "swap"), base.fingerprint),
            (Private(**QUICK), only(toy, "copy"), {}),
        )
    ]
    assert len(set(keys)) == len(keys)


# ---- plans --------------------------------------------------------------------------------------


def test_the_three_plans(toy):
    tasks = only(toy, "copy", "swap", "upper")
    clusters = Clusters({"c1": ("upper",), "c0": ("swap", "copy")})
    assert [(j.name, j.tasks) for j in Private().plan(tasks)] == [(n, (n,)) for n in ("copy", "swap", "upper")]
    assert [(j.name, j.tasks) for j in Shared().plan(tasks)] == [("shared", ("copy", "swap", "upper"))]
    assert [(j.name, j.tasks) for j in PerCluster(clusters).plan(tasks)] == [
        ("c1", ("upper",)),
        ("c0", ("swap", "copy")),
    ]
    assert [j.n_steps for j in PerCluster(clusters, epochs=2, batch_size=5).plan(tasks)] == [5, 10]
    assert Shared(steps=7).plan(tasks)[0].describe() == {
        "expert": "shared", "tasks": ["copy", "swap", "upper"], "steps": 7, "examples": {"train": 36, "valid": 12},
    }  # fmt: skip


def test_packs_hold_jobs_of_one_length_and_of_bounded_size(toy, base):
    builder = Private(epochs=1, batch_size=8)
    tasks = Tasks([toy["copy"].first(train=4), toy["swap"].first(train=4), toy["upper"]])
    packs = builder.packs(builder.plan(tasks), base)
    assert [[job.name for job in pack] for pack in packs] == [["copy", "swap"], ["upper"]]
    wide = Private(epochs=1, batch_size=64)
    assert [len(pack) for pack in wide.packs(wide.plan(tasks), base)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("task", "name"), [("copy", "copy"), ("a/b c", "a-b-c"), ("..", "task"), ("x" * 99, "x" * 64), ("_é_", "task")]
)
def test_a_task_s_name_becomes_an_expert_s(task, name):
    assert expert_name(task) == name


# ---- refusals -----------------------------------------------------------------------------------


def test_a_task_without_training_examples_is_refused(toy):
    with pytest.raises(TaskError) as caught:
        Private().plan(Tasks([Task("poems", test=toy["copy"].test)]))
    assert str(caught.value) == (
        "error[E-DATA] expert 'poems': its tasks have no training examples. Check their splits."
    )


def test_a_cluster_without_its_data_is_refused(toy):
    with pytest.raises(BuildError) as caught:
        PerCluster(Clusters({"c0": ("copy", "poems")})).plan(toy)
    assert str(caught.value) == "error[E-CLUSTERS] cluster 'c0': no data for task 'poems'. Give its tasks."


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (Clusters({}), "error[E-CLUSTERS] there are no clusters to build experts of."),
        (Clusters({"c0": ("copy", "copy")}), "error[E-CLUSTERS] cluster 'c0' has task 'copy' twice."),
    ],
)
def test_clusters_that_make_no_sense_are_refused(toy, clusters, message):
    with pytest.raises(LoraryError) as caught:
        PerCluster(clusters).plan(toy)
    assert str(caught.value).startswith(message)
    with pytest.raises(OptionError, match=r"^error\[E-OPTION\] per_cluster: clusters={'c0': .*, expected Clusters\."):
        PerCluster({"c0": ("copy",)})


def test_a_run_that_diverges_is_refused_and_leaves_nothing(base, toy, tmp_path):
    with pytest.raises(
        BuildError, match=r"^error\[E-DIVERGED\] expert 'copy': the loss is nan at step \d+\. Lower lr="
    ) as caught:
        build(Private(**{**QUICK, "lr": 1e30}), only(toy, "copy"), base, into=tmp_path / "lib")
    assert caught.value.hint == "Lower lr=1e+30."
    assert not Library.open(tmp_path / "lib")


def test_another_build_of_the_same_name_is_refused(base, toy, tmp_path):
    build(Private(**QUICK), only(toy, "copy"), base, into=tmp_path / "lib")
    with pytest.raises(LibraryError) as caught:
        build(Private(**{**QUICK, "seed": 1}), only(toy, "copy"), base, into=tmp_path / "lib")
    assert str(caught.value) == (
        f"error[E-EXISTS] library '{tmp_path / 'lib'}' holds an expert 'copy' that was built with other options or "
        f"data. Give another --into, or remove the expert: `lorary remove {tmp_path / 'lib'} copy`."
    )


def test_unknown_targets_are_refused_before_anything_is_trained(base, toy, tmp_path):
    with pytest.raises(AdapterError, match=r"^error\[E-TARGET\] 'nose' names no linear layer of the base\."):
        build(Private(**{**QUICK, "targets": ("nose",)}), only(toy, "copy"), base, into=tmp_path / "lib")


def test_a_library_of_another_base_is_refused(base, toy, tmp_path):
    Library.create(tmp_path / "lib", base={**base.fingerprint, "weights": "other"})
    with pytest.raises(ModelError, match=r"^error\[E-BASE\] "):
        build(Private(**QUICK), only(toy, "copy"), base, into=tmp_path / "lib")


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup": 5.0}, "a share from 0 to 1"),
        ({"warmup": -1.0}, "a share from 0 to 1"),
        ({"warmup": NAN}, "a finite number"),
        ({"clip": INF}, "a finite number"),
        ({"epochs": INF}, "a finite number"),
        ({"alpha": NAN}, "a finite number"),
        ({"alpha": -16.0}, "more than 0"),
        ({"alpha": 1e7}, "at most 1,000,000"),
        ({"rank": 513}, "at most 512"),
        ({"rank": 2.5}, "a whole number"),
        ({"batch_size": 2.5}, "a whole number"),
        ({"seed": -1}, "a whole number from 0 to 4294967295"),
        ({"seed": 2**70}, "a whole number from 0 to 4294967295"),
        ({"targets": ()}, 'names of layers, as in ("attention",)'),
        ({"targets": ("attention", 3)}, "a list, [..., ...], each a text"),
    ],
)
@pytest.mark.parametrize("builder", [Private, Poly])
def test_options_out_of_bounds_are_refused_before_anything_is_trained(builder, options, expected):
    ((name, value),) = options.items()
    with pytest.raises(OptionError) as caught:
        builder(**options)
    shown = reprlib.repr(value)
    assert str(caught.value) == f"error[E-OPTION] {builder.__name__.lower()}: {name}={shown}, expected {expected}."


@pytest.mark.parametrize(("n", "steps"), [(1, 5), (3, 5), (8, 5), (9, 6), (20, 13)])
def test_every_example_is_seen_for_so_many_epochs(base, n, steps):
    task = Task("few", tuple(Example(f"q{i:02}", "a", "few") for i in range(n)))
    (job,) = Private(epochs=5.0, batch_size=8).plan(Tasks([task]))
    rows = job.pupil(base).train
    seen = [i for step in range(job.n_steps) for i in batch_rows(rows, 8, step, 42)]
    assert job.n_steps == steps and len(seen) >= 5 * n
    assert job.n_tokens(base) == len(seen) * len(rows[0])


@pytest.mark.parametrize("name", ["rank", "steps", "epochs", "batch_size", "lr", "clip", "n_evaluations", "max_valid"])
def test_options_without_meaning_are_refused(name):
    with pytest.raises(OptionError) as caught:
        Private(**{name: 0})
    assert str(caught.value) == f"error[E-OPTION] private: {name}=0, expected more than 0."


# ---- going on -----------------------------------------------------------------------------------


def test_more_tasks_may_join_later(base, toy, tmp_path):
    plans = []
    build(Private(**QUICK), only(toy, "copy"), base, into=tmp_path / "lib")
    build(
        Private(**QUICK),
        only(toy, "copy", "swap"),
        base,
        into=tmp_path / "lib",
        on_plan=lambda j, d: plans.append((j, d)),
    )
    assert sorted(Library.open(tmp_path / "lib")) == ["copy", "swap"]
    assert [(len(jobs), done) for jobs, done in plans] == [(2, ["copy"])]


def test_a_pack_broken_off_between_two_experts_comes_out_the_same(base, toy, tmp_path, monkeypatch):
    tasks = only(toy, "copy", "swap", "upper")
    whole = build(Private(**QUICK), tasks, base, into=tmp_path / "whole" / "lib")
    stage = Library.stage

    def fail_third(self, name):
        if name == "upper":
            raise KeyboardInterrupt
        return stage(self, name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Library, "stage", fail_third)
        build(Private(**QUICK), tasks, base, into=tmp_path / "cut" / "lib")
    assert sorted(Library.open(tmp_path / "cut" / "lib")) == ["copy", "swap"]
    steps = []
    resumed = build(Private(**QUICK), tasks, base, into=tmp_path / "cut" / "lib", report=steps.append)
    assert files_of(resumed.path) == files_of(whole.path)
    assert not steps, "the training was done, only its files were missing"


def rewritten(tensors=lambda found: found, facts=lambda found: found, *, resealed=True):
    """Damage that leaves a whole safetensors file; `resealed`: with hash and seal of what is in it now."""

    def damage(content, run):
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        changed, told = tensors(safetensors.torch.load(content)), facts(json.loads(header["facts"]))
        if resealed:
            header["sha256"] = checkpoint._hash(told, changed)
            header["seal"] = seal("checkpoint", run, header["sha256"])
        return safetensors.torch.save(changed, {**header, "facts": json.dumps(told)})

    return damage


def flipped(content, run):
    """One bit of the last number is another, as a disk may return it."""
    return content[:-1] + bytes([content[-1] ^ 1])


def zeroed(content, run):
    """The last page was never written: what a power cut leaves of a file that was renamed before it was synced."""
    return content[:-4096] + b"\0" * min(4096, len(content))


@pytest.fixture(scope="module")
def cut(_pico, toy, tmp_path_factory):
    """A build that was killed after its fourth step, what its checkpoints are sealed for, and one that ran through."""
    place, runs, save = tmp_path_factory.mktemp("cut"), [], training.save_checkpoint
    whole = build(Private(**QUICK), only(toy, "copy"), _pico, into=place / "whole" / "lib")

    def die(step):
        if step.step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
        patch.setattr(training, "save_checkpoint", lambda path, run, *rest: (runs.append(run), save(path, run, *rest)))
        build(Private(**QUICK), only(toy, "copy"), _pico, into=place / "cut" / "lib", report=die)
    return place / "cut" / "lib", runs.pop(), files_of(whole.path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content, run: b"",
        lambda content, run: b"\xff" * 100,
        lambda content, run: content[:-50],
        rewritten(tensors=lambda found: {"x": torch.zeros(2)}),
        rewritten(tensors=lambda found: {key: t[..., :1].contiguous() for key, t in found.items() if t.dim()}),
        rewritten(facts=lambda found: [1]),
        rewritten(facts=lambda found: {"step": 3, "curves": []}),
        rewritten(facts=lambda found: {"step": 3, "curves": [{"other": 1}]}),
        rewritten(tensors=lambda found: {k: t for k, t in found.items() if not k.startswith("exp_avg")}),
        rewritten(tensors=lambda found: {key: t + 0.01 for key, t in found.items()}, resealed=False),
        rewritten(facts=lambda found: {**found, "step": found["step"] - 1}, resealed=False),
        flipped,
        zeroed,
    ],
)
def test_a_damaged_checkpoint_costs_time_and_nothing_else(damage, cut, base, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    library, run, whole = cut
    into, steps = shutil.copytree(library, tmp_path / "cut" / "lib"), []
    (saved,) = into.glob(".work/*/*/checkpoint.safetensors")
    saved.write_bytes(damage(saved.read_bytes(), run))
    with pytest.warns(RuntimeWarning, match=r"^warning\[W-CHECKPOINT\] .*starts anew"):
        resumed = build(Private(**QUICK), only(toy, "copy"), base, into=into, report=steps.append)
    assert steps[0].step == 1
    assert files_of(resumed.path) == whole


def interrupted(owner, name, monkeypatch, *, at_call):
    """Replace a function by one that is interrupted when it is called for the n-th time."""
    calls, do = [], getattr(owner, name)

    def count(*args, **options):
        calls.append(None)
        if len(calls) == at_call:
            raise KeyboardInterrupt
        return do(*args, **options)

    monkeypatch.setattr(owner, name, count)


@pytest.mark.parametrize(
    ("owner", "name", "at_call", "saved"),
    [
        (training, "_report", 1, 1),
        (training, "_report", 5, 5),
        (training, "row_losses", 1, None),  # the validation of step 0: nothing is learned yet
        (training, "row_losses", 2, None),
        (training, "row_losses", 4, 2),  # forward and backward change nothing that counts
        (training, "_valid_losses", 2, 4),  # between a step and its validation
        (training, "_valid_losses", 3, 8),
        (training, "_note_validation", 3, None),  # half of the pupils are judged: it is no whole step
        (torch.optim.AdamW, "step", 3, None),
    ],
)
def test_interrupted_anywhere_a_run_goes_on_from_its_last_whole_step(
    owner, name, at_call, saved, base, toy, tmp_path, monkeypatch
):
    """The clock alone would save nothing: the run is far shorter than what lies between two checkpoints."""
    builder, tasks = Private(**{**QUICK, "steps": 8, "n_evaluations": 2}), only(toy, "copy")
    whole = build(builder, tasks, base, into=tmp_path / "whole" / "lib")
    into = tmp_path / "cut" / "lib"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(owner, name, patch, at_call=at_call)
        build(builder, tasks, base, into=into)
    checkpoints = list(into.glob(".work/*/*/checkpoint.safetensors"))
    assert len(checkpoints) == (saved is not None)
    steps = []
    resumed = build(builder, tasks, base, into=into, report=steps.append)
    assert [step.step for step in steps] == list(range((saved or 0) + 1, 9))
    assert resumed.hash == whole.hash
    assert files_of(resumed.path) == files_of(whole.path)


def test_a_build_leaves_the_random_state_and_the_base_alone(base, toy, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build(Private(**{**QUICK, "dropout": 0.5}), only(toy, "copy"), base, into=tmp_path / "lib")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None and not p.requires_grad for p in base.hf.parameters())


def test_fresh_weights_follow_the_kind(base):
    site = base.target_sites(["q_proj"])[0]
    weights = LoRA(rank=3).fresh(site, torch.Generator().manual_seed(1))
    assert weights.a.shape == (3, 32) and weights.b.shape == (32, 3)
    assert 0.8 * 32**-0.5 < weights.a.abs().max() <= 32**-0.5


SCRIPT = """
import sys
from pathlib import Path
from lorary.building.training import loop as train
from lorary.building.builders.private import Private
from lorary.building.build import build
from lorary.tasks.toy import toy_tasks
from lorary.testing.pico import pico_base

train.CHECKPOINT_EVERY_S = 0.0
tasks = toy_tasks(12, 4, 4).only(["copy", "swap"])
builder = Private(steps=60, batch_size=2, rank=2, dropout=0.1, lr=1e-2)
build(builder, tasks, pico_base(), into=Path(sys.argv[1]), report=lambda step: print(step.step, flush=True))
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path):
    def start(path):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    with start(tmp_path / "whole" / "lib") as whole, start(tmp_path / "cut" / "lib") as killed:
        for line in killed.stdout:
            if int(line) == 20:
                time.sleep(0.05)  # somewhere inside a step or a checkpoint
                killed.send_signal(signal.SIGKILL)
        whole.stdout.read()
    assert (whole.returncode, killed.returncode) == (0, -signal.SIGKILL)
    assert not list((tmp_path / "cut" / "lib" / "experts").iterdir())
    with start(tmp_path / "cut" / "lib") as resumed:
        first = int(resumed.stdout.readline())
        resumed.stdout.read()
    assert resumed.returncode == 0
    assert 20 <= first < 60
    assert files_of(tmp_path / "whole" / "lib") == files_of(tmp_path / "cut" / "lib")
