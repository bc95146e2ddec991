"""Who spoke at each token and site; recorded only when asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.model.attached.told_weights import MOST_WEIGHTS, ToldWeights
from lorary.pages.inspector import Told, answer_page, in_notebook
from lorary.routing.contract import Routing


@dataclass(frozen=True, eq=False)
class Trace:
    """The routing of one text. weights: (L, T, E) float32, L sites, T tokens, E experts in order of `names`.

    n_prompt: how many of the tokens, from the first, are the prompt's. evidence: (T, E) float32, what a router that
    keeps evidence, as the compass, had gathered for each expert at each token, over all sites; None of all others.
    A notebook shows a trace as the inspector does.
    """

    tokens: tuple[str, ...]
    sites: tuple[str, ...]
    names: tuple[str, ...]
    weights: Tensor
    n_prompt: int = 0
    evidence: Tensor | None = None

    @property
    def shares(self) -> Tensor:
        """Mean weight of each expert at each token over the sites, (T, E)."""
        return self.weights.mean(0)

    @property
    def loudest(self) -> tuple[str, ...]:
        """The expert with the largest share at each token."""
        return tuple(self.names[i] for i in self.shares.argmax(1).tolist())

    def total(self) -> dict[str, float]:
        """Share of each expert over the whole text, largest first."""
        shares = self.shares.mean(0).tolist()
        return dict(sorted(zip(self.names, shares, strict=True), key=lambda pair: -pair[1]))

    def told(self, room: int = MOST_WEIGHTS) -> dict[str, object]:
        """Give it as JSON, as a server's full trace: of each token and site the loudest experts, `room` in all."""
        kept = ToldWeights(room)
        for token, weights in enumerate(self.weights.unbind(1)):
            kept.add(weights, None if self.evidence is None else self.evidence[token])
        return {
            "experts": list(self.names), "sites": list(self.sites), "tokens": list(self.tokens[: len(kept.rows)]),
            **kept.to_json(), "left_out": len(self.tokens) - len(kept.rows),
        }  # fmt: skip

    def _repr_html_(self) -> str:
        title = "Which expert each token used"
        return in_notebook(title, answer_page(title, [Told("this model", self.told(), self.n_prompt)]))

    def __str__(self) -> str:
        """One line per token: the token, its loudest expert, that expert's share."""
        width = max(len(repr(t)) for t in self.tokens)
        rows = zip(self.tokens, self.loudest, self.shares.amax(1).tolist(), strict=True)
        return "\n".join(f"{token!r:<{width}}  {name}  {share:.2f}" for token, name, share in rows)


def make_trace(
    tokens: Sequence[str], names: Sequence[str], records: Mapping[str, Sequence[Routing]], n_prompt: int = 0,
    evidence: Tensor | None = None,
) -> Trace:  # fmt: skip
    """Make a trace of row 0 from recorded routings; calls of one generation are joined along time.

    A routing that is the same for all tokens is repeated. evidence: (B, T, E) of all tokens, where there is some.
    """
    sites = tuple(records)
    rows = [torch.cat([dense(r, len(names)) for r in records[site]]) for site in sites]
    filled = [row.expand(len(tokens), -1) if len(row) == 1 else row for row in rows]
    gathered = None if evidence is None else evidence[0].float().cpu()
    return Trace(tuple(tokens), sites, tuple(names), torch.stack(filled), n_prompt, gathered)


def average_shares(traces: Sequence[Trace]) -> dict[str, dict[str, float]]:
    """Average the weights over all tokens of some texts: site -> expert -> share."""
    first = traces[0]
    total = torch.stack([trace.weights.double().sum(1) for trace in traces]).sum(0)  # (L, E)
    shares = (total / sum(len(trace.tokens) for trace in traces)).tolist()
    return {site: dict(zip(first.names, row, strict=True)) for site, row in zip(first.sites, shares, strict=True)}


def dense(routing: Routing, n_experts: int) -> Tensor:
    """Spread row 0 over all experts, splits averaged: (T, E) on the CPU."""
    weights = routing.weights[0].mean(1).float().cpu()  # (T, k)
    if routing.experts is None:
        return weights
    index = routing.experts[0].cpu()
    return torch.zeros(*index.shape[:-1], n_experts).scatter(-1, index, weights.expand(index.shape))
