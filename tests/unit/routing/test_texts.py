"""Routers that decide once for a whole prompt, by its embedding."""

import pytest
import torch

from lorary.errors import OptionError, RoutingError
from lorary.folder import ROUTERS
from lorary.routing.contract import Context
from lorary.routing.routers.ariadne import Ariadne
from lorary.routing.routers.lorauter import LoRAuter
from lorary.testing.fakes import SITES, FakeProbe, dense, fake_experts

SITE = SITES["layers.0.q"]
SEEDS = {"ant": 0, "bee": 1, "cat": 2, "dog": 3, "eel": 4}
NAMES = sorted(SEEDS)


class Prompts(FakeProbe):
    """Prompts in the plane: task t<i> has its own; notes who was tried on what."""

    def __init__(self, seeds, **points):
        super().__init__(seeds)
        self.points, self.tried = points, []

    def prompt_features(self, encoder, *, n_examples, split="train", every_task=False):
        labels = [task for task, found in self.points.items() for _ in found]
        return torch.tensor([point for found in self.points.values() for point in found]), labels

    def answer_losses(self, expert, tasks, *, split, start, stop):
        self.tried.append((expert, tuple(tasks), start, stop))
        return super().answer_losses(expert, tasks, split=split, start=start, stop=stop)


def weights_of(router, probe, *prompts, names=NAMES):
    experts = fake_experts({name: SEEDS[name] for name in names})
    gate = router.gate(SITE, router.fit(experts, SITES, probe), names)
    return dense(gate(torch.zeros(len(prompts), 3, 12), Context(features=torch.tensor(prompts))), len(names))[:, 0, 0]


def test_ariadne_takes_the_nearest_of_all_centroids():
    probe = Prompts({"ant": 0, "bee": 1}, t0=[[1.0, 0.0], [-1.0, -0.1]], t1=[[0.0, 9.0]])
    prompts = [1.0, 0.3], [-5.0, 0.1], [0.0, 1.0]
    found = weights_of(Ariadne(), probe, *prompts, names=["ant", "bee"])
    assert found.tolist() == [[0, 1]] * 3  # the mean of ant's two points away from all
    found = weights_of(Ariadne(n_centroids=2), probe, *prompts, names=["ant", "bee"])
    assert found.tolist() == [[1, 0], [1, 0], [0, 1]]


def test_ariadne_has_no_more_centroids_than_prompts():
    state = Ariadne(n_centroids=7).fit(fake_experts(["ant"]), SITES, Prompts({"ant": 0}, t0=[[1.0, 0.0], [1.0, 0.0]]))
    assert state["centroids"].tolist() == [[1, 0]] and state["owns"].tolist() == [[1]]


def test_lorauter_by_hand():
    probe = Prompts(SEEDS, t0=[[2.0, 0.0]], t1=[[0.0, 1.0], [0.0, 3.0]], t4=[[-1.0, 0.0]], t99=[[0.6, 0.8]])
    found = weights_of(LoRAuter(n_tasks=3, temperature=0.5), probe, [1.0, 0.0])[0]
    shares = torch.softmax(torch.tensor([1.0, 0.6, 0.0]) / 0.5, 0)  # t0, t99 and t1; nobody was trained on t99
    torch.testing.assert_close(found, torch.tensor([shares[0], shares[2], 0, 0, shares[1]]))


def test_what_is_the_best_of_several_tasks_gets_their_sum():
    probe = Prompts(SEEDS, t4=[[1.0, 0.0]], t99=[[1.0, 0.1]])
    assert weights_of(LoRAuter(), probe, [1.0, 0.0])[0].tolist() == pytest.approx([0, 0, 0, 0, 1])


def test_half_of_the_experts_are_tried_again_on_more():
    probe = Prompts(SEEDS, t0=[[1.0, 0.0]], t4=[[0.0, 1.0]])
    LoRAuter(n_first=2).fit(fake_experts(SEEDS), SITES, probe)
    rounds = {(start, stop) for *_, start, stop in probe.tried}
    assert rounds == {(0, 2), (2, 4), (4, 8)}
    on_first = [[e for e, tasks, start, _ in probe.tried if "t0" in tasks and start == at] for at in (0, 2, 4)]
    assert on_first == [NAMES, ["ant", "bee", "cat"], ["ant", "bee"]]


def test_those_who_are_told_whose_tasks_they_are_try_nobody():
    probe = Prompts(SEEDS, t0=[[1.0, 0.0]], t4=[[0.0, 1.0]], t99=[[1.0, 1.0]])
    state = LoRAuter(best="trained").fit(fake_experts(SEEDS), SITES, probe)
    assert state["best"].tolist() == [0, 4] and not probe.tried
    with pytest.raises(RoutingError, match=r"error\[E-PROBE\] lorauter: no expert was trained on any of the tasks"):
        LoRAuter(best="trained").fit(fake_experts(SEEDS), SITES, Prompts(SEEDS, t99=[[1.0, 1.0]]))


@pytest.mark.parametrize("name", ["ariadne", "lorauter"])
def test_wrong_states_and_options_are_refused(name):
    router = ROUTERS.load(name)()
    state = router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS))
    for key in state:
        with pytest.raises(RoutingError, match="E-STATE"):
            router.gate(SITE, {**state, key: state[key][:1]}, NAMES)
        with pytest.raises(RoutingError, match="E-STATE"):
            router.gate(SITE, {**state, key: state[key].to(torch.uint8)}, NAMES)
    gate = router.gate(SITE, state, NAMES)
    with pytest.raises(RoutingError, match=f"E-TEXT.* {name} needs the features"):
        gate(torch.zeros(1, 1, 12), Context())
    with pytest.raises(RoutingError, match="E-STATE"):
        gate(torch.zeros(1, 1, 12), Context(features=torch.zeros(1, 3)))
    with pytest.raises(RoutingError, match=f"E-PROBE.* {name} needs"):
        router.fit(fake_experts(SEEDS), SITES, None)


@pytest.mark.parametrize(
    "spec", ["lorauter:n_tasks=0", "lorauter:temperature=0", "lorauter:n_first=0", "ariadne:n_centroids=0"]
)
def test_options_without_meaning_are_refused(spec):
    with pytest.raises(OptionError, match=r"error\[E-OPTION\]"):
        ROUTERS.parse(spec)
