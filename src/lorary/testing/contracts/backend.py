"""What every backend promises: a test class to inherit from, with the fixtures `backend` and `recipe`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lorary.building.build import build_recipe
from lorary.building.recipe import Recipe
from lorary.testing.contracts.builder import files_of
from lorary.testing.contracts.options import OptionsContract, error_of
from lorary.work.backend import Backend


class BackendContract(OptionsContract):
    """What a backend promises.

    Needs `backend`, and `recipe`: a build of at least two experts in a few steps, whose base and tasks are paths, so
    that other processes find them.
    """

    def test_it_builds_what_one_process_builds(self, backend: Backend, recipe: Recipe, tmp_path: Path) -> None:
        """The same experts, to the byte, wherever the workers are."""
        here, there = (replace(recipe, into=tmp_path / name / "lib") for name in ("here", "there"))
        expected = build_recipe(here, backend="local:workers=1")
        found = build_recipe(there, backend=backend)
        assert len(found) > 1
        assert files_of(found.layout.experts) == files_of(expected.layout.experts)

    def test_it_tells_the_plan_and_where_each_job_is(self, backend: Backend, recipe: Recipe) -> None:
        """Whoever ordered the work hears of all jobs, and of the last step of each."""
        plans: list[Any] = []
        steps: list[Any] = []
        library = build_recipe(
            recipe, backend=backend, report=steps.append, on_plan=lambda jobs, done: plans.append((jobs, list(done)))
        )
        assert sorted(job.name for job in plans[0][0]) == sorted(library)
        ends = {(step.job, step.n_steps) for step in steps if step.step == step.n_steps}
        assert ends == {(job.name, job.n_steps) for job in plans[0][0]}

    def test_a_second_call_runs_nothing(self, backend: Backend, recipe: Recipe) -> None:
        """What is built is not built again, and not touched."""
        before = files_of(build_recipe(recipe, backend=backend).path)
        steps: list[Any] = []
        again = build_recipe(recipe, backend=backend, report=steps.append)
        assert files_of(again.path) == before
        assert not steps

    def test_what_stops_all_work_reaches_the_caller(self, backend: Backend, recipe: Recipe, tmp_path: Path) -> None:
        """Data that isn't there is an error that says so, not a build that hangs or ends with nothing."""
        error = error_of(
            lambda: build_recipe(replace(recipe, tasks=(str(tmp_path / "nowhere.jsonl"),)), backend=backend)
        )
        assert "nowhere.jsonl" in str(error)

    def test_it_is_frozen(self, backend: Backend) -> None:
        """Equal options are equal objects."""
        self.check_options(backend)
