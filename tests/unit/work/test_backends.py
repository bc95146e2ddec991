"""Backends without their processes: what they share out, hand over and refuse. The processes: tests/slow."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lorary.building.build import build_recipe
from lorary.building.build_work import RecipeBuild
from lorary.building.builders.private import Private
from lorary.building.recipe import Recipe
from lorary.errors import BuildError, LibraryError, LoraryError, OptionError
from lorary.folder import BACKENDS
from lorary.work.backend import Backend, Order
from lorary.work.backends import local
from lorary.work.backends.local import Local
from lorary.work.backends.ray import Ray
from lorary.work.jobs import Listener
from lorary.work.share import torch_threads
from lorary.work.waiting import SETTINGS, short_waits
from lorary.work.worker import join
from recipe_files import write_base, write_tasks

QUICK = Private(steps=2, batch_size=2, rank=2, n_evaluations=1)


@pytest.fixture
def recipe(base, toy, tmp_path):
    tasks = write_tasks(tmp_path / "tasks", toy.only(["copy", "swap"]))
    return Recipe(
        builder=QUICK, into=tmp_path / "lib", base=str(write_base(tmp_path / "pico", base)), tasks=(str(tasks),)
    )


def order_of(recipe, **how):
    return Order(RecipeBuild(recipe), "run", **how)


@pytest.mark.parametrize("name", BACKENDS.names())
def test_every_backend_is_frozen_options_with_defaults(name):
    backend = BACKENDS.parse(name)
    assert isinstance(backend, Backend)
    assert backend == BACKENDS.load(name)()
    assert hash(backend) == hash(BACKENDS.load(name)())


# ---- here ---------------------------------------------------------------------------------------


def test_without_workers_it_works_here(recipe):
    steps, plans, told = [], [], []
    library = build_recipe(recipe, report=steps.append, on_plan=lambda *plan: plans.append(plan), tell=told.append)
    assert sorted(library) == ["copy", "swap"]
    assert sorted((step.job, step.step) for step in steps) == [("copy", 1), ("copy", 2), ("swap", 1), ("swap", 2)]
    assert [(len(jobs), done) for jobs, done in plans] == [(2, [])]
    assert told == [f"loading base {recipe.base} ..."]
    assert join(order_of(recipe)) is None, "all is done"


def test_an_order_travels_without_those_who_listen(recipe):
    listener = Listener(lambda *_: None, lambda _: None, print)
    order = order_of(recipe, listener=listener, threads=2, hang_s=9.0)
    assert pickle.loads(pickle.dumps(order.for_others())) == order_of(recipe, threads=2, hang_s=9.0)


def test_errors_travel():
    error = BuildError("E-DIVERGED", "the loss is nan.", "Lower lr.")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code, again.hint) == (BuildError, str(error), "E-DIVERGED", "Lower lr.")


# ---- local --------------------------------------------------------------------------------------


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local.torch.cuda, "device_count", lambda: 2)
    given = [Local(workers=3).environment(number) for number in range(3)]
    assert given == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")]
    assert Local(workers=2, gpus=("5", "7")).environment(1)["CUDA_VISIBLE_DEVICES"] == "7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert Local(workers=2).environment(1)["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Local(workers=2).environment(1) == {}


def test_threads_of_workers_wait_briefly_unless_the_user_said_how_they_wait(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert Local(workers=2).environment(1) == {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
    for name in SETTINGS:
        with monkeypatch.context() as user:
            user.setenv(name, "1")
            assert Local(workers=2).environment(1) == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP alone can be asked")
def test_torch_hears_how_its_threads_are_to_wait():
    unsaid = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment = {**unsaid, **short_waits(unsaid), "OMP_DISPLAY_ENV": "verbose"}
    told = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert "GOMP_SPINCOUNT = '1000'" in told.stderr


def test_logs_of_workers_are_not_written_through_a_link(recipe, tmp_path):
    (tmp_path / "home").mkdir()
    (recipe.into / ".work").mkdir(parents=True)
    (recipe.into / ".work" / "logs").symlink_to(tmp_path / "home")
    with pytest.raises(LibraryError, match=r"E-PATH.*logs' is no plain file or directory of a build"):
        build_recipe(recipe, backend=Local(workers=2))
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("options", "threads"), [({}, 2), ({"threads": 3}, 3)])
def test_a_build_in_this_process_uses_the_threads_of_its_packs_and_gives_them_back(recipe, options, threads):
    """Two packs on four cores."""
    apart = replace(recipe, builder=replace(QUICK, steps=1, batch_size=256))
    before, seen = torch.get_num_threads(), []
    with torch_threads(4):
        build_recipe(apart, backend=Local(workers=1, **options), report=lambda _: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == 4
    assert set(seen) == {threads}
    assert torch.get_num_threads() == before


def test_a_build_in_this_process_has_the_backends_options(recipe, monkeypatch):
    heard = []
    monkeypatch.setattr(local, "work_here", heard.append)
    Local(workers=1, threads=2, hang_s=7.0).work(order_of(recipe))
    assert heard == [order_of(recipe, threads=2, hang_s=7.0)]


def test_a_builder_that_only_this_process_knows_works_here(recipe, monkeypatch):
    monkeypatch.setattr(QUICK.__class__, "__module__", "__main__")
    monkeypatch.setattr(local, "workers_for", lambda *_, **__: 1 / 0)
    assert Local()._workers(order_of(recipe)) == 1


def test_workers_that_die_one_after_the_other_are_not_replaced_for_ever(recipe, monkeypatch, tmp_path):
    """As where memory is so short that none gets anywhere."""
    deadly = tmp_path / "deadly"
    deadly.write_text("#!/bin/sh\nkill -9 $$\n")
    deadly.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deadly))
    starts, start = [], local._Crew.start
    monkeypatch.setattr(local._Crew, "start", lambda self, number: starts.append(number) or start(self, number))
    with pytest.raises(BuildError) as caught:
        build_recipe(recipe, backend="local:workers=2")
    logs = {f"worker {p.name[7]}: ended by SIGKILL. Its log: {p}." for p in (recipe.into / ".work" / "logs").iterdir()}
    assert str(caught.value) in {f"error[E-WORKER] {line}" for line in logs}
    assert len(starts) == 2 + 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("local:workers=0", "error[E-OPTION] local: workers=0, expected more than 0."),
        ("local:threads=0", "error[E-OPTION] local: threads=0, expected more than 0."),
        ("ray:cpus=0", "error[E-OPTION] ray: cpus=0.0, expected more than 0."),
        ("ray:gpus=-1", "error[E-OPTION] ray: gpus=-1.0, retries=3, expected 0 or more."),
        ("rey", "error[E-NAME] unknown backend 'rey'. Did you mean 'ray'? Known: local, ray."),
    ],
)
def test_what_has_no_meaning_is_refused(spec, message):
    with pytest.raises(LoraryError) as caught:
        BACKENDS.parse(spec)
    assert str(caught.value) == message


# ---- ray ----------------------------------------------------------------------------------------


def test_without_ray_the_message_says_how_to_get_it(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError) as caught:
        Ray().work(order_of(recipe))
    assert str(caught.value) == (
        'error[E-EXTRA] backend ray needs ray>=2.54, found none. Run: pip install "ray>=2.54".'
    )
