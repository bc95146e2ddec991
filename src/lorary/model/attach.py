"""RoutedLinear in; RoutedLinear out, bit for bit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.base import Bank
from lorary.errors import AdapterError, RoutingError
from lorary.model.cache_follower import bind, cache_in, evidence_of
from lorary.model.checkpoints import forget_contexts, remember_contexts
from lorary.model.padding import real_tokens
from lorary.model.slot import Slot
from lorary.routing.base import Context, Gate, Routing


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
        """Map x (B, T, d_in) to (B, T, d_out), or x (B * T, d_in), as some blocks hand it over, to (B * T, d_out).

        Raises E-ROWS where a block hands over some of the tokens only and the gate must know whose they are.
        """
        y: Tensor = self.base(x)
        slot = self.slot
        if slot.bypassed:
            return y
        if x.dim() == 2:
            shape = self._rows_of(x)
            return self._mix(x.unflatten(0, shape), y.unflatten(0, shape)).flatten(0, 1)
        return self._mix(x, y)

    def _mix(self, x: Tensor, y: Tensor) -> Tensor:
        slot = self.slot
        routing = _ask(self.gate, x, slot.context)
        if slot.records is not None:
            slot.records.setdefault(self.site, []).append(routing)
        mixed: Tensor = self.bank(x, y, routing.weights_for(slot.mix), routing.experts, slot.mix)
        return mixed

    def _rows_of(self, x: Tensor) -> tuple[int, int]:
        """Give B and T of flattened tokens."""
        shape, context = self.slot.shape, self.slot.context
        if shape is not None and shape[0] * shape[1] == len(x):
            return shape
        per_row = [value for value in (context.experts, context.features) if value is not None and len(value) > 1]
        if per_row or self.gate.keeps_evidence:
            raise RoutingError(
                "E-ROWS",
                f"site {self.site!r} is given {len(x)} tokens of {shape}: this router must know whose they are.",
                "Use a router that looks at each token alone, such as arrow, or experts without this site.",
            )
        return 1, len(x)


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
        self.slot, slot.model = slot, model
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
        self.slot.new_era()

    def _routed(self, site: str, bank: Bank, gate: Gate) -> RoutedLinear:
        base = self.model.get_submodule(site)
        return RoutedLinear(site, base, bank, gate, self.slot).train(base.training)

    def detach(self) -> None:
        """Put the base layers back; a second call does nothing. Raises E-BUSY."""
        if not self.layers:
            return
        with self.slot.alone():
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
        with self.slot.held():
            self.slot.context = context
            yield

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Let the base speak alone in the block."""
        with self.slot.held():
            before, self.slot.bypassed = self.slot.bypassed, True
            try:
                yield
            finally:
                self.slot.bypassed = before

    def require_attached(self) -> None:
        """Raise E-DETACHED after `detach`."""
        if not self.layers:
            raise RoutingError("E-DETACHED", "this routed model was detached from its base.", "Route the library anew.")

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.slot.enter()
        ids = kwargs.get("input_ids", args[0] if args else None)
        n_rows, n_tokens = (ids if ids is not None else kwargs["inputs_embeds"]).shape[:2]
        context = _repeat_rows(self.slot.context, n_rows)
        if self._keeps_evidence:
            cache = cache_in(kwargs)
            n_before = cache.get_seq_length() if cache is not None else 0
            mask = real_tokens(kwargs.get("attention_mask"), n_tokens, n_before)
            context = replace(context, mask=mask, evidence=evidence_of(cache, self.slot.era))
            context.evidence.start_call()
        self.slot.context, self.slot.shape = context, (n_rows, n_tokens)
        if model.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            seen = self._keeps_evidence or context.experts is not None or context.features is not None
            remember_contexts(model, self.slot, needed=seen)

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        cache = cache_in(output) if isinstance(output, Mapping) else None
        if self._keeps_evidence and cache is not None:
            bind(cache, self.slot.context.evidence, self.slot.era)  # made during the call
        self.slot.leave()


def _put(model: nn.Module, site: str, module: nn.Module) -> None:
    parent, _, name = site.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _repeat_rows(context: Context, n_rows: int) -> Context:
    """Follow a search that expands each row to several: (B, ...) -> (B * n, ...). Raises E-ROWS."""
    changed: dict[str, Any] = {}
    for name in ("experts", "features"):
        value: Tensor | None = getattr(context, name)
        if value is not None and len(value) != n_rows:
            if not len(value) or n_rows % len(value):
                raise RoutingError(
                    "E-ROWS",
                    f"the model is called with {n_rows} rows, its router was told of {len(value)}.",
                    "Call the routed model, with the task of each row.",
                )
            changed[name] = torch.repeat_interleave(value, n_rows // len(value), dim=0)
    return replace(context, **changed) if changed else context
