"""Per text, the experts whose answer to the prompt's last token is the longest or the surest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site, Weights
from lorary.errors import RoutingError
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State, Survey
from lorary.routing.members import members_at, stack_members
from lorary.routing.scored import check_options, keep_best
from lorary.routing.texts import best_shares, required_features

_TINY, _SMALL = 1e-8, 1e-6  # what the authors' code adds to a probability under the logarithm, and to an entropy


@dataclass(frozen=True)
class LoGo(Router):
    """Mix a text's experts by what each says at the prompt's last token, read once, in a single layer; needs no data.

    Before a prompt is answered, it is read with all experts attached, each with its whole weight, outputs added. From
    the last of the layers called `layer` (of all adapted layers, if none is) comes o_i = s_i B_i A_i x (d_out,), x
    (d_in,) the layer's input at the prompt's last token. score="norm": s_i = |o_i|; "entropy": s_i = 1 / H(softmax
    o_i). The top_k best get s_i / sum s, at every layer and token until the answer ends. In float32; an expert without
    weights in that layer has score 0. reads="base": the prompt is read without experts. The authors mix outputs.
    Cost: each prompt is read twice, once with all experts; a token pays the mixing of top_k experts, and no scores.
    Source: Lee et al. 2025 (2511.07129) and its code: the last block's q_proj, 20 experts of 260.
    Differs: its code multiplies what enters the block; here it is what the layer is given, behind the block's norm.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"survey"})

    score: Literal["norm", "entropy"] = "norm"
    """What makes an expert fit: a long output, or one of low entropy."""
    top_k: int | None = 20
    """Experts kept for a text; None: all."""
    layer: str = "q_proj"
    """Last part of the path of the layers, the last of which is listened to."""
    reads: Literal["all", "base"] = "all"
    """Who is at work when the prompt is read first: all experts, or the base alone."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)

    def deciding_options(self) -> dict[str, object]:
        """List what decides whose factors are kept."""
        return {"name": "logo", "layer": self.layer}

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Keep the factors of the one layer, lower ranks padded with zeros."""
        site = self._listened_to(sites)
        here = {i: experts[name][site] for i, name in enumerate(sorted(experts)) if site in experts[name]}
        rank = max(weights.rank for weights in here.values())
        padded = {i: _padded(weights, rank) for i, weights in here.items()}
        outer = torch.stack([padded[i][1] for i in sorted(padded)])  # (P, d_out, r)
        return {**stack_members(site, {i: a for i, (a, _) in padded.items()}), f"{site}.outer": outer}

    def _listened_to(self, sites: Mapping[str, Site]) -> str:
        named = [name for name in sites if name.rpartition(".")[2] == self.layer]
        return (named or list(sites))[-1]

    def survey(self, sites: Mapping[str, Site], state: State, names: Sequence[str]) -> Survey:
        """Ask for the inputs of the one layer."""
        site = sites[self._listened_to(sites)]
        inner, members, _ = members_at(state, site, len(names), n_axes=3)  # (P, r, d_in)
        outer = state.get(f"{site.name}.outer", torch.zeros(0))
        if not outer.is_floating_point() or outer.shape != (len(inner), site.d_out, inner.shape[1]):
            raise RoutingError("E-STATE", f"site {site.name!r}: LoGo's state is not of these experts.", "Fit anew.")

        def read(x: Tensor) -> Tensor:
            x = x.float().cpu()  # (B, d_in)
            outputs = torch.einsum("por,prd,bd->bpo", outer, inner, x)
            scores = x.new_zeros(len(x), len(names))
            return scores.index_copy(1, members, _SCORES[self.score](outputs))  # (B, E)

        return Survey(site.name, everybody=self.reads == "all", read=read)

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that reads the scores of `Context.features`."""
        return _LoGoGate(self.top_k, len(names))


class _LoGoGate(Gate):
    def __init__(self, top_k: int | None, n_experts: int) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.n_kept = min(top_k or n_experts, n_experts)

    @property
    def n_chosen(self) -> int | None:
        """The number kept; None if all are."""
        return self.n_kept if self.n_kept < self.n_experts else None

    def forward(self, h: Tensor, context: Context) -> Routing:
        return self._routing(self._scores(context))

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        return self._routing(self._scores(context) * allowed)

    def _scores(self, context: Context) -> Tensor:
        return required_features(context, self.n_experts, "logo").float().clamp(min=0)[:, None]  # (B, 1, E)

    def _routing(self, scores: Tensor) -> Routing:
        if self.n_kept == self.n_experts:
            return Routing(best_shares(scores, self.n_kept).unsqueeze(2))
        kept, index = keep_best(scores, self.n_kept)  # (B, T, k)
        return Routing(best_shares(kept, self.n_kept).unsqueeze(2), index)


def _padded(weights: Weights, rank: int) -> tuple[Tensor, Tensor]:
    a, b = weights.factors()
    more = rank - weights.rank
    return torch.nn.functional.pad(a, (0, 0, 0, more)), torch.nn.functional.pad(b, (0, more))


def _certainty(outputs: Tensor) -> Tensor:
    p = torch.softmax(outputs, -1)
    entropy = -(p * (p + _TINY).log()).sum(-1)
    return 1 / (entropy + _SMALL)


_SCORES = {"norm": lambda outputs: torch.linalg.vector_norm(outputs, dim=-1), "entropy": _certainty}
