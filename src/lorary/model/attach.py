"""RoutedLinear in; RoutedLinear out, bit for bit."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.base import Bank, Mix
from lorary.errors import AdapterError, RoutingError
from lorary.model.cache_follower import bind, cache_in, evidence_of
from lorary.model.checkpoints import forget_contexts, remember_contexts
from lorary.routing.base import Context, Gate, Routing


class Slot:
    """What all routed layers of one model share during a call: set and cleared by the model, one thread at a time."""

    def __init__(self, mix: Mix) -> None:
        self.mix: Mix = mix
        self.context = self._idle = Context()
        self.bypassed = False
        self.records: dict[str, list[Routing]] | None = None
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __reduce__(self) -> str:
        """Refuse to be copied or pickled, and with it the model that it belongs to. Raises E-ATTACHED."""
        raise AdapterError(
            "E-ATTACHED",
            "this base carries a library: neither it nor its routed model can be copied or pickled.",
            "model.twin() makes a second one over the same memory, model.save() puts it on disk; or detach it first.",
        )

    def enter(self) -> None:
        """Take the slot for this thread. Raises E-BUSY if another thread is in a call that isn't compiled."""
        if torch.compiler.is_compiling():
            return  # a lock can't be in a graph
        if self._owner != threading.get_ident():
            if not self._lock.acquire(blocking=False):
                raise RoutingError(
                    "E-BUSY", "this routed model is busy in another thread.", "Give each thread a model of its own."
                )
            self._owner = threading.get_ident()
        self._depth += 1

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the slot in the block, with no call under way, not even one of this thread. Raises E-BUSY."""
        if self._owner == threading.get_ident():
            raise RoutingError("E-BUSY", "this routed model is in a call of its own.", "Change it when that has ended.")
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the slot back; the context goes with the last one out. Does nothing in a thread that did not get in."""
        if torch.compiler.is_compiling():
            self.context = self.context if self._depth else self._idle
            return
        if self._owner != threading.get_ident():
            return
        self._depth -= 1
        if self._depth == 0:
            self._owner, self.context = None, self._idle
            self._lock.release()


class RoutedLinear(nn.Module):
    """One linear layer of the base plus the experts that its gate lets speak. The base layer is called, not copied."""

    def __init__(self, site: str, base: nn.Module, bank: Bank, gate: Gate, slot: Slot) -> None:
        super().__init__()
        self.site = site
        self.base = base
        self.bank = bank
        self.gate = gate
        # A plain object: not a submodule, and not part of any state dict.
        self.slot = slot

    @property
    def weight(self) -> Any:
        """The base layer's weight, for code of the base that looks at its dtype or device."""
        return self.base.weight

    @property
    def bias(self) -> Any:
        """The base layer's bias."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, d_in) to (B, T, d_out)."""
        y: Tensor = self.base(x)
        slot = self.slot
        if slot.bypassed:
            return y
        flat = x.dim() == 2  # some blocks hand over (B * T, d_in)
        h = x.unsqueeze(0) if flat else x
        routing = _ask(self.gate, h, slot.context)
        if slot.records is not None:
            slot.records.setdefault(self.site, []).append(routing)
        weights = routing.weights_for(slot.mix)
        mixed: Tensor = self.bank(h, y.unsqueeze(0) if flat else y, weights, routing.experts, slot.mix)
        return mixed.squeeze(0) if flat else mixed


def _ask(gate: Gate, h: Tensor, context: Context) -> Routing:
    """Route in float32 under autocast too: in half precision other experts would win."""
    if torch.is_autocast_enabled(h.device.type):
        with torch.autocast(h.device.type, enabled=False):
            return _ask(gate, h, context)
    routing: Routing = gate(h, context)
    return routing


class Attachment:
    """Routed layers in a model; `detach` puts the very same base layers back."""

    def __init__(self, model: nn.Module, parts: Mapping[str, tuple[Bank, Gate]], slot: Slot) -> None:
        """Put a routed layer at every named site. Raises E-ATTACHED if the model carries some already."""
        if any(isinstance(module, RoutedLinear) for module in model.modules()):
            raise AdapterError(
                "E-ATTACHED", "this base already carries a library.", "Detach the other routed model first."
            )
        self.model = model
        self.slot = slot
        self.layers: dict[str, RoutedLinear] = {}
        self._keeps_evidence = False
        self.swap(parts)
        self.hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, always_call=True),
        ]

    @property
    def parts(self) -> dict[str, tuple[Bank, Gate]]:
        """The bank and the gate at every site. Raises E-DETACHED after `detach`."""
        self.require_attached()
        return {site: (layer.bank, layer.gate) for site, layer in self.layers.items()}

    def swap(self, parts: Mapping[str, tuple[Bank, Gate]]) -> None:
        """Let these banks and gates work, at these sites, in the place of the present ones."""
        for bank, gate in parts.values():
            bank.tune(gate.n_chosen)
        # All are made before the first is put in, so that what fails leaves the model as it was.
        new = {site: self._routed(site, *parts[site]) for site in parts.keys() - self.layers.keys()}
        for site in self.layers.keys() - parts.keys():
            _put(self.model, site, self.layers[site].base)
        for site, layer in new.items():
            _put(self.model, site, layer)
        self.layers = {site: new.get(site) or self.layers[site] for site in parts}
        for site, layer in self.layers.items():
            bank, gate = parts[site]
            layer.bank, layer.gate = bank.train(layer.training), gate.train(layer.training)
        self._keeps_evidence = any(gate.keeps_evidence for _, gate in parts.values())

    def _routed(self, site: str, bank: Bank, gate: Gate) -> RoutedLinear:
        base = self.model.get_submodule(site)
        return RoutedLinear(site, base, bank, gate, self.slot).train(base.training)

    def detach(self) -> None:
        """Put the base layers back; a second call does nothing."""
        for site, layer in self.layers.items():
            _put(self.model, site, layer.base)
        for hook in self.hooks:
            hook.remove()
        forget_contexts(self.model)
        self.layers, self.hooks = {}, []

    @contextmanager
    def turn(self, context: Context) -> Iterator[None]:
        """Let all calls in the block see this context. Raises E-BUSY, and E-DETACHED after `detach`."""
        self.require_attached()
        self.slot.enter()
        self.slot.context = context
        try:
            yield
        finally:
            self.slot.leave()

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Let the base speak alone in the block."""
        self.slot.enter()
        before, self.slot.bypassed = self.slot.bypassed, True
        try:
            yield
        finally:
            self.slot.bypassed = before
            self.slot.leave()

    def require_attached(self) -> None:
        """Raise E-DETACHED after `detach`."""
        if not self.layers:
            raise RoutingError("E-DETACHED", "this routed model was detached from its base.", "Route the library anew.")

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.slot.enter()
        ids = kwargs.get("input_ids", args[0] if args else None)
        shape = (ids if ids is not None else kwargs["inputs_embeds"]).shape
        context = _repeat_rows(self.slot.context, shape[0])
        if self._keeps_evidence:
            mask = kwargs.get("attention_mask")
            mask = mask[:, -shape[1] :].bool() if mask is not None and mask.dim() == 2 else None
            context = replace(context, mask=mask, evidence=evidence_of(cache_in(kwargs)))
            context.evidence.start_call()
        self.slot.context = context
        if model.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            seen = self._keeps_evidence or context.experts is not None or context.features is not None
            remember_contexts(model, self.slot, needed=seen)

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = cache_in(output) if isinstance(output, Mapping) else None
        if self._keeps_evidence and cache is not None:
            bind(cache, self.slot.context.evidence)  # made during the call
        self.slot.leave()


def _put(model: nn.Module, site: str, module: nn.Module) -> None:
    parent, _, name = site.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _repeat_rows(context: Context, n_rows: int) -> Context:
    """Follow a search that expands each row to several: (B, ...) -> (B * n, ...)."""
    if context.experts is not None and context.experts.shape[0] != n_rows:
        n = n_rows // context.experts.shape[0]
        context = replace(context, experts=torch.repeat_interleave(context.experts, n, dim=0))
    if context.features is not None and context.features.shape[0] != n_rows:
        n = n_rows // context.features.shape[0]
        context = replace(context, features=torch.repeat_interleave(context.features, n, dim=0))
    return context
