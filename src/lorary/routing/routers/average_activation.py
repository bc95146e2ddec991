"""Per token and layer, the experts whose own data look on average like the hidden state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.routing.contract import Gate, Probe, State
from lorary.routing.members import stack_members
from lorary.routing.scored import ScoredGate, ScoredRouter, standardised, standardised_dot


@dataclass(frozen=True)
class AverageActivation(ScoredRouter):
    """Route as PHATGOOSE does, by means of each expert's own data in the place of trained gates.

    g_i (d_in,): what the site is given, with expert i at work, mean over the tokens of each training prompt, then over
    prompts. Score g_i . h / sqrt(d_in), g_i and the hidden state h each standardised: mean 0, variance 1 over their
    d_in entries. In float32; keep the top_k (None: all); softmax over the kept at `temperature`.
    Cost: fitting reads n_examples prompts of each expert, once; a token pays one product with each expert's g_i, as in
    Arrow, and its standardisation.
    Source: Muqeeth et al. 2024 (2402.05859), the baseline Average Activation, and its code: two experts a token, the
    means of up to 1,000 examples; outputs are mixed.
    Differs: its base has an encoder, which reads the prompts, and a decoder, whose means are over the answers' tokens;
    here both are one text, of which the prompt is read, or all (`after_answer`).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"examples"})

    n_examples: int = 100
    """Training prompts of each expert."""
    top_k: int | None = 2
    """Experts kept at each token; None: all."""
    temperature: float = 1.0
    """Temperature of the softmax over the kept."""
    after_answer: bool = False
    """Read the answers of the examples, too."""
    per_task: bool = False
    """Read n_examples of each task of an expert, not of all together."""

    def deciding_options(self) -> dict[str, object]:
        """List what decides the means."""
        options = {name: getattr(self, name) for name in ("n_examples", "after_answer", "per_task")}
        return {"name": "average_activation", **options}

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Ask the probe for each expert's mean inputs."""
        if probe is None:
            what = "average_activation needs each expert's training prompts."
            raise RoutingError("E-PROBE", what, "Pass tasks=...")
        means = {
            name: probe.mean_inputs(
                name, n_examples=self.n_examples, per_task=self.per_task, after_answer=self.after_answer,
                every_token=True,
            )
            for name in sorted(experts)
        }  # fmt: skip
        state: State = {}
        for site in sites:
            here = {i: name for i, name in enumerate(sorted(experts)) if site in experts[name]}
            state |= stack_members(site, {i: standardised(means[name][site].float()) for i, name in here.items()})
        return state

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from its means."""
        return ScoredGate(
            standardised_dot, site, state, n_experts=len(names), top_k=self.top_k, temperature=self.temperature
        )
