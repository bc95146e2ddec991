"""How a machine is shared out: threads by packs, workers by what is left."""

from dataclasses import replace

import pytest
import torch

from lorary.building.build_work import RecipeBuild
from lorary.building.builders.private import Private
from lorary.building.recipe import Recipe
from lorary.library.layout import Layout
from lorary.work import share
from lorary.work.share import free_bytes, threads_for, torch_threads, workers_for
from recipe_files import write_base, write_tasks

GIB = 1 << 30
APART = Private(steps=2, batch_size=256, rank=2)  # packs of one


@pytest.fixture
def recipe(base, toy, tmp_path):
    tasks = write_tasks(tmp_path / "tasks", toy.only(["copy", "join", "swap", "upper"]))
    pico = write_base(tmp_path / "pico", base)
    return Recipe(builder=APART, into=tmp_path / "lib", base=str(pico), tasks=(str(tasks),))


def workers_of(recipe, **options):
    return workers_for(lambda: RecipeBuild(recipe).needs, **options)


@pytest.fixture
def machine(monkeypatch):
    """Make a machine of n cores and some memory."""

    def make(cores, free=1000 * GIB):
        monkeypatch.setattr(share.torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(share, "free_bytes", lambda: free)

    return make


@pytest.mark.parametrize(
    ("cores", "n_packs", "threads"), [(2, 1, 2), (2, 2, 1), (2, 100, 1), (8, 3, 2), (8, 1, 8), (1, 1, 1), (8, 0, 8)]
)
def test_cores_are_shared_out_to_packs(machine, cores, n_packs, threads):
    machine(cores)
    assert threads_for(n_packs) == threads


@pytest.mark.parametrize(
    ("cores", "options", "workers"),
    [
        (1, {}, 1),
        (2, {}, 2),
        (4, {}, 4),
        (16, {}, 4),  # with four threads each
        (6, {}, 4),  # packs there are; with one thread
        (16, {"threads": 8}, 2),
        (4, {"threads": 8}, 1),
        (16, {"n_gpus": 2}, 2),
        (1, {"n_gpus": 8}, 4),
    ],
)
def test_workers_fill_the_cores_with_at_most_one_per_pack(recipe, machine, cores, options, workers):
    machine(cores)
    assert workers_of(recipe, **options) == workers


def test_packs_that_are_done_need_no_worker_and_keep_their_threads(recipe, machine):
    machine(16)
    for name in ("copy", "join", "swap"):
        Layout(recipe.into).expert(name).mkdir(parents=True)
    assert workers_of(recipe) == 1
    Layout(recipe.into).expert("upper").mkdir()
    assert workers_of(recipe) == 1


def test_experts_of_one_pack_need_one_worker(recipe, machine):
    machine(4)
    assert workers_of(replace(recipe, builder=replace(APART, batch_size=2))) == 1


@pytest.mark.parametrize(("free", "workers"), [(0, 1), (2.5 * GIB, 1), (6.5 * GIB, 3), (None, 4)])
def test_memory_bounds_the_workers(recipe, machine, free, workers):
    """Each holds a base and a step; where memory can't be asked, it is no bound."""
    machine(4, free if free is None else int(free))
    assert workers_of(recipe) == workers


def test_a_containers_limit_counts_as_well(monkeypatch):
    files = {"/proc/meminfo": "MemTotal:  9000 kB\nMemAvailable:    8000 kB\n", "/sys/fs/cgroup/memory.max": "4096\n"}
    monkeypatch.setattr(share, "_read", files.get)
    assert free_bytes() == 4096
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert free_bytes() == 8000 * 1024
    monkeypatch.setattr(share, "_read", lambda _: "")
    assert free_bytes() is None
    monkeypatch.undo()
    assert share._read("/nowhere/at/all") == ""


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(3):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before
