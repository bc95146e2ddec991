"""Gates that score every token against one vector per expert: what Arrow and centroid matching share."""

from collections.abc import Callable

import torch
from torch import Tensor

from lorary.adapters.base import Site
from lorary.adapters.compiled import usable
from lorary.errors import OptionError
from lorary.routing.base import Context, Gate, Router, Routing, State
from lorary.routing.members import members_at

_SORTED_SCORES = 256


def check_options(router: Router) -> None:
    """Refuse counts below 1 and temperatures that are no positive number. Raises E-OPTION."""
    name = type(router).__module__.rpartition(".")[2]
    for count in ("top_k", "n_examples"):
        value = getattr(router, count, None)
        if value is not None and value < 1:
            raise OptionError("E-OPTION", f"{name}: {count}={value}, expected 1 or more.")
    temperature = getattr(router, "temperature", 1.0)
    if not 0 < temperature < float("inf"):
        raise OptionError("E-OPTION", f"{name}: temperature={temperature}, expected a positive number.")


class ScoredGate(Gate):
    """Score, keep the best, softmax over the kept. Only experts with a vector at this site can be chosen.

    `score` takes hidden states (B, T, d_in) and vectors (P, ..., d_in) to float32 scores (B, T, P).
    `never_negative` promises that no score is below 0.
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
    ) -> None:
        super().__init__()
        self.score = score
        vectors, members, self.everybody_listens = members_at(state, site, n_experts)
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
            return Routing(h.new_zeros(1, 1, 1, self.n_experts, dtype=torch.float32))
        scores = _in_float32(self.score, h, self.vectors)
        if (fused := usable(scores)) is not None:
            weights, index = fused.keep(scores, self.n_kept, self.temperature)
            return Routing(weights.unsqueeze(2), index if self.everybody_listens else self.members[index])
        kept, index = keep_best(scores, self.n_kept, never_negative=self.never_negative)
        if self.temperature != 1:
            kept = kept / self.temperature
        weights = torch.softmax(kept, dim=-1).unsqueeze(2)  # (B, T, 1, k)
        return Routing(weights, index if self.everybody_listens else self.members[index])


def _in_float32(score: Callable[[Tensor, Tensor], Tensor], h: Tensor, vectors: Tensor) -> Tensor:
    """Score in float32 under autocast too: in half precision other experts would win."""
    if not torch.is_autocast_enabled(h.device.type):
        return score(h, vectors)
    with torch.autocast(h.device.type, enabled=False):
        return score(h, vectors)


def keep_best(scores: Tensor, k: int, *, never_negative: bool = False) -> tuple[Tensor, Tensor]:
    """Keep the k largest of float32 scores (..., P): values and indices, largest first, ties to the lower index.

    The k largest of P different whole numbers: a score's bits, in an order that whole numbers share, above the index
    counted backwards. A stable sort gives the same and takes 3 to 15 times as long, save for a few scores in all.
    `never_negative` saves a step.
    """
    n = scores.shape[-1]
    if k == n:
        return scores, torch.arange(k, device=scores.device).expand(scores.shape)
    if scores.numel() <= _SORTED_SCORES:
        values, index = scores.sort(dim=-1, descending=True, stable=True)
        return values[..., :k], index[..., :k]
    plain = scores.detach() if scores.requires_grad else scores
    ordered = plain.view(torch.int32) if never_negative else _ordered_bits(plain)
    backwards = torch.arange(n - 1, -1, -1, device=scores.device)
    index = torch.add(backwards, ordered, alpha=1 << 32).topk(k, dim=-1)[1]
    return scores.gather(-1, index), index


def _ordered_bits(scores: Tensor) -> Tensor:
    bits = (scores + 0.0).view(torch.int32)  # the two zeros become equal
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # below zero, bits grow with the magnitude
