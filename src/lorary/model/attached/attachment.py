"""Routed layers put into a model, and taken out again bit for bit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Bank, Mix
from lorary.errors import AdapterError, RoutingError
from lorary.model.attached.fused_experts import RoutedMixture, RoutedSlice, of_mixture, put_slices, take_slice
from lorary.model.attached.gate_calls import ask, everybody
from lorary.model.attached.kv_cache import STATE, Left, bind, cache_in, evidence_of, tokens_in
from lorary.model.attached.padding import real_tokens
from lorary.model.attached.recompute import forget_contexts, remember_contexts
from lorary.model.attached.slot import Slot
from lorary.routing.contract import Context, Gate, Routing


class RoutedLinear(nn.Module):
    """One linear layer of the base plus the experts that its gate chooses. The base layer is called, not copied."""

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
        """Map x (B, T, d_in) to (B, T, d_out), or with any other axes but the last, as some blocks hand tokens over.

        Raises E-ROWS where a block hands over some of the tokens only and the gate must know whose they are.
        """
        y: Tensor = self.base(x)
        if self.slot.bypassed:
            return y
        if x.dim() == 3:
            return self._mix(x, y)
        rows = self._rows_of(x)
        x, y, shape = x.reshape(*rows, x.shape[-1]), y.reshape(*rows, y.shape[-1]), y.shape
        return self._mix(x, y, may_repeat=len(shape) > 3).reshape(shape)

    def _mix(self, x: Tensor, y: Tensor, *, may_repeat: bool = False) -> Tensor:
        slot = self.slot
        if slot.everybody:
            routing = everybody(self.bank, x)
        elif self.gate.keeps_evidence and slot.shape is not None and (may_repeat or x.shape[:2] != slot.shape):
            routing = self._ask_of_new(x, *slot.shape)
        else:
            routing = slot.same_input.route(self, x, slot.context)
        if slot.records is not None:
            slot.records.setdefault(self.site, []).append(routing.spread(*x.shape[:2]))
        mixed: Tensor = self.bank(x, y, routing.weights_for(slot.mix), routing.experts, slot.mix)
        return mixed

    def _ask_of_new(self, x: Tensor, n_rows: int, n_new: int) -> Routing:
        """Route the last n_new of the tokens x (B, T, d); reuse for earlier tokens the routing of their own calls.

        A cache may keep what a layer makes the keys and values of, so that it is given all tokens with every new one.
        """
        evidence = self.slot.context.evidence
        before = evidence.routings.get(self.site)
        n_old = x.shape[1] - n_new
        if len(x) != n_rows or n_old not in (0, before.n_tokens if before else 0):
            raise self._lost(x)
        routing = ask(self.gate, x[:, n_old:], self.slot.context).spread(n_rows, n_new)
        joined = routing if before is None else before.followed_by(routing)
        evidence.routings[self.site] = joined
        return joined if n_old else routing

    def _rows_of(self, x: Tensor) -> tuple[int, int]:
        """Give B and T of tokens that come with other axes."""
        shape, context, n = self.slot.shape, self.slot.context, x.shape[:-1].numel()
        if x.dim() > 3 and (shape is None or len(x) == shape[0]):
            return len(x), n // max(1, len(x))
        if shape is not None and shape[0] * shape[1] == n:
            return shape
        per_row = [value for value in (context.experts, context.features) if value is not None and len(value) > 1]
        if per_row or self.gate.keeps_evidence:
            raise self._lost(x)
        return 1, n

    def _lost(self, x: Tensor) -> RoutingError:
        n = x.shape[:-1].numel()
        return RoutingError(
            "E-ROWS",
            f"site {self.site!r} is given {n} tokens of {self.slot.shape}: this router must know whose they are.",
            "Use a router that looks at each token alone, such as arrow, or experts without this site.",
        )


class Attachment:
    """Routed layers in a model; `detach` puts the very same base layers back."""

    def __init__(self, model: nn.Module, parts: Mapping[str, tuple[Bank, Gate]], slot: Slot) -> None:
        """Put a routed layer at every named site. Raises E-ATTACHED if the model carries some already."""
        if next(wrappers(model), None) is not None:
            raise AdapterError(
                "E-ATTACHED", "this base already carries a library.", "Detach the other routed model first."
            )
        self.model = model
        self.slot, slot.model = slot, model
        self.layers: dict[str, RoutedLinear | RoutedSlice] = {}
        self._keeps_evidence = False
        self._left = Left()
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
        """Replace the banks and gates by these, at these sites."""
        for bank, gate in parts.values():
            bank.tune(gate.n_chosen)
        # All are made before the first is put in, so that what fails leaves the model as it was.
        new = {site: self._routed(site, *parts[site]) for site in parts.keys() - self.layers.keys()}
        for site in self.layers.keys() - parts.keys():
            self._take_out(site)
        for site, layer in new.items():
            if isinstance(layer, RoutedLinear):
                self.model.set_submodule(site, layer)
        put_slices(self.model, {site: layer for site, layer in new.items() if isinstance(layer, RoutedSlice)})
        self.layers = {site: new.get(site) or self.layers[site] for site in parts}
        for site, layer in self.layers.items():
            bank, gate = parts[site]
            layer.bank, layer.gate = bank.train(layer.training), gate.train(layer.training)
        self._keeps_evidence = any(gate.keeps_evidence for _, gate in parts.values())
        self.slot.same_input.expect({layer for layer in self.layers.values() if isinstance(layer, RoutedLinear)})
        self.slot.new_era()

    def _routed(self, site: str, bank: Bank, gate: Gate) -> RoutedLinear | RoutedSlice:
        if (found := of_mixture(self.model, site)) is not None:
            return RoutedSlice(site, bank, gate, self.slot).train(found[0].training)
        base = self.model.get_submodule(site)
        return RoutedLinear(site, base, bank, gate, self.slot).train(base.training)

    def _take_out(self, site: str) -> None:
        layer = self.layers[site]
        if isinstance(layer, RoutedLinear):
            self.model.set_submodule(site, layer.base)
        else:
            take_slice(self.model, site)

    def detach(self) -> None:
        """Put the base layers back; a second call does nothing. Raises E-BUSY."""
        if not self.layers:
            return
        with self.slot.alone():
            for site in self.layers:
                self._take_out(site)
            for hook in self.hooks:
                hook.remove()
            forget_contexts(self.model)
            self.layers, self.hooks, self._left = {}, [], Left()

    @contextmanager
    def turn(self, context: Context) -> Iterator[None]:
        """Let all calls in the block see this context. Raises E-BUSY, and E-DETACHED after `detach`."""
        self.require_attached()
        with self.slot.held():
            self.slot.context = context
            yield

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Switch all experts off in the block. Raises E-BUSY."""
        with self.slot.silenced():
            yield

    @contextmanager
    def with_everybody(self) -> Iterator[None]:
        """Let all experts speak with the weight 1, outputs added, in the block. Raises E-BUSY."""
        with self.slot.with_everybody():
            yield

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
            cache, state = cache_in(kwargs), kwargs.get(STATE)
            mask = real_tokens(kwargs.get("attention_mask"), n_tokens, tokens_in(cache))
            evidence = evidence_of(cache, self.slot.era) if state is None else self._left.of(state, self.slot.era)
            context = replace(context, mask=mask, evidence=evidence)
            context.evidence.start_call()
        self.slot.context, self.slot.shape = context, (n_rows, n_tokens)
        if model.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            seen = self._keeps_evidence or context.experts is not None or context.features is not None
            remember_contexts(model, self.slot, needed=seen)

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._keeps_evidence and isinstance(output, Mapping):
            evidence, era = self.slot.context.evidence, self.slot.era
            if (cache := cache_in(output)) is not None:
                bind(cache, evidence, era)  # made during the call
            self._left = Left(output.get(STATE), evidence, era)
            if self.slot.records is not None:
                self.slot.evidence = evidence.risen
        self.slot.leave()


@contextmanager
def attached(model: nn.Module, parts: Mapping[str, tuple[Bank, Gate]], mix: Mix) -> Iterator[Attachment]:
    """Put a routed layer at every named site in the block. Raises E-ATTACHED if the model carries some already."""
    attachment = Attachment(model, parts, Slot(mix))
    try:
        yield attachment
    finally:
        attachment.detach()


def wrappers(model: nn.Module) -> Iterator[RoutedLinear | RoutedMixture]:
    """Go through the modules that stand in a model for its own, each of which is the wrapper's `base`."""
    return (module for module in model.modules() if isinstance(module, RoutedLinear | RoutedMixture))


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
