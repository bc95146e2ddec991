"""What a sequence has shown so far: means along its tokens, carried by the KV cache, and up its sites."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.routing.routing import Routing

_TOKENS_AT_ONCE = 128  # a block's weights are a square of so many tokens


class Evidence:
    """What a sequence has shown so far, per site and over sites: it lives and dies with the KV cache.

    `along_tokens` carries sums (B, M, E) per site from call to call, one for each of M means; `up_sites` carries a
    running sum (B, T, E) from site to site within one call. Causal: token t sees tokens up to t, a site sees sites
    below. All sites of a call see the same tokens and ask for the same means.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.routings: dict[str, Routing] = {}
        """How all tokens so far were routed, at sites that are given them again with every new one."""
        self._past: _Past | None = None
        self._clock: _Clock | None = None
        self._spoken: set[str] = set()
        self._risen: Tensor | None = None
        self._n_sites = 0

    @property
    def is_empty(self) -> bool:
        """True if no gate has added anything."""
        return not self.sums

    @property
    def is_missing(self) -> Tensor:
        """Tell of each token whether there is no evidence yet: (B, T, 1), 1 or 0; of the call's own tokens."""
        assert self._clock is not None, "no site has spoken in this call"
        return self._clock.is_missing

    @property
    def is_complete(self) -> bool:
        """True if every token of the call is known to have some evidence; False on devices that it would wait for."""
        return self._clock is not None and self._clock.is_complete

    @property
    def risen(self) -> Tensor | None:
        """What rose over all sites of this call, their mean (B, T, E); None if nothing did."""
        return None if self._risen is None else self._risen / self._n_sites

    def along_tokens(
        self,
        site: str,
        values: Tensor,
        mask: Tensor | None,
        *,
        skip_first: bool = False,
        recent: float = 0.0,
        half_life: float = 1.0,
    ) -> Tensor:
        """Add values (B, T, E) at a site; give their mean over the tokens so far, this call and those before.

        mask: (B, T), False at padding, which adds nothing. skip_first: leave a sequence's first token out.
        recent: the share of a second mean, in which a token counts half as much after `half_life` tokens more.
        """
        return self.along_tokens_of((site,), values, mask, skip_first=skip_first, recent=recent, half_life=half_life)

    def along_tokens_of(
        self,
        sites: Sequence[str],
        values: Tensor,
        mask: Tensor | None,
        *,
        skip_first: bool = False,
        recent: float = 0.0,
        half_life: float = 1.0,
    ) -> Tensor:
        """Do as `along_tokens` for G sites that speak one after another: values and means (B, T, G * E)."""
        if not self._spoken.isdisjoint(sites):
            self.start_call()
        self._spoken.update(sites)
        if self._clock is None:
            real = torch.ones_like(values[..., :1]) if mask is None else mask.unsqueeze(-1).to(values)
            means = ((1 - recent, math.inf), (recent, half_life)) if recent else ((1.0, math.inf),)
            self._clock = _Clock.start(real, self._past, means, skip_first=skip_first)
        before = [self.sums[site] for site in sites if site in self.sums]
        sums = None if not before else before[0] if len(sites) == 1 else torch.cat(before, -1)  # all of them or none
        mean, sums = self._clock.mean(values, sums)
        self.sums.update(zip(sites, sums.chunk(len(sites), -1) if len(sites) > 1 else (sums,), strict=True))
        return mean

    def up_sites(self, values: Tensor, *, weight: float = 1.0) -> Tensor:
        """Add values (B, T, E) of this site; give `weight` times their mean over the sites so far in this call."""
        self._risen = values if self._risen is None else self._risen.to(values.device) + values
        self._n_sites += 1
        return self._risen * _shares(self._n_sites - 1, self._n_sites, weight, values.device)

    def up_sites_of(self, values: Tensor, *, weight: float = 1.0) -> Tensor:
        """Do as `up_sites` for values (B, T, G, E) of G sites, one after another; gives (B, T, G, E)."""
        if self._risen is not None:
            values = torch.cat([self._risen.to(values.device).unsqueeze(2), values], 2)
        risen, n = values.cumsum(2), values.shape[2]
        if self._risen is not None:
            risen, n = risen[:, :, 1:], n - 1
        self._risen = risen[:, :, -1]
        self._n_sites += n
        return risen * _shares(self._n_sites - n, self._n_sites, weight, values.device)

    def copy(self) -> "Evidence":
        """Copy it as it is now; what is added to either afterwards is its own."""
        copied = Evidence()
        copied.sums, copied._past = dict(self.sums), self._past
        copied._clock, copied._spoken = self._clock, set(self._spoken)
        copied.routings = dict(self.routings)
        copied._risen, copied._n_sites = self._risen, self._n_sites
        return copied

    def start_call(self) -> None:
        """Forget what rose over the sites; what was summed along the tokens stays."""
        if self._clock is not None:
            self._past = self._clock.past
        self._clock, self._spoken = None, set()
        self._risen, self._n_sites = None, 0

    def repeat_rows(self, n: int) -> None:
        """Repeat every sequence n times, side by side."""
        self._change_rows(lambda value: value.repeat_interleave(n, 0))

    def select_rows(self, rows: Tensor) -> None:
        """Reorder, repeat or drop sequences as a beam search does with its cache: rows (B',) indices into B."""
        self._change_rows(lambda value: value.index_select(0, rows.to(value.device)))

    def add_rows(self, other: "Evidence") -> None:
        """Put the sequences of another behind these; both end at the same token, so the shorter began later."""
        self.start_call()
        other.start_call()
        self.sums = {site: torch.cat([value, other.sums[site]]) for site, value in self.sums.items()}
        self.routings = {site: value.beside(other.routings[site]) for site, value in self.routings.items()}
        if self._past is not None and other._past is not None:
            n_real, weights = (self._past.n_real, other._past.n_real), (self._past.weights, other._past.weights)
            self._past = _Past(torch.cat(n_real), torch.cat(weights))

    def drop_first(self, n_tokens: int) -> None:
        """Forget the first tokens of every sequence, which were padding."""
        self.routings = {
            site: routing.changed(lambda part: part[:, n_tokens:]) for site, routing in self.routings.items()
        }

    def clear(self) -> None:
        """Forget everything."""
        self.start_call()
        self.sums, self.routings, self._past = {}, {}, None

    def _change_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        self.start_call()
        self.sums = {site: change(value) for site, value in self.sums.items()}
        self.routings = {site: routing.changed(change) for site, routing in self.routings.items()}
        if self._past is not None:
            self._past = _Past(change(self._past.n_real), change(self._past.weights))


@dataclass(frozen=True)
class _Past:
    """The calls before. n_real: (B, 1, 1) tokens; weights: (B, M, 1), what the tokens weigh in each mean together."""

    n_real: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _Clock:
    """What tokens weigh in the means of one call: the same at every site, so that it is worked out once."""

    is_missing: Tensor
    is_complete: bool
    blocks: Sequence[Tensor]
    """Of some tokens (t of them) each: (B, t + M, t + M), from values and the sums before to means and sums."""
    past: _Past

    @classmethod
    def start(
        cls, real: Tensor, past: _Past | None, means: Sequence[tuple[float, float]], *, skip_first: bool
    ) -> "_Clock":
        """real: (B, T, 1), 0 at padding. means: share and half-life of each; infinite: all tokens alike."""
        if past is None:
            past = _Past(real.new_zeros(len(real), 1, 1), real.new_zeros(len(real), len(means), 1))
        steps = real.cumsum(1) + past.n_real
        used = real * (steps > 1) if skip_first else real
        is_missing = 1 - (used.cumsum(1) + past.weights[:, :1]).clamp(max=1)
        blocks = []
        for step, use in zip(steps.split(_TOKENS_AT_ONCE, 1), used.split(_TOKENS_AT_ONCE, 1), strict=True):
            block, past = _weigh(step, use, past, means)
            blocks.append(block)
        return cls(is_missing, _is_plain_zero(is_missing), blocks, past)

    def mean(self, values: Tensor, sums: Tensor | None) -> tuple[Tensor, Tensor]:
        """Give the mean (B, T, E) of values (B, T, E) and of sums (B, M, E), and the sums after them."""
        found, parts = [], [values] if len(self.blocks) == 1 else values.split(_TOKENS_AT_ONCE, 1)
        for block, part in zip(self.blocks, parts, strict=True):
            t, block = part.shape[1], block.to(part.device)  # the layers of a base may be spread over devices
            both = (
                torch.bmm(block[..., :t], part) if sums is None else torch.bmm(block, torch.cat([part, sums], 1))
            )  # (B, t + M, E)
            found.append(both[:, :t])
            sums = both[:, t:]
        assert sums is not None
        if values.shape[1] > 1:
            sums = sums.clone()  # not to keep the means
        return found[0] if len(found) == 1 else torch.cat(found, 1), sums


def _is_plain_zero(missing: Tensor) -> bool:
    """Tell whether all are 0, where it can be told without waiting for a device, and outside of a graph."""
    return type(missing) is Tensor and missing.is_cpu and not torch.compiler.is_compiling() and not missing.any()


def _shares(n_before: int, n_after: int, weight: float, device: torch.device) -> Tensor | float:
    """Give `weight` over the number of sites up to each that comes now, (G, 1), or a number if it is one site.

    On a CPU a tensor, once made, is multiplied with in half the time that a number takes.
    """
    if n_after == n_before + 1 and (device.type != "cpu" or torch.compiler.is_compiling()):
        return weight / n_after
    return _kept_shares(n_before, n_after, weight, device)


@functools.lru_cache(maxsize=4096)
def _kept_shares(n_before: int, n_after: int, weight: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor([[weight / n] for n in range(n_before + 1, n_after + 1)], device=device)


def _weigh(step: Tensor, used: Tensor, past: _Past, means: Sequence[tuple[float, float]]) -> tuple[Tensor, _Past]:
    """Weigh t tokens: step (B, t, 1) the number of real tokens up to each, used (B, t, 1) whether it counts."""
    age = step - step.mT  # (B, t, s): how many real tokens token s lies before token t
    since = step - past.n_real  # (B, t, 1): how many lie between the tokens before and token t
    of_values, of_sums, into_sums, kept, weights = [], [], [], [], []
    for m, (share, half_life) in enumerate(means):
        fade = torch.exp2(-age / half_life).tril() * used.mT  # (B, t, t)
        left = torch.exp2(-since / half_life)  # (B, t, 1)
        weight = fade.sum(-1, keepdim=True) + left * past.weights[:, m : m + 1]  # (B, t, 1)
        part = share / weight.clamp(min=1)  # a token that counts weighs 1 itself; before one, all is 0
        of_values.append(fade * part)
        of_sums.append(left * part)
        into_sums.append(fade[:, -1:])
        kept.append(left[:, -1])
        weights.append(weight[:, -1:])
    to_means = torch.cat([torch.stack(of_values).sum(0), *of_sums], -1)  # (B, t, t + M)
    to_sums = torch.cat([torch.cat(into_sums, 1), torch.cat(kept, 1).diag_embed()], -1)  # (B, M, t + M)
    return torch.cat([to_means, to_sums], 1), _Past(step[:, -1:], torch.cat(weights, 1))
