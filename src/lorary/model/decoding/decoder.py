"""Many answers at once, token by token: new ones join between two steps, and those that end leave at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorary.errors import ModelError
from lorary.evaluation.sampling import GREEDY, Sampling
from lorary.model.attached.spoken import Spoken
from lorary.model.decoding.next_token import Sampler, choose
from lorary.model.decoding.sequences import Caller, Rows
from lorary.model.text.tokens import Encoded, pad
from lorary.tasks.example import Example


@dataclass(frozen=True)
class Token:
    """One token of an answer. logprob, in nats, and `likeliest` (id, nats) are None and empty unless asked for.

    ending: None, or why it is the last: "stop" for a stop token, which isn't part of the answer, "length".
    spoken: which experts it was chosen with, if that is asked for.
    """

    number: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()
    ending: str | None = None
    spoken: Spoken | None = None


Listener = Callable[[Token], bool]
"""Hears an answer's tokens; returns whether it wants more."""


@dataclass(eq=False)
class Request:
    """One answer that is asked for. example: what the router may know of it; prompt: as token ids, at least one.

    stops: tokens that end it. n_logprobs: None, or how many of the likeliest tokens are told with each.
    tells_prompt: whether `read` is to hold the prompt's own tokens with their logprobs, the first one without.
    tells_routing: whether each token is to say which experts it was chosen with.
    """

    example: Example
    prompt: Sequence[int]
    max_new_tokens: int
    listener: Listener
    stops: frozenset[int] = frozenset()
    sampling: Sampling = GREEDY
    n_logprobs: int | None = None
    tells_prompt: bool = False
    tells_routing: bool = False
    read: list[Token] = field(default_factory=list, init=False)
    n_made: int = field(default=0, init=False)
    last: int = field(default=-1, init=False)
    is_over: bool = field(default=False, init=False)
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.sampling)

    def take(self, number: int, logits: Tensor, spoken: Spoken | None) -> bool:
        """Tell the listener of the next token, chosen from logits (V,); give whether the answer goes on."""
        self.n_made += 1
        stopped = number in self.stops
        ending = "stop" if stopped else "length" if self.n_made >= self.max_new_tokens else None
        logprob, likeliest = (None, ()) if self.n_logprobs is None else _logprobs(logits, number, self.n_logprobs)
        return self.listener(Token(number, logprob, likeliest, ending, spoken)) and ending is None


def _logprobs(logits: Tensor, number: int, n: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    nats = logits.float().log_softmax(-1)
    values, numbers = nats.topk(n)
    return float(nats[number]), tuple(zip(numbers.tolist(), values.tolist(), strict=True))


class Arriving:
    """Requests whose prompts are being read, all in one batch; a single one may be read piece by piece."""

    def __init__(self, caller: Caller, requests: Sequence[Request], device: torch.device) -> None:
        self.requests = list(requests)
        self.rows = Rows(caller, caller.prepare([request.example for request in requests]))
        batch = pad([Encoded(tuple(request.prompt), ()) for request in requests]).to(device)
        self._ids, self._mask = batch.ids, batch.mask
        self.logits: Tensor | None = None

    @property
    def n_left(self) -> int:
        """Tokens of each row that aren't read yet."""
        return self._ids.shape[1] - self.rows.n_tokens

    def read(self, n_tokens: int | None = None) -> bool:
        """Read on, by so many tokens at most if there is one row; give whether all is read."""
        n = self.n_left if n_tokens is None or len(self.requests) > 1 else min(n_tokens, self.n_left)
        start = self.rows.n_tokens
        every = any(request.tells_prompt for request in self.requests)
        recorded = n == self.n_left and any(request.tells_routing for request in self.requests)
        ids, mask = (part[:, start : start + n] for part in (self._ids, self._mask))
        logits = self.rows.read(ids, mask, every=every, recorded=recorded)
        for row, request in enumerate(self.requests):
            if request.tells_prompt:
                self._tell_prompt(request, logits[row], start + n)
        self.logits = logits[:, -1]
        return not self.n_left

    def _tell_prompt(self, request: Request, logits: Tensor, end: int) -> None:
        """Note the tokens that these logits (t, V) foresee; `end`: the column behind the last that was read."""
        prompt, width = request.prompt, self._ids.shape[1]
        if not request.read:
            request.read.append(Token(prompt[0]))
        begin = len(prompt) - width + end - len(logits)  # the place in the prompt of the first of them
        for place, row in enumerate(logits, start=begin + 1):
            if 0 < place < len(prompt):
                request.read.append(Token(prompt[place], *_logprobs(row, prompt[place], request.n_logprobs or 0)))


class Decoder:
    """Answers under way, one row each. Not for several threads; call it under `torch.inference_mode()`."""

    def __init__(self, caller: Caller, device: torch.device) -> None:
        self._caller, self._device = caller, device
        self._rows: Rows | None = None
        self._requests: list[Request] = []

    @property
    def n_rows(self) -> int:
        """Answers under way."""
        return sum(not request.is_over for request in self._requests)

    @property
    def n_tokens(self) -> int:
        """The longest of them, prompt included."""
        return self._rows.n_tokens if self._rows is not None else 0

    @property
    def is_open(self) -> bool:
        """Tell whether others may join: some bases' caches only let rows leave, so that a batch must end first."""
        return self._rows is None or self._rows.can_join

    def arriving(self, requests: Sequence[Request]) -> Arriving:
        """Give requests whose prompts are to be read, by `read`, and then handed to `join`."""
        return Arriving(self._caller, requests, self._device)

    def join(self, arriving: Arriving) -> None:
        """Let requests join whose prompts are read: they get their first tokens."""
        assert arriving.logits is not None and self.is_open
        rows, requests = arriving.rows, arriving.requests
        going = self._take(requests, arriving.logits, rows.spoken)
        if not going:
            return
        if not rows.can_be_continued:
            what = "this base hands on no cache, so that its answers can't be made token by token here."
            raise ModelError("E-BASE", what, "Generate with transformers: model.generate().")
        if rows.can_leave:
            rows.keep(going)
            requests = [requests[row] for row in going]
        if self._rows is None:
            self._rows = rows
        else:
            self._rows.add(rows)
        self._requests += requests

    def step(self) -> None:
        """Give every answer one more token."""
        if self._rows is None:
            return
        last = torch.tensor([[request.last] for request in self._requests], device=self._device)
        recorded = any(request.tells_routing for request in self._requests)
        logits = self._rows.read(last, torch.ones_like(last), recorded=recorded)[:, -1]
        going = self._take(self._requests, logits, self._rows.spoken)
        self._keep(going)

    def drop(self, is_gone: Callable[[Request], bool]) -> None:
        """Let go of answers that nobody waits for."""
        for request in self._requests:
            request.is_over = request.is_over or is_gone(request)
        self._keep([row for row, request in enumerate(self._requests) if not request.is_over])

    def _keep(self, going: Sequence[int]) -> None:
        if self._rows is None or len(going) == len(self._requests):
            return
        if going and not self._rows.can_leave:  # those that have ended stay, unheard, until all have
            return
        self._requests = [self._requests[row] for row in going]
        if going:
            self._rows.keep(going)
        else:
            self._rows = None

    @staticmethod
    def _take(requests: Sequence[Request], logits: Tensor, spoken: Spoken | None) -> list[int]:
        """Choose and tell the next token of each row; give the rows that go on."""
        chosen = choose(logits, [request.sampler for request in requests])
        going: list[int] = []
        for row, (request, number) in enumerate(zip(requests, chosen, strict=True)):
            request.last = number
            if request.is_over:
                continue
            told = spoken.of(row) if spoken is not None and request.tells_routing else None
            request.is_over = not request.take(number, logits[row], told)
            if not request.is_over:
                going.append(row)
        return going
