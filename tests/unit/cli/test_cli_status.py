"""`lorary status` and who builds: what is parsed, printed and returned."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_line import Run, World
from test_cli_light import run_apart

from lorary.building.build_work import Build
from lorary.building.recipe import make_recipe
from lorary.errors import BuildError
from lorary.testing.pico import pico_base
from lorary.work.backend import Order
from lorary.work.claims import Watch, claim
from lorary.work.worker import join


@pytest.fixture
def begun(world: World, tmp_path: Path) -> Path:
    """A library in which two packs are claimed, one of them failed, and one was built."""
    into = tmp_path / "lib"
    builder = make_recipe({"builder": "private:steps=3,batch_size=32", "into": into}, "").builder
    tasks = make_recipe({"builder": "private", "into": into, "tasks": str(world.tasks)}, "").read_tasks()
    worker = join(Order(Build(builder, tasks, pico_base(), into), "one"))
    assert worker is not None
    done, running, failed = worker.packs
    assert worker.try_pack(done)
    claimed = claim(worker.worklist.pack_directory(running), Watch())
    assert claimed is not None
    claimed.reached(1, {"swap": 0.25})
    claimed.beat()
    worker.worklist.fail(failed, "error[E-DIVERGED] the loss is nan.", "Traceback", "one")
    return into


def test_status_in_words(run: Run, begun: Path) -> None:
    told = run("status", begun)
    head, first, second, summary = told.out.splitlines()
    assert head.split() == ["job", "state", "steps", "loss", "worker", "since"]
    assert first.split()[:4] == ["swap", "running", "1/3", "0.250"]
    (log,) = begun.glob(".work/logs/*.log")
    assert " ".join(second.split()) == (
        f"upper failed 0/3 error[E-DIVERGED] the loss is nan. (log: {log.relative_to(begun)})"
    )
    assert re.fullmatch(r"3 jobs: 1 done, 1 running, 1 failed; about \d+ s left\.", summary)
    assert (told.code, told.err) == (3, "")


@pytest.mark.slow
def test_status_in_json_loads_nothing_heavy(begun: Path) -> None:
    told = run_apart("status", begun, "--json")
    assert told.stderr.splitlines() == ["LOADED"]
    found = json.loads(told.stdout)
    assert [(job["name"], job["state"]) for job in found["jobs"]] == [
        ("copy", "done"), ("swap", "stale" if found["counts"]["stale"] else "running"), ("upper", "failed"),
    ]  # fmt: skip
    assert found["counts"] == {"done": 1, "running": 1, "stale": 0, "failed": 1, "waiting": 0}
    assert told.returncode == 3


def test_status_of_what_is_done(run: Run, world: World) -> None:
    told = run("status", world.library)
    assert (told.code, told.out) == (0, "3 jobs: 3 done.\n")


def test_status_of_nothing(run: Run, tmp_path: Path) -> None:
    assert run("status", tmp_path / "none").err.startswith("error[E-LIBRARY] there is no directory ")


# ---- backends -----------------------------------------------------------------------------------


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    heard: dict[str, Any] = {}

    def build_recipe(recipe: Any, **options: Any) -> Any:
        heard.update(options)
        raise BuildError("E-JOBS", "stop here.")

    monkeypatch.setattr("lorary.building.build.build_recipe", build_recipe)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return heard


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "Local(workers=None, gpus=(), threads=None, hang_s=1800.0)"),
        ("--workers 4", "Local(workers=4, gpus=(), threads=None, hang_s=1800.0)"),
        ("--backend local:threads=2 --workers 4", "Local(workers=4, gpus=(), threads=2, hang_s=1800.0)"),
        ("--backend ray:address=auto,gpus=0.25", "Ray(address='auto', cpus=1.0, gpus=0.25, retries=3, hang_s=1800.0)"),
    ],
)
def test_backends_are_chosen(run: Run, world: World, heard: dict[str, Any], given: str, expected: str) -> None:
    run("build", world.tasks, "--method", "private", "--base", world.base, "--into", "x", *given.split())
    assert repr(heard["backend"]) == expected
    assert heard["run"] is None


def test_workers_of_a_slurm_array_belong_together(
    run: Run, world: World, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    line = ("build", world.tasks, "--method", "private", "--base", world.base, "--into", "x")
    run(*line)
    assert heard["run"] == "4711"
    run(*line, "--run", "mine")
    assert heard["run"] == "mine"


def test_only_local_has_workers(run: Run, world: World) -> None:
    line = ("build", world.tasks, "--method", "private", "--into", "x", "--backend", "ray", "--workers", "2")
    answer = run(*line)
    assert answer.err.splitlines()[-1] == "Error: Invalid value for --workers: only the local backend has them."
    assert answer.code == 2
