"""Routers that score every token against one vector per expert: what Arrow, centroids and trained gates share."""

from abc import ABC
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.adapters.mixing.compiled import usable
from lorary.adapters.mixing.on_gpu import MOST_SCORES, kernels_for
from lorary.errors import OptionError
from lorary.options import name_of
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State
from lorary.routing.members import members_at, refit_members

COLDEST = 1e-6
_UNHEARD = -1e30  # below any score, and finite even when divided by the coldest temperature
_FEW_SCORES = 256
"""As many or fewer are sorted. Scores that are never negative have shorter keys: of them half as many."""
_FEW_PAIRS = 1 << 20
"""As many or fewer are compared in pairs by a compiled program."""


def check_options(router: Router) -> None:
    """Refuse counts below 1 and temperatures that are no positive number. Raises E-OPTION."""
    name = name_of(router)
    for count in ("top_k", "n_examples"):
        value = getattr(router, count, None)
        if value is not None and value < 1:
            raise OptionError("E-OPTION", f"{name}: {count}={value}, expected 1 or more.")
    temperature = getattr(router, "temperature", 1.0)
    if not temperature > 0:
        raise OptionError("E-OPTION", f"{name}: temperature={temperature}, expected a positive number.")
    if temperature < COLDEST:  # a score divided by it may be beyond what float32 holds, and all shares NaN
        hint = "At such a one the best gets all: top_k=1."
        raise OptionError("E-OPTION", f"{name}: temperature={temperature}, expected {COLDEST:g} or more.", hint)


@dataclass(frozen=True)
class ScoredRouter(Router, ABC):
    """A router with one vector for each expert at a site, in which is nothing of other experts."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)

    def refit(
        self,
        state: State,
        experts: Experts,
        sites: Mapping[str, Site],
        probe: Probe | None,
        *,
        before: Sequence[str],
        changed: Collection[str],
    ) -> State:
        """Find the vectors of the changed experts only."""
        return refit_members(
            lambda some: self.fit(some, sites, probe), state, experts, sites, before=before, changed=changed
        )


class ScoredGate(Gate):
    """Score, keep the best, softmax over the kept. Only experts with a vector at this site can be chosen.

    `score` takes hidden states (B, T, d_in) and vectors (P, ..., d_in) to float32 scores (B, T, P).
    `never_negative` promises that no score is below 0. `n_axes`: of the vectors.
    A site where no expert has a vector gives every expert the weight zero.
    """

    vectors: Tensor
    members: Tensor

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        site: Site,
        state: State,
        *,
        n_experts: int,
        top_k: int | None,
        temperature: float,
        never_negative: bool = False,
        n_axes: int = 2,
    ) -> None:
        super().__init__()
        self.score = score
        vectors, members, self.everybody_listens = members_at(state, site, n_experts, n_axes=n_axes)
        self.register_buffer("vectors", vectors, persistent=False)  # (P, d_in)
        self.register_buffer("members", members, persistent=False)  # (P,)
        self.n_experts = n_experts
        self.n_kept = min(top_k or len(members), len(members))
        self.temperature = temperature
        self.never_negative = never_negative

    @property
    def n_chosen(self) -> int | None:
        """The number kept."""
        return self.n_kept or None

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Route each token by its scores."""
        if self.n_kept == 0:
            return silent(h, self.n_experts)
        scores = self.score(h, self.vectors)
        weights, index = weigh_best(scores, self.n_kept, self.temperature, never_negative=self.never_negative)
        return Routing(weights.unsqueeze(2), index if self.everybody_listens else self.members[index])

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        """Route each token by the scores of the allowed."""
        if self.n_kept == 0:
            return silent(h, self.n_experts)
        here = allowed if self.everybody_listens else allowed[..., self.members]  # (B, T, P)
        weights, index = weigh_best(unheard(self.score(h, self.vectors), here), self.n_kept, self.temperature)
        weights = only_heard(weights, index, here)
        return Routing(weights.unsqueeze(2), index if self.everybody_listens else self.members[index])


def standardised(x: Tensor) -> Tensor:
    """Give vectors (..., d) the mean 0 and the variance 1 over their entries."""
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


def standardised_dot(h: Tensor, vectors: Tensor) -> Tensor:
    """Multiply hidden states (B, T, d), standardised, with vectors (P, d) that are already; over sqrt(d), (B, T, P)."""
    scale: float = vectors.shape[-1] ** -0.5
    return torch.matmul(standardised(h.float()), vectors.T) * scale


def silent(h: Tensor, n_experts: int) -> Routing:
    """Give every expert the weight zero at every token."""
    return Routing(h.new_zeros(1, 1, 1, n_experts, dtype=torch.float32))


def unheard(scores: Tensor, here: Tensor) -> Tensor:
    """Put the scores (B, T, P) of experts that may not be used, False in `here` (B, T, P), below all others."""
    return scores.masked_fill(~here, _UNHEARD)


def only_heard(weights: Tensor, index: Tensor, here: Tensor) -> Tensor:
    """Zero the weights (B, T, k) of those that were kept, index (B, T, k), since there were too few that may be."""
    return weights * here.expand(*index.shape[:-1], here.shape[-1]).gather(-1, index)


def weigh_best(scores: Tensor, k: int, temperature: float, *, never_negative: bool = False) -> tuple[Tensor, Tensor]:
    """Keep the k largest of float32 scores (B, T, P), as `keep_best`: their softmax (B, T, k) and indices (B, T, k)."""
    if (fused := usable(scores)) is not None:
        found: tuple[Tensor, Tensor] = fused.keep(scores, k, temperature)
        return found
    if k < scores.shape[-1] <= MOST_SCORES and (kernels := kernels_for(scores)) is not None:
        told: tuple[Tensor, Tensor] = kernels.keep(scores, k, temperature)
        return told
    kept, index = keep_best(scores, k, never_negative=never_negative)
    return torch.softmax(kept / temperature if temperature != 1 else kept, dim=-1), index


def keep_best(scores: Tensor, k: int, *, never_negative: bool = False) -> tuple[Tensor, Tensor]:
    """Keep the k largest of float32 scores (..., P): values and indices, largest first, ties to the lower index.

    The k largest of P different whole numbers: a score's bits, in an order that whole numbers share, above the index
    counted backwards. A stable sort gives the same and takes 3 to 15 times as long, save for a few scores in all.
    `never_negative` saves a step.
    """
    n = scores.shape[-1]
    if k == n:
        return scores, torch.arange(k, device=scores.device).expand(scores.shape)
    if k == 1:
        largest: tuple[Tensor, Tensor] = scores.max(dim=-1, keepdim=True)  # of equals, the first
        return largest
    compiles = torch.compiler.is_compiling() and scores.numel() * n <= _FEW_PAIRS
    if not compiles and scores.numel() <= (_FEW_SCORES // 2 if never_negative else _FEW_SCORES):
        values, index = scores.sort(dim=-1, descending=True, stable=True)
        return values[..., :k], index[..., :k]
    plain = scores.detach() if scores.requires_grad else scores
    ordered = plain.view(torch.int32) if never_negative else _ordered_bits(plain)
    if compiles:
        index = _best_by_rank(ordered, k)
    elif _in_rounds(scores, k):
        index = _best_in_rounds(ordered.clone() if never_negative else ordered, k)  # the bits may be the scores' own
    else:
        backwards = torch.arange(n - 1, -1, -1, device=scores.device)
        index = torch.add(backwards, ordered, alpha=1 << 32).topk(k, dim=-1)[1]
    return scores.gather(-1, index), index


def _best_by_rank(ordered: Tensor, k: int) -> Tensor:
    """Count for each how many are better: whole numbers (..., P) -> indices of the best (..., k), in two fused steps.

    A compiler makes one kernel of each, for all sites that read one input, and one call of a library for each topk.
    """
    place = torch.arange(ordered.shape[-1], device=ordered.device)
    one, other = ordered.unsqueeze(-1), ordered.unsqueeze(-2)
    rank = ((other > one) | ((other == one) & (place < place.unsqueeze(-1)))).sum(-1)  # (..., P), all different
    return torch.where(rank.unsqueeze(-2) == place[:k].unsqueeze(-1), place, 0).sum(-1)


def _in_rounds(scores: Tensor, k: int) -> bool:
    """Tell whether k rounds are sooner than a topk: on a CPU, where torch's topk parts all numbers at the k-th."""
    n = scores.shape[-1]
    return scores.is_cpu and not torch.compiler.is_compiling() and 8 * k <= n < 64 * k and scores.numel() >= 64 * n


def _best_in_rounds(left: Tensor, k: int) -> Tensor:
    """Take the largest, of equals the first, k times: whole numbers (..., P), spoilt -> their indices (..., k)."""
    found = [left.max(dim=-1, keepdim=True)[1]]
    while len(found) < k:
        left.scatter_(-1, found[-1], torch.iinfo(left.dtype).min)
        found.append(left.max(dim=-1, keepdim=True)[1])
    return torch.cat(found, dim=-1)


def _ordered_bits(scores: Tensor) -> Tensor:
    bits = (scores + 0.0).view(torch.int32)  # the two zeros become equal
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # below zero, bits grow with the magnitude
