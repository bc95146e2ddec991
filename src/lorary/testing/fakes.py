"""Sites, experts and a probe in memory: enough to fit a router and to run its gates without a model."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.adapters.lora import LoRA
from lorary.hashing import hash_json
from lorary.routing.contract import Context, Router, Routing, Split, State
from lorary.routing.routing import over_all
from lorary.routing.softmax_gate import TOP_K, row_name
from lorary.routing.task_skills import pack_state
from lorary.testing.pico import random_weights

SITES = {name: Site(name, 12, 10) for name in ("layers.0.q", "layers.1.q")}
N_FEATURES = 5


def fake_experts(names: Mapping[str, int] | Sequence[str], *, rank: int = 3) -> Experts:
    """Make random experts; a mapping gives each the seed of its numbers, so that they can be renamed."""
    seeds = names if isinstance(names, Mapping) else {name: i for i, name in enumerate(names)}
    return {name: random_weights(LoRA(rank=rank), list(SITES.values()), seed=seed) for name, seed in seeds.items()}


def numbers_of(experts: Experts) -> list[Tensor]:
    """Copy all numbers of experts, to see later whether they were touched."""
    return [t.clone() for sites in experts.values() for w in sites.values() for t in (*w.factors(), w.delta())]


class FakeProbe:
    """Facts that look like data: expert with seed i was trained on task `t<i>`."""

    def __init__(self, seeds: Mapping[str, int]) -> None:
        self.seeds = dict(seeds)

    def sample_texts(self, *, n_texts: int, n_tokens: int, opening: str, seed: int) -> Tensor:
        """Draw ids."""
        return torch.randint(99, (n_texts, n_tokens), generator=torch.Generator().manual_seed(seed))

    def over_inputs(
        self, texts: Tensor, sites: Collection[str], ask: Callable[[str, Tensor], Tensor]
    ) -> Mapping[str, Tensor]:
        """Draw inputs for every site, around a mean that is not zero."""
        generator = torch.Generator().manual_seed(7)
        return {
            name: ask(name, 0.5 + torch.randn(*texts.shape, SITES[name].d_in, generator=generator)) for name in sites
        }

    def mean_inputs(
        self, expert: str, *, n_examples: int, per_task: bool = False, after_answer: bool = False,
        every_token: bool = False,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        """Draw a mean input for every site."""
        asked = per_task + 2 * after_answer + 4 * every_token
        generator = torch.Generator().manual_seed(100 + self.seeds[expert] + 1000 * asked)
        return {name: torch.randn(site.d_in, generator=generator) for name, site in SITES.items()}

    def prompt_features(
        self, encoder: str, *, n_examples: int, split: Split = "train", every_task: bool = False
    ) -> tuple[Tensor, Sequence[str]]:
        """Draw eight texts a task, near a centre of its own; every_task: one task more than the experts have."""
        features, labels = [], []
        for seed in [*sorted(self.seeds.values()), *([99] if every_task else [])]:
            generator = torch.Generator().manual_seed(200 + seed + 1000 * (split == "valid"))
            centre = 3 * torch.randn(1, N_FEATURES, generator=generator)
            features.append(centre + torch.randn(8, N_FEATURES, generator=generator))
            labels += [f"t{seed}"] * 8
        return torch.cat(features), labels

    def answer_losses(
        self, expert: str, tasks: Sequence[str], *, split: Split, start: int, stop: int
    ) -> Mapping[str, tuple[float, int]]:
        """Make an expert the worse at a task the farther its seed is from it."""
        n = stop - start
        return {task: (n * abs(self.seeds[expert] - int(task[1:])), n) for task in tasks}

    def tasks_of(self, expert: str) -> Sequence[str]:
        """Name the one task of an expert."""
        return (f"t{self.seeds[expert]}",)

    def learned(self, kind: str, expert: str | None = None) -> State:
        """Make up a gate for an expert; for all, rows of a softmax, or logits: for each one's task one for each."""
        if kind == "switch":
            return {TOP_K: torch.tensor([3]), **{row_name(e, s): t for e in self.seeds for s, t in self._gates(e)}}
        if expert is not None:
            return dict(self._gates(expert))
        seeds = [self.seeds[name] for name in sorted(self.seeds)]
        table = torch.tensor([[float((7 * task + 3 * expert) % 5 - 2) for expert in seeds] for task in seeds])
        return pack_state({site: table.unsqueeze(1) for site in SITES}, [f"t{seed}" for seed in seeds])

    def _gates(self, expert: str) -> Iterator[tuple[str, Tensor]]:
        generator = torch.Generator().manual_seed(300 + self.seeds[expert])
        for name, site in SITES.items():
            yield name, torch.randn(site.d_in, generator=generator)


class FakeTaskProbe:
    """Hidden states that look like a task's: drawn by its name."""

    def mean_state(self, task: str, *, layer: int, n_examples: int) -> Tensor:
        """Draw a state."""
        return torch.randn(N_FEATURES, generator=torch.Generator().manual_seed(int(hash_json(task)[:8], 16)))


def fake_context(n_rows: int, owners: Sequence[int]) -> Context:
    """Make a context in which every fact is known, with fresh evidence."""
    features = torch.randn(n_rows, N_FEATURES, generator=torch.Generator().manual_seed(5))
    return Context(experts=torch.tensor(owners), features=features)


def one_row(context: Context, row: int) -> Context:
    """Make the context of one row alone, with fresh evidence."""
    assert context.experts is not None and context.features is not None
    return Context(experts=context.experts[row : row + 1], features=context.features[row : row + 1])


def dense(routing: Routing, n_experts: int) -> Tensor:
    """Spread a routing's weights over all experts, (B, T, S, E)."""
    return over_all(routing, n_experts)


def route_with(router: Router, seeds: Mapping[str, int], h: Tensor, context: Context) -> Tensor:
    """Fit on fake experts and route h (B, T, d_in) at the first site; dense weights (B, T, S, E)."""
    site = next(iter(SITES.values()))
    state = router.fit(fake_experts(seeds), SITES, FakeProbe(seeds))
    context = _surveyed(router, state, sorted(seeds), context)
    return dense(router.gate(site, state, sorted(seeds))(h, context), len(seeds))


def _surveyed(router: Router, state: State, names: Sequence[str], context: Context) -> Context:
    """Tell a router what it asks to be read off prompts; these are made of the features that are there."""
    survey = router.survey(SITES, state, names)
    if survey is None or context.features is None:
        return context
    spread = torch.randn(N_FEATURES, SITES[survey.site].d_in, generator=torch.Generator().manual_seed(8))
    return Context(experts=context.experts, features=survey.read(context.features @ spread))
