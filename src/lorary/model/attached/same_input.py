"""Layers that a block gives one tensor, such as q, k and v: their gates are asked as one, where they can be."""

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor

from lorary.model.attached.gate_calls import ask
from lorary.routing.contract import Context, Gate, GatesAsOne, Routing


class HasGate(Protocol):
    """A routed layer."""

    gate: Gate


class SameInput:
    """Knows which layers were given one tensor right after one another, and asks their gates at the first of them.

    It learns that from the calls themselves, those without gradients that aren't compiled. Where layers come otherwise
    than the time before, they are asked one by one from then on.
    """

    def __init__(self) -> None:
        self._followers: dict[HasGate, list[HasGate] | None] = {}  # of a first layer; None: it is asked by itself
        self._answers: dict[HasGate, Routing] = {}  # of layers to come
        self._seen: list[HasGate] = []  # the layers that were given the tensor
        self._learns = False
        self._h: Tensor | None = None

    def route(self, layer: HasGate, h: Tensor, context: Context) -> Routing:
        """Ask the gate of a layer that is given h (B, T, d_in)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return ask(layer.gate, h, context)
        if h is not self._h or layer in self._seen:
            return self._begin(layer, h, context)
        self._seen.append(layer)
        if (answer := self._answers.pop(layer, None)) is not None:
            return answer
        first, followers = self._seen[0], self._followers[self._seen[0]]
        if followers is not None and self._learns:
            followers.append(layer)
        elif followers is not None and layer not in followers:
            self._followers[first] = None
        return ask(layer.gate, h, context)

    def _begin(self, layer: HasGate, h: Tensor, context: Context) -> Routing:
        self.rest()
        self._h, self._seen = h, [layer]
        followers = self._followers.setdefault(layer, [])
        self._learns = followers == []
        if followers and (gates := _as_one([layer.gate, *(other.gate for other in followers)])) is not None:
            first, *others = ask(gates, h, context)
            self._answers = dict(zip(followers, others, strict=True))
            return first
        return ask(layer.gate, h, context)

    def rest(self) -> None:
        """End a tensor's turn: let go of it. Between calls there is none."""
        if self._answers:
            self._followers[self._seen[0]] = None
        self._answers, self._seen, self._h = {}, [], None

    def expect(self, layers: Collection[HasGate]) -> None:
        """Expect these layers from now on: those that stay are asked as before, unless others have joined them."""
        self._answers = {}
        self.rest()
        known = {layer for first, others in self._followers.items() for layer in (first, *(others or ()))}
        if not known.issuperset(layers):
            self._followers = {}
        self._followers = {
            first: others and [layer for layer in others if layer in layers]
            for first, others in self._followers.items()
            if first in layers
        }


def _as_one(gates: list[Gate]) -> GatesAsOne | None:
    """Put gates together, if they can be, and nobody hooked onto one waits for its call."""
    if any(gate._forward_hooks or gate._forward_pre_hooks for gate in gates):
        return None
    return gates[0].as_one(gates[1:])
