"""What all routed layers of one model share during a call: what the gates are told, and the lock of the call."""

import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Mix
from lorary.errors import AdapterError, RoutingError
from lorary.model.attached.same_input import SameInput
from lorary.routing.contract import Context, Routing

_eras = itertools.count()


class Slot:
    """The context of the call under way, and a lock: one thread at a time.

    Calls may nest, as when a logits processor calls the model: each has its own context, and the outer call gets its
    context back.
    """

    def __init__(self, mix: Mix) -> None:
        self.mix: Mix = mix
        self.bypassed = False
        self.everybody = False
        self.records: dict[str, list[Routing]] | None = None
        self.evidence: Tensor | None = None
        """(B, T, E) of the last call that was recorded, over all sites; None of a router that keeps none."""
        self.shape: tuple[int, int] | None = None
        """(B, T) of the call under way, for layers that are given (B * T, d)."""
        self.era = next(_eras)
        """A new number with every change of the experts or their router."""
        self.model: nn.Module | None = None
        self.same_input = SameInput()
        self._contexts = [Context()]  # the first is of no call, the last of the innermost
        self._guard = threading.Lock()
        self._owner: int | None = None
        self._n_held = 0

    def __reduce__(self) -> str:
        """Refuse to be copied or pickled, and with it the model that it belongs to. Raises E-ATTACHED."""
        raise AdapterError(
            "E-ATTACHED",
            "this base carries a library: neither it nor its routed model can be copied or pickled.",
            "model.twin() makes a second one over the same memory, model.save() puts it on disk; or detach it first.",
        )

    @property
    def context(self) -> Context:
        """What the gates are told in this call."""
        return self._contexts[-1]

    @context.setter
    def context(self, context: Context) -> None:
        self._contexts[-1] = context

    def enter(self) -> None:
        """Begin a call in this thread, with the context of the outer one.

        Raises E-BUSY if another thread is in a call that isn't compiled.
        """
        if not torch.compiler.is_compiling():  # a lock can't be in a graph
            me = threading.get_ident()
            with self._guard:
                if self._owner != me:
                    self._refuse_if_busy()
                    self._owner = me
            self.same_input.rest()
        self._contexts.append(self.context)

    def leave(self) -> None:
        """End the innermost call. Does nothing in a thread that did not get in."""
        if not torch.compiler.is_compiling() and self._owner != threading.get_ident():
            return
        if not torch.compiler.is_compiling():
            self.same_input.rest()
        self._contexts.pop()
        if len(self._contexts) == 1:
            self._owner = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the slot for this thread in the block. Raises E-BUSY."""
        self.enter()
        self._n_held += 1
        depth = len(self._contexts)
        try:
            yield
        finally:
            del self._contexts[depth:]  # of calls that were interrupted
            self._n_held -= 1
            self.leave()

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Switch all experts off in the block. Raises E-BUSY."""
        with self.held():
            before, self.bypassed = self.bypassed, True
            try:
                yield
            finally:
                self.bypassed = before

    @contextmanager
    def with_everybody(self) -> Iterator[None]:
        """Let, in the block, every expert speak at every token with the weight 1, outputs added. Raises E-BUSY."""
        with self.held():
            before = self.bypassed, self.everybody, self.mix
            self.bypassed, self.everybody, self.mix = False, True, "outputs"
            try:
                yield
            finally:
                self.bypassed, self.everybody, self.mix = before

    @contextmanager
    def recording(self) -> Iterator[dict[str, list[Routing]]]:
        """Note, in the block, what every site routes, by site: each token of each row has a routing of its own.

        And what a call's evidence comes to, in `evidence`.
        """
        records: dict[str, list[Routing]] = {}
        self.records, self.evidence = records, None
        try:
            yield records
        finally:
            self.records = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the slot in the block while no call is under way, not even one of this thread. Raises E-BUSY."""
        with self._guard:
            self._refuse_if_busy()
        with self.held():
            yield

    def new_era(self) -> None:
        """Note that the experts or the router have changed."""
        self.era = next(_eras)

    def _refuse_if_busy(self) -> None:
        """Raise E-BUSY if a call is under way. What an interrupted one left is cleared away."""
        if self._owner is not None and (self._n_held or self._is_running()):
            if self._owner == threading.get_ident():
                what, hint = "is in a call of its own.", "Change it when that has ended."
            else:
                what, hint = "is busy in another thread.", "Give each thread a model of its own."
            raise RoutingError("E-BUSY", f"this routed model {what}", hint)
        self._owner = None
        del self._contexts[1:]

    def _is_running(self) -> bool:
        """Tell whether the owner is in the model's call: after Ctrl-C in one, torch runs no hook that would tell."""
        frame: FrameType | None = sys._current_frames().get(self._owner or 0)
        while frame is not None:
            if frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals.get("self") is self.model:
                return True
            frame = frame.f_back
        return False
