"""Routing, Context, Gate, Router, Probe: which experts are used at each token, and what may decide it.

Shape letters: B batch, T time, S splits, E experts of the library in order of their names, k kept.
"""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from lorary.adapters.contract import Experts, Site
from lorary.errors import OptionError
from lorary.folder import ROUTERS
from lorary.options import Options, as_dict, make, require
from lorary.routing.evidence import Evidence
from lorary.routing.routing import Routing as Routing
from lorary.routing.routing import joined

_MOST_INNER = 16
Split = Literal["train", "valid"]
State = dict[str, Tensor]
"""What a router learnt or derived, by name; stored as one safetensors file."""


@dataclass
class Context:
    """What gates may know besides the hidden state; one per sequence batch, set by the model for the time of a call.

    experts: (B,) the right expert of each row, for the oracle; for learned weights, the number of its task.
    features: (B, F) of each row's whole prompt.
    mask: (B, T), False at padding, for the tokens of this call.
    """

    experts: Tensor | None = None
    features: Tensor | None = None
    mask: Tensor | None = None
    evidence: Evidence = field(default_factory=Evidence)

    def select(self, rows: Tensor) -> "Context":
        """Give what is told of some of the rows, between calls."""
        experts, features = (part if part is None else part[rows] for part in (self.experts, self.features))
        return Context(experts, features)

    def joined(self, other: "Context") -> "Context":
        """Give what is told of these rows and of others behind them, between calls."""
        return Context(joined(self.experts, other.experts, 0), joined(self.features, other.features, 0))


class Gate(nn.Module, ABC):
    """The router at one site, at run time. No host synchronisation, no view of other rows.

    `keeps_evidence`: True if it reads or adds to `Context.evidence`; a gate that doesn't pays nothing for it.
    """

    keeps_evidence: ClassVar[bool] = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Gate":
        """Follow the model to another device, and stay in float32 when it goes to another precision.

        In half precision other experts would win.
        """

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(moved, recurse)
        return self

    @property
    def n_chosen(self) -> int | None:
        """How many experts it chooses at every token; None if it gives weights for all."""
        return None

    def as_one(self, others: Sequence["Gate"]) -> "GatesAsOne | None":
        """Give one question that answers for this gate and for others, which get the same tensor right after it.

        None: each is asked by itself. It is put in calls without gradients, and may be asked for before each.
        """
        return None

    @abstractmethod
    def forward(self, h: Tensor, context: Context) -> Routing:
        """Route hidden states h (B, T, d_in), the input of the site's linear layer."""

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        """Route as if each token had only the experts of `allowed` (B, T, E), True where one may be used.

        Here the weights of the others go to these, in proportion. Gates that keep the best of some scores choose among
        the allowed. A token that has none gives every expert the weight zero.
        """
        routing: Routing = self(h, context)
        return routing.among(allowed)


class GatesAsOne(Protocol):
    """Several gates, asked together."""

    def __call__(self, h: Tensor, context: Context) -> Sequence[Routing]:
        """Route hidden states h (B, T, d_in) as each gate would, one after another."""


class Probe(Protocol):
    """Facts that a router's `fit` may ask for.

    With "base" in its `needs` those of the base, with "examples" all, with "learned" what a builder left.
    """

    def sample_texts(self, *, n_texts: int, n_tokens: int, opening: str, seed: int) -> Tensor:
        """Let the base, without any expert, write texts at temperature 1: ids (N, T), the same for the same seed.

        opening: "user" if they follow what a chat template puts before a user's turn, "none" if only the start token.
        """

    def over_inputs(
        self, texts: Tensor, sites: Collection[str], ask: Callable[[str, Tensor], Tensor]
    ) -> Mapping[str, Tensor]:
        """Read texts (N, T) with the base alone: site -> what `ask(site, inputs (n, T, d))` gave, joined (N, ...)."""

    def mean_inputs(
        self, expert: str, *, n_examples: int, per_task: bool = False, after_answer: bool = False,
        every_token: bool = False,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        """Run the expert on its own training prompts: site name -> mean last-token input (d_in,), float32.

        per_task: n_examples of each of its tasks, not of all together. after_answer: the answer and its end are read,
        too, so that the last token is the one that ends it. every_token: the mean over each text's tokens counts in the
        place of its last one.
        """

    def prompt_features(
        self, encoder: str, *, n_examples: int, split: Split = "train", every_task: bool = False
    ) -> tuple[Tensor, Sequence[str]]:
        """Encode the prompts of the experts' tasks, n_examples of each: features (N, F) float32, and each one's task.

        every_task: of all tasks that were given, whether an expert was trained on them or not.
        """

    def answer_losses(
        self, expert: str, tasks: Sequence[str], *, split: Split, start: int, stop: int
    ) -> Mapping[str, tuple[float, int]]:
        """Judge the examples from start to stop of each task with one expert: the sum of nats, and of how many.

        An example's nats are those of its answer, its end included.
        """

    def tasks_of(self, expert: str) -> Sequence[str]:
        """Name the tasks that an expert was trained on."""

    def learned(self, kind: str, expert: str | None = None) -> State | None:
        """Fetch what the builder `kind` learned beside all experts together, or beside one, if it did."""


@dataclass(frozen=True)
class Survey:
    """What a router reads off prompts before they are answered, in a pass of its own.

    site: the layer whose inputs are read. everybody: all experts are at work, each with the weight 1, outputs added;
    else none is. read: inputs at the prompts' last tokens (B, d_in) -> `Context.features` (B, F).
    """

    site: str
    everybody: bool
    read: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Router(Options, ABC):
    """Options of one way to route. `fit` learns from experts, `gate` makes the part that runs at one site.

    `needs`: any of {"base": `fit` asks the probe about the base, "examples": and about the training data, "tasks": of
    whatever tasks are given,
    "task": the right expert of each row must be known, "text": gates read `Context.features`, of the `encoder` that it
    names, "survey": those of its `survey`, "learned": a builder left weights for it}; empty = the experts' weights
    alone.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    in_words: ClassVar[str] = "a router, such as arrow:top_k=2"
    """What an option takes that is a router itself."""

    @classmethod
    def from_option(cls, text: str) -> "Router":
        """Read the router of an option, in brackets or not. Raises E-NAME, E-OPTION."""
        inner = text.strip()
        if inner.count(":") > _MOST_INNER:
            raise OptionError("E-OPTION", f"{inner[:40]!r}...: more than {_MOST_INNER} routers ask one another.")
        if inner.startswith('"'):
            with contextlib.suppress(ValueError):
                inner = str(json.loads(inner))
        return find_router(inner[1:-1] if inner.startswith("(") and inner.endswith(")") else inner)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str) -> "Router":
        """Make a router of what `as_dict` made of it. Raises E-NAME, and E-OPTION for what is none."""
        options = dict(value)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise OptionError("E-OPTION", f"{where}, expected {cls.in_words}.")
        made: Router = make(ROUTERS.load(name), options, called=name)
        return made

    @property
    def inner(self) -> "tuple[Router, ...]":
        """The routers that this one asks, if any."""
        return ()

    @abstractmethod
    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Derive the state from the experts; changes none of them."""

    def deciding_options(self) -> dict[str, object]:
        """List the options that decide what `fit` makes: routers that agree in them share a stored state."""
        return as_dict(self)

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
        """Give the state after experts came, went or changed: what `fit` would give, to the bit.

        `state` was fitted to the experts named in `before`; those in `changed` are new or other than they were.
        Routers whose state is per expert look at these alone (`members.refit_members`); others fit again.
        """
        return self.fit(experts, sites, probe)

    @abstractmethod
    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from the state alone; `names` are all experts in order."""

    def survey(self, sites: Mapping[str, Site], state: State, names: Sequence[str]) -> Survey | None:
        """Say what is to be read off each prompt, if it needs "survey"; `sites` as in `fit`."""
        return None

    def instant_gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that judges each token by itself, as is asked of a short text about nothing in particular.

        The gate itself, save for routers that gather evidence.
        """
        return self.gate(site, state, names)


def find_router(router: Router | str) -> Router:
    """Take a router, or make it of its spec: "arrow:top_k=2". Raises E-NAME, and E-OPTION for what is neither."""
    found: Router = ROUTERS.parse(router) if isinstance(router, str) else router
    require("router", found, Router, "a router", 'Give one, such as Arrow(top_k=2) or "arrow:top_k=2".')
    return found
