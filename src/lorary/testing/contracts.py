"""What every router, kind, builder and clusterer promises, as test classes to inherit from.

In the tests of a plug-in:

    class TestMyRouter(RouterContract):
        @pytest.fixture
        def router(self):
            return MyRouter()

Fixtures to give: `router`; `kind`; `clusterer`; `builder`, a function Tasks -> Builder, with `base`, `tasks` and
`source`.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from lorary.adapters.contract import Bank, Experts, Kind, Mix, Weights
from lorary.adapters.kinds.lora import LoRA
from lorary.building.build import build
from lorary.building.clustering.clusters import Clusters, read_clusters
from lorary.building.clustering.contract import Clusterer
from lorary.building.contract import Builder, JobStep
from lorary.formats.peft import read_weights, write_weights
from lorary.hashing import hash_file
from lorary.library.adapter.expert import read_expert
from lorary.library.layout import CONFIG, WEIGHTS, Layout
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import Context, Router
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.fakes import SITES, FakeProbe, FakeTaskProbe, dense, fake_context, fake_experts, one_row, route_with
from lorary.testing.pico import randomised

SITE = next(iter(SITES.values()))
SEEDS = {"ant": 0, "bee": 1, "cat": 2, "dog": 3, "eel": 4}
OWNERS = (0, 3, 4)


def _hidden(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(len(OWNERS), 7, SITE.d_in, generator=torch.Generator().manual_seed(1)).to(dtype)


def _context() -> Context:
    return fake_context(len(OWNERS), OWNERS)


def _numbers(experts: Experts) -> list[Tensor]:
    return [t.clone() for sites in experts.values() for w in sites.values() for t in (*w.factors(), w.delta())]


class _OptionsContract:
    @staticmethod
    def check_options(options: Any) -> None:
        cls = type(options)
        again: Any = copy.copy(options)
        assert dataclasses.is_dataclass(options)
        assert again is not options
        assert again == options
        assert hash(again) == hash(options)
        assert cls.__dataclass_params__.frozen
        assert (cls.__doc__ or "").partition("\n")[0].endswith((".", ":"))


class RouterContract(_OptionsContract):
    """Ten promises of a router, and causality. Needs the fixture `router`."""

    def test_weights_are_a_distribution(self, router: Router) -> None:
        """Each token's weights are not negative and sum to one."""
        weights = route_with(router, SEEDS, _hidden(), _context())
        assert bool((weights >= 0).all())
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))

    def test_the_order_of_experts_does_not_matter(self, router: Router) -> None:
        """Neither the order they come in, nor the order of their names."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        shuffled = router.fit(dict(reversed(list(fake_experts(SEEDS).items()))), SITES, FakeProbe(SEEDS))
        assert state.keys() == shuffled.keys()
        assert all(torch.equal(state[name], shuffled[name]) for name in state)

        renamed = {f"{len(SEEDS) - i}-{name}": SEEDS[name] for i, name in enumerate(SEEDS)}  # now in reverse
        context = fake_context(len(OWNERS), [len(SEEDS) - 1 - owner for owner in OWNERS])
        found = route_with(router, renamed, _hidden(), context).flip(-1)
        torch.testing.assert_close(found, route_with(router, SEEDS, _hidden(), _context()))

    def test_a_lone_expert_gets_everything(self, router: Router) -> None:
        """With one expert in the library its weight is one."""
        weights = route_with(router, {"ant": 0}, _hidden(), fake_context(len(OWNERS), [0, 0, 0]))
        torch.testing.assert_close(weights, torch.ones_like(weights))

    def test_fit_does_not_touch_the_experts(self, router: Router) -> None:
        """Their numbers are the same before and after."""
        experts = fake_experts(SEEDS)
        before = _numbers(experts)
        router.fit(experts, SITES, FakeProbe(SEEDS))
        assert all(torch.equal(a, b) for a, b in zip(before, _numbers(experts), strict=True))

    def test_the_state_alone_reloads_the_same_bits(self, router: Router) -> None:
        """A gate from a stored state answers as the one from a fresh state, to the bit."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        stored = load(save({name: t.contiguous() for name, t in state.items()}))
        gates = [router.gate(SITE, s, sorted(SEEDS)) for s in (state, stored)]
        first, second = (dense(gate(_hidden(), _context()), len(SEEDS)) for gate in gates)
        assert torch.equal(first, second)

    def test_refitted_is_fitted(self, router: Router) -> None:
        """After an expert came, went or changed, the state is the one of a fit from nothing, to the bit."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        edits = {
            "came": ({**SEEDS, "bug": 7}, {"bug"}),
            "went": ({name: SEEDS[name] for name in ("ant", "cat", "dog", "eel")}, set[str]()),
            "changed": ({**SEEDS, "cat": 8}, {"cat"}),
        }
        for seeds, changed in edits.values():
            experts, probe = fake_experts(seeds), FakeProbe(seeds)
            expected = router.fit(experts, SITES, probe)
            found = router.refit(state, experts, SITES, probe, before=sorted(SEEDS), changed=changed)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_same_inputs_same_answer(self, router: Router) -> None:
        """Nothing is drawn or remembered between calls."""
        state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
        gate = router.gate(SITE, state, sorted(SEEDS))
        first, second = (dense(gate(_hidden(), _context()), len(SEEDS)) for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(first, route_with(router, SEEDS, _hidden(), _context()))

    def test_rows_are_independent(self, router: Router) -> None:
        """A row in a batch is routed as it is alone."""
        whole = route_with(router, SEEDS, _hidden(), _context())
        whole = whole.expand(len(OWNERS), *whole.shape[1:])
        for row in range(len(OWNERS)):
            alone = route_with(router, SEEDS, _hidden()[row : row + 1], one_row(_context(), row))
            torch.testing.assert_close(alone[0], whole[row])

    def test_tokens_see_no_later_tokens(self, router: Router) -> None:
        """What comes after a token does not change its routing."""
        changed = _hidden()
        changed[:, 4:] += 10
        before, after = (route_with(router, SEEDS, h, _context()) for h in (_hidden(), changed))
        torch.testing.assert_close(before[:, :4], after[:, :4])

    def test_dtype_in_is_dtype_out(self, router: Router) -> None:
        """A layer that computes in bfloat16 answers in bfloat16, and the routing is made in float32."""
        experts = fake_experts(SEEDS)
        bank = LoRA().pack([experts[name][SITE.name] for name in SEEDS], SITE).cast(torch.bfloat16)
        gate = router.gate(SITE, router.fit(experts, SITES, FakeProbe(SEEDS)), sorted(SEEDS))
        x, y = _hidden(torch.bfloat16), torch.zeros(len(OWNERS), 7, SITE.d_out, dtype=torch.bfloat16)
        routing = gate(x, _context())
        assert routing.weights.dtype == torch.float32
        assert bank(x, y, routing.weights, routing.experts, "outputs").dtype == torch.bfloat16

    def test_its_repr_is_code(self, router: Router) -> None:
        """The repr can be pasted back."""
        assert eval(repr(router), {type(router).__name__: type(router)}) == router

    def test_it_is_frozen(self, router: Router) -> None:
        """Equal options are equal objects."""
        self.check_options(router)


class KindContract(_OptionsContract):
    """What a form of adapter promises. Needs the fixture `kind`."""

    @staticmethod
    def _experts(kind: Kind, n: int = 3) -> list[Weights]:
        generator = torch.Generator().manual_seed(3)
        return [randomised(kind.fresh(SITE, generator), generator) for _ in range(n)]

    @staticmethod
    def _speak(bank: Bank, index: int, *, mix: Mix = "outputs") -> Tensor:
        weights = torch.eye(bank.n_experts)[index][None, None, None]
        y = torch.randn(len(OWNERS), 7, SITE.d_out, generator=torch.Generator().manual_seed(2))
        found: Tensor = bank(_hidden(), y, weights, None, mix)
        return found - y

    def test_identity_at_birth(self, kind: Kind) -> None:
        """Fresh weights change nothing, and the same generator gives the same weights."""
        one, two = (kind.fresh(SITE, torch.Generator().manual_seed(1)) for _ in range(2))
        assert not self._speak(kind.pack([one], SITE), 0).any()
        assert not one.delta().any()
        assert all(torch.equal(a, b) for a, b in zip(one.factors(), two.factors(), strict=True))

    def test_merged_is_unmerged(self, kind: Kind) -> None:
        """Adding delta to the base weight does what the bank does."""
        (weights,) = self._experts(kind, 1)
        torch.testing.assert_close(
            self._speak(kind.pack([weights], SITE), 0), _hidden() @ weights.delta().T, atol=1e-5, rtol=1e-5
        )

    def test_one_hot_routing_is_the_expert_alone(self, kind: Kind) -> None:
        """Other experts, present or absent, leave no trace, whichever the mix."""
        experts = self._experts(kind)
        bank = kind.pack([*experts, None], SITE)
        for i, weights in enumerate(experts):
            alone = self._speak(kind.pack([weights], SITE), 0)
            for mix in ("outputs", "factors"):
                torch.testing.assert_close(self._speak(bank, i, mix=mix), alone, atol=1e-5, rtol=1e-5)
        assert not self._speak(bank, 3).any()

    def test_gradients_reach_only_the_expert(self, kind: Kind) -> None:
        """With one-hot routing the other experts' numbers get no gradient, and the speaker's do."""
        experts = self._experts(kind)
        bank = kind.pack(experts, SITE).requires_grad_(True)
        self._speak(bank, 1).pow(2).sum().backward()
        moved = kind.pack(experts, SITE)
        with torch.no_grad():
            for p, q in zip(moved.parameters(), bank.parameters(), strict=True):
                assert q.grad is not None
                p.sub_(q.grad)
        before = kind.pack(experts, SITE)
        for i in range(3):
            same = torch.equal(self._speak(moved, i), self._speak(before, i))
            assert same == (i != 1)

    def test_peft_round_trip(self, kind: LoRA, tmp_path: Path) -> None:
        """Written, read and written again the bytes are the same, and so is what the expert does."""
        (weights,) = self._experts(kind, 1)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        write_weights(tmp_path / "one", kind, {SITE.name: weights}, base_name="b")  # type: ignore[dict-item]
        read = read_weights(read_expert(tmp_path / "one", "one"))
        write_weights(tmp_path / "two", kind, read, base_name="b")  # type: ignore[arg-type]
        for file in (WEIGHTS, CONFIG):
            assert hash_file(tmp_path / "one" / file) == hash_file(tmp_path / "two" / file)
        assert torch.equal(read[SITE.name].delta(), weights.delta())

    def test_it_is_frozen(self, kind: Kind) -> None:
        """Equal options are equal objects."""
        self.check_options(kind)
        assert eval(repr(kind), {type(kind).__name__: type(kind)}) == kind


class Killed(BaseException):
    """What the contract raises inside a build; nobody catches it."""


def _killer(step: int) -> Callable[[JobStep], None]:
    def report(reached: JobStep) -> None:
        if reached.step == step:
            raise Killed

    return report


class BuilderContract(_OptionsContract):
    """What a builder promises.

    Needs `builder` (Tasks -> Builder, checkpoint at every step), `base`, `tasks`, and `source`: a library on the base
    with an expert for each task, for builders that start from one.
    """

    def test_the_plan_lists_what_run_does(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """One expert per job, with its name, its tasks and its steps; base, data and source stay as they were."""
        maker, before, facts = builder(tasks), {t: tasks[t].hash for t in tasks}, _hash_model(base)
        files = files_of(source.path)
        jobs = maker.plan(tasks, source)
        steps: list[JobStep] = []
        library = build(maker, tasks, base, source=source, into=tmp_path / "lib", report=steps.append)
        assert sorted(library) == sorted(name for job in jobs for name in job.experts)
        for job in jobs:
            described = job.describe()
            assert described["expert"] == job.name
            for name in job.experts:
                assert tuple(described["tasks"]) == library[name].provenance.tasks
                assert library[name].provenance.steps == job.n_steps == described["steps"]
            assert [s.step for s in steps if s.job == job.name] == list(range(1, job.n_steps + 1))
        assert {t: tasks[t].hash for t in tasks} == before
        assert _hash_model(base) == facts
        assert files_of(source.path) == files

    def test_same_seed_same_bytes(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """Two builds write the same files."""
        one, two = (
            build(builder(tasks), tasks, base, source=source, into=tmp_path / name / "lib") for name in ("one", "two")
        )
        assert files_of(one.path) == files_of(two.path)

    def test_kill_and_resume_is_uninterrupted(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """Broken off twice, with a checkpoint at every step, it writes the files of a build that ran through.

        A builder without steps computes at once as it writes: there is nothing to go on with.
        """
        if not any(job.n_steps for job in builder(tasks).plan(tasks, source)):
            return
        whole = build(builder(tasks), tasks, base, source=source, into=tmp_path / "whole" / "lib")
        for step in (3, 5):
            try:
                build(builder(tasks), tasks, base, source=source, into=tmp_path / "cut" / "lib", report=_killer(step))
            except Killed:
                assert not files_of(Layout(tmp_path / "cut" / "lib").experts)
            else:
                raise AssertionError("the build was too short to be killed")
        steps: list[JobStep] = []
        resumed = build(builder(tasks), tasks, base, source=source, into=tmp_path / "cut" / "lib", report=steps.append)
        assert files_of(resumed.path) == files_of(whole.path)
        assert steps[0].step == 5, "it did not go on where it was"

    def test_a_second_call_runs_nothing(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """What is built is not built again, and not touched."""
        build(builder(tasks), tasks, base, source=source, into=tmp_path / "lib")
        before, steps = files_of(tmp_path / "lib"), list[JobStep]()
        build(builder(tasks), tasks, base, source=source, into=tmp_path / "lib", report=steps.append)
        assert not steps
        assert files_of(tmp_path / "lib") == before

    def test_it_is_frozen(self, builder: Callable[[Tasks], Builder], tasks: Tasks) -> None:
        """Equal options are equal objects."""
        self.check_options(builder(tasks))


def files_of(library: Path) -> dict[str, str]:
    """Hash all files of a library by their path in it."""
    paths = sorted(path for path in library.rglob("*") if path.is_file())
    return {str(path.relative_to(library)): hash_file(path) for path in paths}


def _hash_model(base: BaseModel) -> list[tuple[str, int, float]]:
    tensors = base.hf.state_dict().items()
    return [(name, id(base.hf.get_parameter(name)), float(t.double().abs().sum())) for name, t in tensors]


class ClustererContract(_OptionsContract):
    """What a clusterer promises. Needs the fixture `clusterer`; it is given twelve experts with a task each."""

    NAMES = tuple(f"x{i:02}" for i in range(12))

    @classmethod
    def _cluster(cls, clusterer: Clusterer, experts: Experts) -> Clusters:
        return clusterer.cluster(experts, {name: (f"t-{name}",) for name in experts}, FakeTaskProbe())

    def test_it_makes_a_partition(self, clusterer: Clusterer) -> None:
        """Every example of every task is in one cluster, and no cluster is empty."""
        clusters = self._cluster(clusterer, fake_experts(self.NAMES))
        for name in self.NAMES:
            task = Task(
                f"t-{name}", *(tuple(Example(f"{part}{i}", "c") for i in range(40)) for part in ("a", "b", "c"))
            )
            parts = [clusters.part(c, task) for c, tasks in clusters.items() if task.name in tasks]
            for whole, shares in zip(_parts(task), zip(*map(_parts, parts), strict=True), strict=True):
                assert sorted(e.prompt for share in shares for e in share) == sorted(e.prompt for e in whole)
        assert {task for tasks in clusters.values() for task in tasks} == {f"t-{name}" for name in self.NAMES}
        assert all(clusters.values())
        assert 1 < len(clusters) < len(self.NAMES)

    def test_the_order_of_experts_changes_nothing(self, clusterer: Clusterer) -> None:
        """Nor does a second call."""
        experts = fake_experts(self.NAMES)
        found = self._cluster(clusterer, experts)
        backward = self._cluster(clusterer, dict(reversed(list(experts.items()))))
        assert found == backward
        assert list(found) == list(backward)

    def test_the_experts_stay_as_they_were(self, clusterer: Clusterer) -> None:
        """Their numbers are the same before and after."""
        experts = fake_experts(self.NAMES)
        before = _numbers(experts)
        self._cluster(clusterer, experts)
        assert all(torch.equal(a, b) for a, b in zip(before, _numbers(experts), strict=True))

    def test_it_can_be_written_and_read(self, clusterer: Clusterer, tmp_path: Path) -> None:
        """groups.json keeps everything."""
        clusters = self._cluster(clusterer, fake_experts(self.NAMES))
        clusters.write(tmp_path / "groups.json")
        found = read_clusters(tmp_path / "groups.json")
        assert found == clusters
        assert [dict(row) for row in found.curve] == [dict(row) for row in clusters.curve]

    def test_it_is_frozen(self, clusterer: Clusterer) -> None:
        """Equal options are equal objects."""
        self.check_options(clusterer)
        assert eval(repr(clusterer), {type(clusterer).__name__: type(clusterer)}) == clusterer


def _parts(task: Task) -> tuple[tuple[Example, ...], ...]:
    return task.train, task.valid, task.test
