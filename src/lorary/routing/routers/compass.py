"""Per token and layer, the experts that all the evidence so far points to; needs no data."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.adapters.mixing.chosen_rows import sums
from lorary.adapters.products import sketch
from lorary.errors import OptionError, RoutingError
from lorary.routing.contract import Context, Gate, GatesAsOne, Probe, Router, Routing, State
from lorary.routing.directions import calibration, prototypes, without_common
from lorary.routing.members import members_at, refit_members, stack_members
from lorary.routing.routers.arrow import Arrow
from lorary.routing.scored import check_options, only_heard, silent, unheard, weigh_best

_FEW_MIXTURES = 64  # as many or fewer: their sketches are copied
_ORDER = 1e-6  # puts experts in an order and leaves their weights as good as equal


@dataclass(frozen=True)
class Compass(Router):
    """Send each token to the experts whose directions the text so far has followed more than other texts do.

    Deviation d_i = (p_i · h - m_i) / s_i of one token at one site. p_i (d_in,): Arrow's prototype without the
    `n_common` directions that all prototypes of the site share. h: input of root-mean-square 1 (`normalise`). m_i, s_i:
    mean and standard deviation of p_i · h over texts that the base writes itself (`calibrate`), without expert or data.
    Evidence e_i: mean of d_i^2 - 1 over the tokens so far, then over the sites so far. Every d_i^2 is a log-likelihood
    ratio of "made for expert i" against "any text", up to constants, so they add up; docs/evidence.md derives it.
    The mean over tokens is of two: all alike, which knows the task of the text, and, with the share `recent`, one in
    which a token counts half after `half_life` more, which knows what is asked last. `skip_first`: a first token, at
    which all texts look alike, is no evidence; the `top_k` of the largest |d_i| share it equally.
    Score: `now` * |d_i|, standardised, + `along` * the site's own mean + `up` * e_i; softmax at `temperature` over the
    `top_k` best (None: all). A mixture is weaker than its experts, sum_i w_i ||D_i|| / ||sum_i w_i D_i|| times, D_i =
    s_i B_i A_i; at most sqrt(top_k) times of it the power `strength` is given back (1: all), norms told by `n_sketch`
    random numbers that stand for each D_i (`products.sketch`). Each option off or at 0 takes its part out; what is left
    of compass:normalise=False,n_common=0,calibrate=False,now=1,up=0,strength=0 is Arrow.
    opening: what the base's texts answer to: "user", where the chat template lets a user begin (Xu et al. 2024,
    2406.08464), or "none", the start token; a base without a template takes "none".
    Raises E-PROBE if calibration is wanted and there is no base to ask.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    top_k: int | None = 4
    """Experts kept at each token; None: all."""
    temperature: float = 1.0
    """Temperature of the softmax over the kept."""
    normalise: bool = True
    """Bring each input to root-mean-square 1."""
    n_common: int = 1
    """Directions to leave out that all prototypes of a site share."""
    calibrate: bool = True
    """Measure mean and spread of each direction over texts that the base writes."""
    skip_first: bool = True
    """Take the first token, at which all texts look alike, for no evidence."""
    recent: float = 0.5
    """Share of the mean over tokens in which earlier tokens fade."""
    half_life: float = 2.0
    """Tokens after which a token counts half there."""
    now: float = 0.0
    """Weight of the token's own deviation."""
    along: float = 0.0
    """Weight of the site's own mean over tokens."""
    up: float = 2.0
    """Weight of the evidence over all sites so far."""
    strength: float = 0.5
    """Power of a mixture's weakness that is given back; 1: all of it, 0: nothing."""
    opening: Literal["user", "none"] = "user"
    """What the base's texts answer to: a user's turn, or only the start token."""
    n_texts: int = 48
    """Texts that the base writes."""
    n_tokens: int = 64
    """Tokens of each text."""
    n_sketch: int = 64
    """Random numbers that stand for each expert's product at a site."""
    seed: int = 0
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)
        least = {"n_texts": 1, "n_tokens": 3, "n_common": 0, "n_sketch": 1}
        for name, bound in least.items():
            if (given := getattr(self, name)) < bound:
                raise OptionError("E-OPTION", f"compass: {name}={given}, expected {bound} or more.")
        for name in ("recent", "strength"):
            if not 0 <= (given := getattr(self, name)) <= 1:
                raise OptionError("E-OPTION", f"compass: {name}={given}, expected a number from 0 to 1.")
        if not self.half_life > 0:
            raise OptionError("E-OPTION", f"compass: half_life={self.half_life}, expected a positive number.")

    def deciding_options(self) -> dict[str, object]:
        """List what the texts and the products depend on; all else is the gates' business."""
        weights = {"name": "compass", "n_sketch": self.n_sketch if self.strength else 0}
        if not self.calibrate:
            return weights
        texts = {"opening": self.opening, "n_texts": self.n_texts, "n_tokens": self.n_tokens, "seed": self.seed}
        return {**weights, "normalise": self.normalise, **texts}

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Keep each expert's prototypes, what they give on every token of the base's texts, and its sketches.

        All are of one expert and one site: no other expert has a part in them. The texts are kept for experts to come.
        """
        return self._fit(experts, sites, probe, None)

    def _fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None, texts: Tensor | None) -> State:
        state: State = {}
        names = sorted(experts)
        for site, vectors in prototypes(experts, sites).items():
            state |= stack_members(site, vectors)
            if vectors and self.strength:
                sketches = [sketch(experts[names[i]][site], self.n_sketch) for i in sorted(vectors)]
                state[f"{site}.sketches"] = torch.stack(sketches)  # (P, m)
        if not self.calibrate:
            return state
        if probe is None:
            raise RoutingError("E-PROBE", "compass needs the base to write texts.", "Pass a probe, or calibrate=False.")
        if texts is None:
            texts = probe.sample_texts(
                n_texts=self.n_texts, n_tokens=self.n_tokens, opening=self.opening, seed=self.seed
            )  # (N, T)

        def ask(site: str, h: Tensor) -> Tensor:
            # A first token looks the same in every text, and far from all others. One product after the other, so that
            # its bits don't depend on who else is there.
            vectors = state[f"{site}.vectors"].to(h.device).split(1)
            still = h.new_zeros(1, dtype=torch.float32)
            return torch.cat([_deviation(h[:, 1:], v, still, normalise=self.normalise).half() for v in vectors], -1)

        heard = [site for site in sites if f"{site}.vectors" in state]
        products = probe.over_inputs(texts, heard, ask)  # (N, T - 1, P)
        products_by_site = {f"{site}.products": products[site].flatten(0, 1).T for site in heard}  # (P, n)
        return {**state, **products_by_site, "texts": texts.cpu()}

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
        """Look at the changed experts only; for them the base reads its texts once more."""
        texts = state.get("texts")
        wanted = {"vectors": True, "products": self.calibrate, "sketches": self.strength > 0}
        parts = [part for part, is_wanted in wanted.items() if is_wanted]

        def fit(some: Experts) -> State:
            return self._fit(some, sites, probe, texts)

        updated = refit_members(fit, state, experts, sites, before=before, changed=changed, parts=parts)
        if texts is not None:
            updated["texts"] = texts
        return updated

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site: here the experts of the library meet, and cheaply."""
        return _CompassGate(self, site, state, len(names))

    def instant_gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make Arrow's gate of the prototypes: a short text has few words to go by."""
        gate = self.gate(site, state, names)
        return Arrow().gate(site, state, names) if gate.keeps_evidence else gate


class _CompassGate(Gate):
    vectors: Tensor
    members: Tensor
    shift: Tensor
    less: Tensor
    mean: Tensor
    rate: Tensor
    sketches: Tensor

    def __init__(self, options: Compass, site: Site, state: State, n_experts: int) -> None:
        super().__init__()
        self.options, self.site, self.n_experts = options, site.name, n_experts
        raw, members, self.everybody_listens = members_at(state, site, n_experts)  # (P, d_in), (P,)
        self.n_kept = min(options.top_k or len(members), len(members))
        cleaner = without_common(raw, options.n_common)  # (P, P)
        products = state[f"{site.name}.products"] if options.calibrate and len(raw) else torch.zeros(len(raw), 0)
        offset, spread, mean, rate = calibration(cleaner @ products.float())
        self.register_buffer("vectors", cleaner @ raw / spread.unsqueeze(1), persistent=False)  # (P, d_in)
        self.register_buffer("shift", -offset / spread, persistent=False)  # (P,)
        self.register_buffer("less", -torch.ones(1), persistent=False)
        self.register_buffer("mean", mean, persistent=False)  # (P,)
        self.register_buffer("rate", rate * options.now, persistent=False)  # (P,)
        self.register_buffer("members", members, persistent=False)  # (P,)
        sketches = state.get(f"{site.name}.sketches", raw[:, :0])  # (P, m)
        if len(raw) and options.strength and len(sketches.T) != options.n_sketch:
            raise RoutingError("E-STATE", f"site {site.name!r}: the compass's state has no sketches.", "Fit anew.")
        sizes = torch.linalg.vector_norm(sketches, dim=1, keepdim=True)
        self.register_buffer("sketches", torch.cat([sketches, sizes], 1), persistent=False)  # (P, m + 1)
        self._as_one: _AsOne | None = None

    @property
    def keeps_evidence(self) -> bool:  # type: ignore[override]
        """False if no evidence counts."""
        return bool(self.options.along or self.options.up)

    @property
    def n_chosen(self) -> int | None:
        """The number kept; None if all are."""
        return self.n_kept if 0 < self.n_kept < self.n_experts else None

    def as_one(self, others: Sequence[Gate]) -> GatesAsOne | None:
        """Put the gates' vectors and sketches into one memory each, where they are from then on."""
        if self._as_one is not None and self._as_one.is_of((self, *others)):
            return self._as_one
        gates = [gate for gate in (self, *others) if isinstance(gate, _CompassGate) and gate.is_plain]
        if len(gates) <= len(others) or any(gate.kin != self.kin for gate in gates):
            return None
        self._as_one = _AsOne(gates)
        return self._as_one

    @property
    def is_plain(self) -> bool:
        """Tell whether all experts listen here, and evidence alone counts."""
        return self.everybody_listens and self.n_kept > 0 and self.keeps_evidence and not self.options.now

    @property
    def kin(self) -> tuple[object, ...]:
        """What gates have in common that can be asked as one."""
        return self.options, self.vectors.shape, self.vectors.device, self.sketches.shape

    def forward(self, h: Tensor, context: Context) -> Routing:
        if self.n_kept == 0:
            return silent(h, self.n_experts)
        score = self._score(self._deviation(h), context)
        temperature = self.options.temperature
        if self.n_kept == self.n_experts:
            weights = torch.softmax(score / temperature, dim=-1)
            return Routing(weights.unsqueeze(2), strength=self._strength(weights, None))
        weights, index = weigh_best(score, self.n_kept, temperature)  # (B, T, k)
        strength = self._strength(weights, index)
        return Routing(weights.unsqueeze(2), index if self.everybody_listens else self.members[index], strength)

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        """Route each token by the scores of the allowed; evidence about the others is gathered all the same."""
        if self.n_kept == 0:
            return silent(h, self.n_experts)
        here = allowed if self.everybody_listens else allowed[..., self.members]  # (B, T, P)
        score = unheard(self._score(self._deviation(h), context), here)
        weights, index = weigh_best(score, self.n_kept, self.options.temperature)  # (B, T, k)
        strength, weights = self._strength(weights, index), only_heard(weights, index, here)
        return Routing(weights.unsqueeze(2), index if self.everybody_listens else self.members[index], strength)

    def _deviation(self, h: Tensor) -> Tensor:
        return _deviation(h, self.vectors, self.shift, normalise=self.options.normalise)  # (B, T, P)

    def _strength(self, weights: Tensor, index: Tensor | None) -> Tensor | None:
        found = _strength(weights, index, self.sketches, self.options, self.n_kept)
        return None if found is None else found.unsqueeze(-1)

    def _score(self, deviation: Tensor, context: Context) -> Tensor:
        """Add up (B, T, P) what counts; a part of weight 0 isn't computed."""
        options, parts = self.options, []
        if options.now or not self.keeps_evidence:
            parts.append((deviation.abs() - self.mean) * self.rate)
        if not self.keeps_evidence:
            return parts[0]
        here = _along(options, (self.site,), deviation, self.less, context)  # (B, T, P)
        if options.along:
            parts.append(options.along * here)
        if options.up:
            parts.append(self._risen(here, context))
        return _ordered(options, sum(parts[1:], parts[0]), deviation, context)

    def _risen(self, here: Tensor, context: Context) -> Tensor:
        """Let a site's evidence (B, T, P) join that of the sites below; give what its experts get for it."""
        if self.everybody_listens:
            return context.evidence.up_sites(here, weight=self.options.up)
        # Who is absent from a site shows nothing there, for or against.
        spread = here.new_zeros(*here.shape[:-1], self.n_experts).index_copy(-1, self.members, here)
        return context.evidence.up_sites(spread, weight=self.options.up)[..., self.members]


class _AsOne:
    """G plain gates of one kin that are given one tensor, one after another: what each does, in a third of the steps.

    A step takes a few microseconds for one token, however little it computes.
    """

    def __init__(self, gates: Sequence[_CompassGate]) -> None:
        self.options, self.n_kept, self.n_experts = gates[0].options, gates[0].n_kept, gates[0].n_experts
        self.sites, self.less = tuple(gate.site for gate in gates), gates[0].less
        with torch.inference_mode(False), torch.no_grad():
            self.vectors, self.sketches, self.shift = (
                torch.cat([getattr(gate, name) for gate in gates]) for name in ("vectors", "sketches", "shift")
            )  # (G * P, d_in), (G * P, m + 1), (G * P,)
            places = torch.arange(len(gates), device=self.vectors.device) * self.n_experts
            self.places = places.unsqueeze(1)  # (G, 1)
            self.parts = [
                (v, s) for v, s in zip(*(t.chunk(len(gates)) for t in (self.vectors, self.sketches)), strict=True)
            ]
        for gate, (vectors, sketches) in zip(gates, self.parts, strict=True):
            gate.vectors, gate.sketches = vectors, sketches

    def is_of(self, gates: Sequence[Gate]) -> bool:
        """Tell whether these gates, or their twins, still have their parts in this memory."""
        return len(gates) == len(self.parts) and all(
            isinstance(gate, _CompassGate) and gate.vectors is vectors and gate.sketches is sketches
            for gate, (vectors, sketches) in zip(gates, self.parts, strict=True)
        )

    def __call__(self, h: Tensor, context: Context) -> list[Routing]:
        options, shape = self.options, (len(self.sites), self.n_experts)
        deviation = _deviation(h, self.vectors, self.shift, normalise=options.normalise)  # (B, T, G * P)
        here = _along(options, self.sites, deviation, self.less, context).unflatten(-1, shape)  # (B, T, G, P)
        parts = [options.along * here] if options.along else []
        if options.up:
            parts.append(context.evidence.up_sites_of(here, weight=options.up))
        score = _ordered(options, sum(parts[1:], parts[0]), deviation.unflatten(-1, shape), context)
        index = None
        if self.n_kept == self.n_experts:
            weights = torch.softmax(score / options.temperature, dim=-1)  # (B, T, G, P)
            sketches = self.sketches.unflatten(0, shape)
        else:
            weights, index = weigh_best(score, self.n_kept, options.temperature)  # (B, T, G, k)
            sketches = self.sketches
        rows = None if index is None else index + self.places
        strength = _strength(weights, rows, sketches, options, self.n_kept)  # (B, T, G, 1)
        return [
            Routing(
                weights[:, :, g : g + 1],
                None if index is None else index[:, :, g],
                None if strength is None else strength[:, :, g : g + 1],
            )
            for g in range(len(self.sites))
        ]


def _along(options: Compass, sites: Sequence[str], deviation: Tensor, less: Tensor, context: Context) -> Tensor:
    """Give the sites' own means of d^2 + less over the tokens so far: (B, T, G * P), as deviations d are."""
    return context.evidence.along_tokens_of(
        sites,
        torch.addcmul(less, deviation, deviation),
        context.mask,
        skip_first=options.skip_first,
        recent=options.recent,
        half_life=options.half_life,
    )


def _ordered(options: Compass, score: Tensor, deviation: Tensor, context: Context) -> Tensor:
    """Put experts in an order where nothing is known of them yet: score and deviation (B, T, ..., P)."""
    if not options.skip_first or context.evidence.is_complete:
        return score
    missing = context.evidence.is_missing.to(score.device)
    missing = missing.view(*missing.shape[:2], *[1] * (score.dim() - 2))
    return torch.addcmul(score, missing, deviation.abs(), value=_ORDER)


def _strength(weights: Tensor, rows: Tensor | None, sketches: Tensor, options: Compass, n_kept: int) -> Tensor | None:
    """Tell how many times mixtures, weaker than their experts, are to count: (..., 1); None if once.

    weights (..., k) of the sketches in `rows` (..., k); without them of all sketches, (P, m + 1) or (G, P, m + 1).
    """
    if not options.strength or n_kept == 1:
        return None
    n = weights.shape[:-1].numel()
    if rows is None or torch.compiler.is_compiling():  # a compiler makes one step of what it sees as small products
        of_each = sketches if rows is None else sketches[rows]
        mixed = (weights.unsqueeze(-2) @ of_each).squeeze(-2)  # (..., m + 1)
    elif n <= _FEW_MIXTURES:
        of_each = sketches.index_select(0, rows.reshape(-1)).view(n, n_kept, -1)
        mixed = torch.bmm(weights.reshape(n, 1, -1), of_each).view(*weights.shape[:-1], -1)
    else:
        mixed = sums(weights.reshape(n, -1), sketches, rows.reshape(n, -1)).view(*weights.shape[:-1], -1)
    size = torch.linalg.vector_norm(mixed[..., :-1], dim=-1, keepdim=True)
    # Experts that cancel one another aren't blown up: as if at right angles, at most.
    lost: Tensor = (mixed[..., -1:] / size).clamp(max=math.sqrt(n_kept))
    return lost.pow(options.strength)


def _deviation(h: Tensor, vectors: Tensor, shift: Tensor, *, normalise: bool) -> Tensor:
    """Multiply hidden states (B, T, d) with vectors (P, d) in float32 and add shift (P,): (B, T, P)."""
    h = h.float()
    products = torch.nn.functional.linear(h, vectors)
    if not normalise:
        return products + shift
    # The same as to normalise h, and (B, T, d) is not written again.
    root = math.sqrt(h.shape[-1])
    size = torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp(min=1e-6 * root)
    return torch.addcdiv(shift, products, size, value=root)
