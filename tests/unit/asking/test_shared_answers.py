"""Files of prompts that workers share: the bytes of one process, whatever was stopped, and nothing of other runs."""

import json
import shutil

import pytest

import lorary as lo
from lorary.asking import answers
from lorary.asking.answers import parts_of
from lorary.disk.growing import part_of
from lorary.testing.pico import pico_base, random_library

ROWS = [{"prompt": f"copy: {'ab' * i}", "id": i} for i in range(7)]
WISH = lo.Wish(6, sampling=lo.Sampling(1.0, seed=5))
HERE = "local:workers=1,threads=1"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A library that names its base, its model, and what one process answers."""
    place = tmp_path_factory.mktemp("world")
    base = pico_base()
    base.write(place / "pico")
    random_library(place / "lib", base, 2)
    rows = place / "p.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    prompts = lo.read_prompts(rows)
    with pytest.MonkeyPatch.context() as patch, lo.open_model(place / "lib", base=str(place / "pico")) as model:
        patch.setattr(answers, "_AT_ONCE", 3)
        lo.answer_prompts(model, prompts, into=place / "whole.jsonl", wish=WISH)
    return place, prompts, (place / "whole.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(answers, "_AT_ONCE", 3)


@pytest.fixture
def share(world):
    place, prompts, _ = world

    def share(into, *, wish=WISH, prompts=prompts, **options):
        target = lo.choose_model(place / "lib", base=str(place / "pico"))
        lo.answer_with_workers(target, prompts, into=into, wish=wish, backend=HERE, **options)

    return share


class _StoppedError(Exception):
    pass


def _stop(step):
    raise _StoppedError


@pytest.mark.slow
def test_workers_write_the_bytes_of_one_process(share, world, tmp_path):
    into, steps, plans = tmp_path / "a.jsonl", [], []
    with pytest.raises(_StoppedError):
        share(into, report=_stop)
    assert not into.exists()
    share(into, report=lambda step: steps.append((step.job, step.step, step.n_steps)),
          on_plan=lambda jobs, done: plans.append(([job.name for job in jobs], done)))  # fmt: skip
    assert into.read_bytes() == world[2]
    assert plans == [(["rows-1-3", "rows-4-6", "rows-7-7"], [])]
    assert sorted(steps) == [("rows-1-3", 3, 3), ("rows-4-6", 3, 3), ("rows-7-7", 1, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def _stopped_behind_one(share, into):
    """Stop a run that has answered one group."""
    seen = []

    def stop(step):
        seen.append(step)
        if len(seen) > 1:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        share(into, report=stop)
    return {path.name for path in parts_of(into).glob("*.jsonl")}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_what_is_missing(share, world, tmp_path):
    into, done = tmp_path / "a.jsonl", []
    (first,) = _stopped_behind_one(share, into)
    share(into, on_plan=lambda jobs, there: done.extend(there))
    assert (done, into.read_bytes()) == ([first.removesuffix(".jsonl")], world[2])


@pytest.mark.slow
def test_what_is_there_is_never_mixed_with_another_run(share, world, tmp_path):
    _, prompts, _ = world
    into = tmp_path / "a.jsonl"
    _stopped_behind_one(share, into)
    before = {path: path.read_bytes() for path in parts_of(into).rglob("*.json*")}
    for other, wish, word in ((prompts, lo.Wish(6), "sampling"), (prompts[1:], WISH, "prompts")):
        with pytest.raises(lo.EvaluationError, match=f"E-RUN.*another run: .*{word}"):
            share(into, prompts=other, wish=wish)
    with pytest.raises(lo.EvaluationError, match="workers have begun it. Go on with --workers"):
        lo.answer_prompts(pico_base(), prompts, into=into, wish=WISH)
    (parts_of(into) / "run.json").write_text("[]")
    with pytest.raises(lo.EvaluationError, match="no unfinished answers"):
        share(into)
    (parts_of(into) / "run.json").write_bytes(before[parts_of(into) / "run.json"])
    assert {path: path.read_bytes() for path in parts_of(into).rglob("*.json*")} == before
    other = tmp_path / "b.jsonl"
    part_of(other).write_text("begun")
    with pytest.raises(lo.EvaluationError, match="one process has begun it. Go on without --workers"):
        share(other)


def test_a_file_that_was_put_together_loses_its_parts(share, world, tmp_path):
    into = tmp_path / "a.jsonl"
    _stopped_behind_one(share, into)
    into.write_bytes(world[2])
    with pytest.raises(lo.EvaluationError, match="E-RUN.*is there already, beside unfinished parts"):
        share(into)
    assert into.read_bytes() == world[2] and parts_of(into).is_dir()
    lines = world[2].splitlines(keepends=True)
    for first, last in ((1, 3), (4, 6), (7, 7)):
        (parts_of(into) / f"rows-{first}-{last}.jsonl").write_bytes(b"".join(lines[first - 1 : last]))
    share(into)
    assert into.read_bytes() == world[2] and not parts_of(into).exists()
    with pytest.raises(lo.EvaluationError, match="E-RUN.*is there already"):
        share(into)


def test_another_process_may_be_first(share, world, tmp_path):
    into = tmp_path / "a.jsonl"

    def finish(step):
        into.write_bytes(world[2])
        shutil.rmtree(parts_of(into))

    share(into, report=finish)
    assert into.read_bytes() == world[2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
