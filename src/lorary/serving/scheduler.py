"""Who is answered when: one thread asks the models, everybody else hands in requests and hears tokens.

Each turn reads a piece of the prompts that wait and gives every answer under way one more token, so that a long prompt
doesn't hold the others up.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from lorary.errors import LoraryError, ModelError
from lorary.model.decoding.decoder import Arriving, Decoder, Request
from lorary.model.decoding.rows import Caller

_ALIKE = 1.25  # prompts that are read together are no longer than this times the shortest


@dataclass(frozen=True)
class Limits:
    """What the server bounds. rows: answers at once, of each model; waiting: requests before others are refused.

    tokens: prompt and answer of all that are answered at once, padding included; piece: prompt tokens between two
    tokens of the answers under way.
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
    arriving: Arriving | None = None
    asks: dict[Request, Ask] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.asks)


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
            if desk.arriving is not None and all(desk.asks[r].is_gone for r in desk.arriving.requests):
                desk.asks = {r: ask for r, ask in desk.asks.items() if r not in desk.arriving.requests}
                desk.arriving = None
            if desk.arriving is not None and desk.arriving.read(self.limits.piece):
                arriving, desk.arriving = desk.arriving, None
                desk.decoder.join(arriving)
            desk.decoder.drop(lambda request: desk.asks[request].is_gone)
            desk.decoder.step()
            desk.asks = {request: ask for request, ask in desk.asks.items() if not ask.request.is_over}
        except Exception as error:  # whatever it is, those who wait must hear of it, and the next be answered
            self._fail(desk, list(desk.asks.values()), error)
            desk.decoder, desk.arriving = Decoder(desk.caller, self._device), None

    def _admit(self, desk: _Desk) -> None:
        """Begin to read the prompts of those who wait longest, as many as fit and are about as long."""
        if desk.arriving is not None or not desk.decoder.is_open:
            return
        with self._guard:
            chosen = list(self._fitting(desk))
        if chosen:
            desk.asks |= {ask.request: ask for ask in chosen}
            desk.arriving = desk.decoder.arriving([ask.request for ask in chosen])

    def _fitting(self, desk: _Desk) -> Iterable[Ask]:
        under_way = [ask for other in self._desks.values() for ask in other.asks.values()]
        room = self.limits.tokens - len(under_way) * max((ask.n_tokens for ask in under_way), default=0)
        shortest = longest = n_chosen = 0
        while desk.waiting and desk.decoder.n_rows + n_chosen < self.limits.rows:
            ask = desk.waiting[0]
            if ask.is_gone:
                desk.waiting.popleft()
                continue
            n = len(ask.request.prompt)
            shortest, longest = min(shortest or n, n), max(longest, n)
            apart = n_chosen and (longest > self.limits.piece or ask.request.tells_prompt)  # to be read in pieces
            if room < ask.n_tokens or apart or longest > _ALIKE * shortest:
                return
            room -= ask.n_tokens
            n_chosen += 1
            yield desk.waiting.popleft()

    def _fail(self, desk: _Desk, asks: Sequence[Ask], error: Exception) -> None:
        desk.asks = {}
        desk.waiting = deque(ask for ask in desk.waiting if ask not in asks)
        for ask in asks:
            ask.on_error(error)
