"""Who is answered when: one thread asks the models, everybody else hands in requests and hears tokens.

Each turn reads a piece of the prompts that wait and gives every answer under way one more token, so that a long prompt
doesn't hold those up; and while it is read, short ones that came later are read beside it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from lorary.errors import LoraryError, ModelError
from lorary.model.decoding.decoder import Arriving, Decoder, Request
from lorary.model.decoding.sequences import Caller

_ALIKE = 1.25  # prompts that are read together are no longer than this times the shortest


@dataclass(frozen=True)
class Limits:
    """What the server bounds. rows: answers at once, of each model; waiting: requests before others are refused.

    tokens: prompt and answer of all that are answered at once, padding included; piece: prompt tokens, of a long prompt
    and of short ones each, between two tokens of the answers under way.
    """

    rows: int = 32
    waiting: int = 128
    tokens: int = 65_536
    piece: int = 256


@dataclass(eq=False)
class Ask:
    """One answer for somebody who waits. The request's listener and on_error are called in the scheduler's thread."""

    request: Request
    on_error: Callable[[Exception], None]
    is_gone: bool = False

    @property
    def n_tokens(self) -> int:
        """The most tokens that it can grow to."""
        return len(self.request.prompt) + self.request.max_new_tokens


class FullError(LoraryError):
    """So many wait that another would wait too long."""


@dataclass(eq=False)
class _Desk:
    """One model: who waits for it, whose prompts are being read, and who is answered."""

    caller: Caller
    decoder: Decoder
    waiting: deque[Ask] = field(default_factory=deque)
    arriving: list[Arriving] = field(default_factory=list)
    asks: dict[Request, Ask] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.asks)

    @property
    def n_tokens(self) -> int:
        """What all that are answered can grow to, each as wide as the longest."""
        return len(self.asks) * max((ask.n_tokens for ask in self.asks.values()), default=0)


class Scheduler:
    """Answers for several models over one base. `submit` may be called from any thread."""

    def __init__(self, callers: Mapping[str, Caller], device: torch.device, limits: Limits) -> None:
        self.limits = limits
        self._device = device
        self._desks = {name: self._opened(caller) for name, caller in callers.items()}
        self._closing: list[tuple[frozenset[str], Callable[[], None]]] = []
        self._guard = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="lorary-scheduler", daemon=True)

    def _opened(self, caller: Caller) -> _Desk:
        return _Desk(caller, Decoder(caller, self._device))

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse what isn't answered yet, and end."""
        with self._guard:
            self._stopping = True
            self._guard.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def n_waiting(self) -> int:
        """Requests whose prompts nobody has begun to read."""
        return sum(len(desk.waiting) for desk in self._desks.values())

    @property
    def n_answering(self) -> int:
        """Answers under way."""
        return sum(len(desk.asks) for desk in self._desks.values())

    def submit(self, model: str, asks: Sequence[Ask]) -> None:
        """Queue requests for a model. Raises FullError (E-FULL) when too many wait, E-LENGTH for one that can't fit."""
        if any(ask.n_tokens > self.limits.tokens for ask in asks):
            what = f"prompt and answer may have {self.limits.tokens:,} tokens together here."
            raise ModelError("E-LENGTH", what, "Ask for fewer tokens.")
        with self._guard:
            if self._stopping or self.n_waiting + len(asks) > self.limits.waiting:
                raise FullError("E-FULL", f"{self.n_waiting} requests wait already.", "Try again in a moment.")
            self._desks[model].waiting.extend(asks)
            self._guard.notify_all()

    def exchange(self, coming: Mapping[str, Caller], leaving: Iterable[str], on_closed: Callable[[], None]) -> None:
        """Open desks, and close others when all who came there have their answers: then `on_closed` is called."""
        with self._guard:
            self._desks = {**self._desks, **{name: self._opened(caller) for name, caller in coming.items()}}
            self._closing.append((frozenset(leaving), on_closed))
            self._guard.notify_all()

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._guard:
                    self._close_idle()
                    while not (self._stopping or any(desk.is_busy for desk in self._desks.values())):
                        self._guard.wait()
                        self._close_idle()
                    if self._stopping:
                        break
                    desks = list(self._desks.values())
                for desk in desks:
                    self._turn(desk)
        for desk in self._desks.values():
            self._fail(desk, [*desk.asks.values(), *desk.waiting], FullError("E-FULL", "the server is stopping."))
        self._close_idle()

    def _close_idle(self) -> None:
        """Close the desks that are to be and where nobody is left."""
        for closing in list(self._closing):
            names, on_closed = closing
            if not any(self._desks[name].is_busy for name in names):
                self._closing.remove(closing)
                self._desks = {name: desk for name, desk in self._desks.items() if name not in names}
                on_closed()

    def _turn(self, desk: _Desk) -> None:
        try:
            self._admit(desk)
            for arriving in sorted(desk.arriving, key=lambda one: one.n_left):  # the short ones don't wait for a piece
                self._read(desk, arriving)
            desk.decoder.drop(lambda request: desk.asks[request].is_gone)
            desk.decoder.step()
            desk.asks = {request: ask for request, ask in desk.asks.items() if not ask.request.is_over}
        except Exception as error:  # whatever it is, those who wait must hear of it, and the next be answered
            self._fail(desk, list(desk.asks.values()), error)
            desk.decoder, desk.arriving = Decoder(desk.caller, self._device), []

    def _admit(self, desk: _Desk) -> None:
        """Begin to read the prompts of those who wait longest, as many as fit and are about as long.

        While a prompt is read piece by piece, those that take no more than a piece come beside it: nobody is overtaken
        for longer than one prompt is read.
        """
        if not desk.decoder.is_open or (desk.arriving and not desk.arriving[0].rows.can_join):
            return
        with self._guard:
            desk.waiting = deque(ask for ask in desk.waiting if not ask.is_gone)
            short = [ask for ask in desk.waiting if self._is_short(ask)] if desk.arriving else list(desk.waiting)
            chosen = list(self._fitting(desk, short))
            desk.waiting = deque(ask for ask in desk.waiting if ask not in chosen)
        if chosen:
            desk.asks |= {ask.request: ask for ask in chosen}
            desk.arriving.append(desk.decoder.arriving([ask.request for ask in chosen]))

    def _is_short(self, ask: Ask) -> bool:
        return len(ask.request.prompt) <= self.limits.piece

    def _fitting(self, desk: _Desk, waiting: Sequence[Ask]) -> Iterable[Ask]:
        """Give the first of those who wait, as many as may be read in one call: a piece, where others wait for it."""
        others = sum(other.n_tokens for other in self._desks.values() if other is not desk)
        widest = max((ask.n_tokens for ask in desk.asks.values()), default=0)
        shortest = longest = 0
        for n_before, ask in enumerate(waiting):
            n = len(ask.request.prompt)
            shortest, longest, widest = min(shortest or n, n), max(longest, n), max(widest, ask.n_tokens)
            n_rows = len(desk.asks) + n_before + 1
            if n_rows > self.limits.rows or others + n_rows * widest > self.limits.tokens:
                return
            n_read = (n_before + 1) * longest if desk.asks else longest
            is_told = any(one.request.tells_prompt for one in waiting[: n_before + 1])
            if n_before and (is_told or n_read > self.limits.piece or longest > _ALIKE * shortest):
                return
            yield ask

    def _read(self, desk: _Desk, arriving: Arriving) -> None:
        """Read a piece of prompts, and let them join when all is read; or let go of them if nobody waits any more."""
        if all(desk.asks[request].is_gone for request in arriving.requests):
            desk.asks = {request: ask for request, ask in desk.asks.items() if request not in arriving.requests}
            desk.arriving.remove(arriving)
        elif arriving.read(self.limits.piece):
            desk.arriving.remove(arriving)
            desk.decoder.join(arriving)

    def _fail(self, desk: _Desk, asks: Sequence[Ask], error: Exception) -> None:
        desk.asks = {}
        desk.waiting = deque(ask for ask in desk.waiting if ask not in asks)
        for ask in asks:
            ask.on_error(error)
