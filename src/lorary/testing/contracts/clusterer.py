"""What every clusterer promises: a test class to inherit from, with the fixture `clusterer`."""

from collections.abc import Sequence
from pathlib import Path

import torch

from lorary.adapters.contract import Experts
from lorary.building.clustering.clusters import Clusters, read_clusters
from lorary.building.clustering.contract import Clusterer
from lorary.tasks.example import Example
from lorary.tasks.task import Task
from lorary.testing.contracts.options import OptionsContract
from lorary.testing.fakes import FakeTaskProbe, fake_experts, numbers_of


class ClustererContract(OptionsContract):
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
        before = numbers_of(experts)
        self._cluster(clusterer, experts)
        assert all(torch.equal(a, b) for a, b in zip(before, numbers_of(experts), strict=True))

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


def _parts(task: Task) -> tuple[Sequence[Example], ...]:
    return task.train, task.valid, task.test
