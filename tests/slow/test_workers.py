"""Real worker processes: their number, their deaths and their parent's death change nothing but the time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_builders import Careful, Deadly, Hanging, Watched

from lorary.building.build import build, build_recipe
from lorary.building.recipe import Recipe, read_recipe
from lorary.building.survey_library import survey_library as survey
from lorary.disk.processes import is_running
from lorary.errors import BuildError
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base
from lorary.work.claims import read_lease
from lorary.work.share import torch_threads
from recipe_files import write_base, write_tasks

pytestmark = pytest.mark.slow

NAMES = ("copy", "join", "swap", "upper")
OPTIONS = {"steps": 30, "batch_size": 2, "rank": 2, "n_evaluations": 2, "lr": 1e-2, "pause_s": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory, toy):
    place = tmp_path_factory.mktemp("data")
    return write_base(place / "pico", pico_base()), write_tasks(place / "tasks", toy.only(NAMES))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Let workers find the builders of these tests."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))


def recipe(data, into, builder=None):
    builder = builder or Careful(**OPTIONS)
    return Recipe(builder=builder, into=into, base=str(data[0]), tasks=(str(data[1]),))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    into = tmp_path_factory.mktemp("undisturbed") / "lib"
    library = build_recipe(recipe(data, into, Careful(**OPTIONS)), backend="local:workers=1")
    return library.hash, files_of(into)


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_makes_the_same_library(data, tmp_path, undisturbed, workers):
    into, steps, plans = tmp_path / "lib" / "lib", [], []
    library = build_recipe(
        recipe(data, into),
        backend=f"local:workers={workers}",
        report=steps.append,
        on_plan=lambda jobs, done: plans.append(([(job.name, job.n_steps) for job in jobs], list(done))),
    )
    assert library.hash == undisturbed[0]
    assert files_of(into / "experts") == {
        name.removeprefix("experts/"): h for name, h in undisturbed[1].items() if name.startswith("experts/")
    }
    assert not (into / ".work").exists()
    assert plans == [([(name, 30) for name in NAMES], [])]
    assert {step.job: step.step for step in steps} == dict.fromkeys(NAMES, 30)
    assert {step.job for step in steps if step.loss is not None} == set(NAMES), "as their leases tell"


@pytest.mark.parametrize("workers", ["", "workers=1", "workers=2", "workers=4"], ids=["default", "1", "2", "4"])
def test_threads_follow_from_the_packs_and_not_from_the_workers(data, tmp_path, monkeypatch, workers):
    """On four cores two packs get two threads each, whoever runs them."""
    monkeypatch.setenv("THREADS_SEEN", str(tmp_path))
    made = recipe(data, tmp_path / "lib", Watched(**{**OPTIONS, "steps": 4, "pause_s": 0.0}))
    with torch_threads(4):
        library = build_recipe(made, backend=f"local:{workers}")
    assert [(tmp_path / name).read_text() for name in ("copy", "swap")] == ["2", "2"]
    with torch_threads(2):
        alone = build(made.builder, made.read_tasks(), load_base(made.base), into=tmp_path / "alone")
    assert library.hash == alone.hash


def owners(into, least_step=0):
    """Give the process ids of those who work and have come so far, by pack."""
    leases = {pack: read_lease(pack) for pack in (into / ".work").glob("*") if pack.is_dir()}
    living = {pack: lease for pack, lease in leases.items() if lease and not lease.is_free and not lease.is_dead}
    return {pack: lease.pid for pack, lease in living.items() if lease.step >= least_step}


def test_a_killed_worker_is_replaced_and_its_pack_taken_over(data, tmp_path, undisturbed):
    into, killed, seen = tmp_path / "lib", [], []

    def kill_one(step):
        if killed or not owners(into, least_step=5):
            return
        pack, pid = next(iter(owners(into, least_step=5).items()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        deadline = time.monotonic() + 300
        while (lease := read_lease(pack)) is None or lease.pid == pid:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        seen.append((lease.first_step, lease.tries))

    library = build_recipe(recipe(data, into), backend="local:workers=2", report=kill_one)
    assert library.hash == undisturbed[0]
    assert not is_running(killed[0])
    ((first_step, tries),) = seen
    assert first_step >= 5
    assert tries == 1, "it had got further, so this was no try in vain"


def test_a_job_that_kills_its_workers_fails_alone(data, tmp_path):
    into = tmp_path / "lib"
    deadly = Deadly(**{**OPTIONS, "pause_s": 0.0}, victim="join")
    with pytest.raises(BuildError) as caught:
        build_recipe(recipe(data, into, deadly), backend="local:workers=2")
    message = str(caught.value)
    assert message.startswith(
        "error[E-JOBS] a pack of jobs failed: join: error[E-WORKER] 3 workers died at it, the last after step 0: "
        "killed, out of memory, or hung for 1800 s. (log: .work/logs/"
    )
    assert sorted(Library.open(into)) == ["copy", "swap", "upper"]
    assert survey(into).counts == {"done": 3, "running": 0, "stale": 0, "failed": 1, "waiting": 0}


def test_a_hung_worker_is_ended_and_its_job_done_by_the_next(data, tmp_path, undisturbed):
    """In its fifth step it waits for ever, while its heart would beat on."""
    into, told = tmp_path / "lib", set()
    hanging = Hanging(**OPTIONS, victim="join", marker=str(tmp_path / "hung"))

    def read_logs(_):
        told.update(line for log in into.glob(".work/logs/*.log") for line in log.read_text().splitlines())

    library = build_recipe(recipe(data, into, hanging), backend="local:workers=2,hang_s=2", report=read_logs)
    assert (tmp_path / "hung").exists()
    assert library.hash == undisturbed[0]
    assert "ended, since its job made no step for too long: where it hung stands above." in told
    assert any(line.endswith("in wait_for_ever") for line in told)


def test_workers_that_cannot_work_say_why(data, tmp_path):
    wrong = Recipe(builder=Careful(**OPTIONS), into=tmp_path / "lib", base="./nowhere", tasks=(str(data[1]),))
    with pytest.raises(BuildError) as caught:
        build_recipe(wrong, backend="local:workers=2")
    assert "error[E-BASE] there is no directory './nowhere'." in str(caught.value)
    assert "Its log: " in str(caught.value)


# ---- the parent's end ---------------------------------------------------------------------------

BUILD = """
import sys
from pathlib import Path
from lorary.cli.main import main
main(sys.argv[1:])
"""


def start_parent(data, into):
    spec = "private:steps=3000,batch_size=2,rank=2"
    line = ["build", data[1], "--method", spec, "--base", data[0], "--into", into, "--workers", 2]
    parent = subprocess.Popen([sys.executable, "-c", BUILD, *map(str, line)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while len(owners(into)) < 1:
        assert parent.poll() is None, parent.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return parent


def wait_until_dead(pids):
    deadline = time.monotonic() + 120
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_ends_all_and_leaves_the_packs(data, tmp_path):
    into = tmp_path / "lib"
    with start_parent(data, into) as parent:
        pids = list(owners(into).values())
        parent.send_signal(signal.SIGINT)
        assert parent.wait(120) == 130
        assert parent.stderr.read().splitlines()[-1] == ("interrupted. Run the same command again: it resumes.")
    assert not any(map(is_running, pids))
    leases = [json.loads(path.read_text()) for path in into.glob(".work/*/*/lease.json")]
    assert leases and all(lease["is_free"] for lease in leases)
    assert survey(into).counts["waiting"] == 4


def test_workers_whose_parent_was_killed_stop(data, tmp_path):
    into = tmp_path / "lib"
    with start_parent(data, into) as parent:
        pids = list(owners(into).values())
        parent.kill()
    wait_until_dead(pids)
    assert not owners(into)


# ---- slurm --------------------------------------------------------------------------------------


def test_the_elements_of_a_slurm_array_build_one_library(data, tmp_path):
    """The recipe as Slurm would start it, twice at once."""
    into, lorary = tmp_path / "lib", tmp_path / "lorary"
    lorary.write_text(f'#!/bin/sh\nexec {sys.executable} -m lorary.cli.main "$@"\n')
    lorary.chmod(0o755)
    text = f"tasks = '{data[1]}'\nbase = '{data[0]}'\ninto = '{into}'\n[builder]\nname = 'private'\nsteps = 4\n"
    (tmp_path / "recipe.toml").write_text(text)
    script = Path(__file__).parents[2] / "recipes" / "slurm.sh"
    environment = {**os.environ, "LORARY": str(lorary), "SLURM_ARRAY_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "1"}
    elements = [
        subprocess.Popen(
            ["bash", str(script), str(tmp_path / "recipe.toml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "SLURM_ARRAY_TASK_ID": str(number)},
        )
        for number in (1, 2)
    ]
    told = [element.communicate(timeout=120) for element in elements]
    assert [element.returncode for element in elements] == [0, 0], told
    assert {out for out, _ in told} == {f"{into}: 4 experts\n"}
    alone = build_recipe(read_recipe(tmp_path / "recipe.toml", {"into": tmp_path / "alone"}), backend="local:threads=1")
    assert Library.open(into).hash == alone.hash
    assert files_of(into / "experts") == files_of(alone.path / "experts")
