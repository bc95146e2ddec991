"""A softmax over the experts of a site, trained with all of them: what the builder and the router switch share.

Learned: "<expert>/<site>" (d_in,) for every expert at every site where it sits, and "top_k" (1,), 0 for all.
"""

import torch
from torch import Tensor, nn

from lorary.routing.contract import Context, Gate, Routing
from lorary.routing.scored import only_heard, silent, unheard, weigh_best

TOP_K = "top_k"


def row_name(expert: str, site: str) -> str:
    """Name what an expert's row of W at a site is kept as; no expert's name holds a slash."""
    return f"{expert}/{site}"


class SharesGate(Gate):
    """Give each token's kept experts their shares p = softmax(W h), in float32: vectors W (P, d_in), members (P,).

    The shares of those that aren't kept are nobody's: the mixture's answer counts as often as the kept have of p.
    A site where no expert has a row gives every expert the weight zero.
    """

    members: Tensor

    def __init__(self, vectors: Tensor, members: Tensor, *, n_experts: int, top_k: int | None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.float(), requires_grad=False)  # (P, d_in)
        self.register_buffer("members", members, persistent=False)  # (P,)
        self.n_experts = n_experts
        self.everybody_listens = len(members) == n_experts
        self.n_kept = min(top_k or len(members), len(members))

    @property
    def n_chosen(self) -> int | None:
        """The number kept; None if it is all that there are."""
        return self.n_kept if 0 < self.n_kept < self.n_experts else None

    def scores(self, h: Tensor) -> Tensor:
        """Compute W h, (B, T, P)."""
        return torch.matmul(h.float(), self.vectors.T)

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Route each token by its scores."""
        return self.shared_out(h, self.scores(h))

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        """Route each token by the scores of the allowed, who get no more than their shares among all."""
        if self.n_kept == 0:
            return silent(h, self.n_experts)
        scores, here = self.scores(h), allowed if self.everybody_listens else allowed[..., self.members]
        weights, index = weigh_best(unheard(scores, here), self.n_kept, 1.0)
        weights = only_heard(weights, index, here)
        kept = unheard(scores, here).gather(-1, index).logsumexp(-1, keepdim=True)  # (B, T, 1)
        share = (kept - scores.logsumexp(-1, keepdim=True)).exp().unsqueeze(3)  # (B, T, 1, 1)
        return Routing(weights.unsqueeze(2), index if self.everybody_listens else self.members[index], share)

    def shared_out(self, h: Tensor, scores: Tensor) -> Routing:
        """Make a routing of scores (B, T, P)."""
        if self.n_kept == 0:
            return silent(h, self.n_experts)
        if self.n_kept == len(self.members):
            weights = torch.softmax(scores, -1).unsqueeze(2)  # (B, T, 1, P)
            return Routing(weights, None if self.everybody_listens else self.members.expand(scores.shape))
        weights, index = weigh_best(scores, self.n_kept, 1.0)
        kept = scores.gather(-1, index).logsumexp(-1, keepdim=True)  # (B, T, 1)
        share = (kept - scores.logsumexp(-1, keepdim=True)).exp().unsqueeze(3)  # (B, T, 1, 1)
        experts = index if self.everybody_listens else self.members[index]
        return Routing(weights.unsqueeze(2), experts, share)


def balance_of(scores: Tensor, n_kept: int, mask: Tensor | None) -> Tensor:
    """Tell how unevenly tokens choose: P sum_i f_i p_i, 1 if evenly, up to P; scores (B, T, P).

    f_i: the share of the choices that expert i gets (of those that choose all, of the first choices); p_i: the mean of
    its shares. Tokens where `mask`, which holds as many, is False don't count.
    Source: Fedus et al. 2021 (2101.03961) equations 4 to 6, which has one choice a token.
    """
    n = scores.shape[-1]
    flat = scores.reshape(-1, n)  # (N, P)
    if mask is not None and mask.numel() == len(flat):
        flat = flat[mask.reshape(-1).bool()]
    chosen = flat.detach().topk(n_kept if n_kept < n else 1, dim=-1)[1]  # (N, k)
    loads = torch.bincount(chosen.flatten(), minlength=n).to(flat) / chosen.numel()  # (P,)
    return n * (loads * torch.softmax(flat, -1).mean(0)).sum()
