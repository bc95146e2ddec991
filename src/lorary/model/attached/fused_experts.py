"""RoutedMixture: the fused experts of a mixture of experts, with the library's experts at each of their matrices.

A slice is one of these matrices, and a site: its gate looks at the tokens that the base sends there. What lies between
two products is the base's own code.
Shape letters: N tokens of a call, k of the mixture's own experts for each, n tokens at one of them, E of the library.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Bank
from lorary.errors import RoutingError
from lorary.library.adapter.targets import parse_slice
from lorary.model.attached.gate_calls import ask, everybody
from lorary.model.attached.slot import Slot
from lorary.model.sites import is_mixture, mixture_parameters
from lorary.routing.contract import Gate, Routing


class Tokens:
    """The tokens of one call of a mixture: which rows they are of, and who spoke there, if that is recorded."""

    def __init__(self, n_tokens: int, slot: Slot) -> None:
        shape = slot.shape
        self.shape = shape if shape is not None and shape[0] * shape[1] == n_tokens else None
        """(B, T) of the call; None where a block hands over some of the tokens only."""
        self.heard: dict[str, tuple[Tensor, Tensor]] | None = None if slot.records is None or not self.shape else {}

    def note(self, site: str, at: Tensor, routing: Routing, n_experts: int) -> None:
        """Add up what a slice routes for the tokens `at` (n,): for each the mean over its slices is recorded."""
        if self.heard is None or self.shape is None:
            return
        place = parse_slice(site)
        parameter = place.parameter if place else site
        weights = routing.weights.mean(2).flatten(0, 1).float()  # (n or 1, k)
        if routing.experts is not None:
            index = routing.experts.flatten(0, 1)
            weights = weights.new_zeros(len(index), n_experts).scatter(-1, index, weights.expand(index.shape))
        n_tokens = self.shape[0] * self.shape[1]
        empty = weights.new_zeros(n_tokens, n_experts), weights.new_zeros(n_tokens, 1)
        total, times = self.heard.get(parameter, empty)
        weights = weights.expand(len(at), -1)
        self.heard[parameter] = total.index_add(0, at, weights), times.index_add(0, at, torch.ones_like(weights[:, :1]))

    def record(self, records: dict[str, list[Routing]]) -> None:
        """Write down the mean weights (B, T, 1, E) of each parameter."""
        for parameter, (total, times) in (self.heard or {}).items():
            assert self.shape is not None
            mean = total / times.clamp(min=1)
            records.setdefault(parameter, []).append(Routing(mean.view(*self.shape, 1, -1)))


class RoutedSlice(nn.Module):
    """One matrix of one of a mixture's own experts, plus the library's experts that its gate chooses for each token."""

    def __init__(self, site: str, bank: Bank, gate: Gate, slot: Slot) -> None:
        super().__init__()
        self.site = site
        self.bank = bank
        self.gate = gate
        self.slot = slot

    def forward(self, x: Tensor, y: Tensor, at: Tensor, tokens: Tokens) -> Tensor:
        """Add to y (1, n, d_out) what the experts make of x (1, n, d_in), the tokens `at` (n,) of a call.

        Raises E-ROWS where the gate must know which text a token is of and the block doesn't tell, or keeps evidence.
        """
        slot, shape, context = self.slot, y.shape, replace(self.slot.context, mask=None)
        if slot.bypassed:
            return y
        told = {name: value for name in ("experts", "features") if (value := getattr(context, name)) is not None}
        of_rows = {name: value for name, value in told.items() if len(value) > 1}
        if not slot.everybody and (self.gate.keeps_evidence or (of_rows and tokens.shape is None)):
            raise self._lost(len(at))
        if of_rows and not slot.everybody:  # each token is a row of its own, with what is told of its text
            assert tokens.shape is not None
            context = replace(context, **{name: value[at // tokens.shape[1]] for name, value in of_rows.items()})
            x, y = x.transpose(0, 1), y.transpose(0, 1)  # (n, 1, d)
        routing = everybody(self.bank, x) if slot.everybody else ask(self.gate, x, context)
        tokens.note(self.site, at, routing, self.bank.n_experts)
        mixed: Tensor = self.bank(x, y, routing.weights_for(slot.mix), routing.experts, slot.mix)
        return mixed.reshape(shape)

    def _lost(self, n_tokens: int) -> RoutingError:
        return RoutingError(
            "E-ROWS",
            f"site {self.site!r} is given {n_tokens} tokens of {self.slot.shape}: this router must know whose they "
            "are, and what came before them.",
            "Use a router that looks at each token alone, such as arrow, or experts without this site.",
        )


class RoutedMixture(nn.Module):
    """The fused experts of a block. `base` is called for what isn't adapted, and its parameters are read, not copied.

    Its children are the slices, by parameter and number, so that a site's name is the path of its slice.
    """

    def __init__(self, base: nn.Module, slot: Slot) -> None:
        super().__init__()
        self.base: Any = base
        self.slot = slot
        for name in mixture_parameters(base):
            self.add_module(name, nn.ModuleDict())

    def slices(self, parameter: str) -> nn.ModuleDict:
        """Give the routed slices of a parameter, by number."""
        found = self.get_submodule(parameter)
        assert isinstance(found, nn.ModuleDict)
        return found

    @property
    def is_empty(self) -> bool:
        """Whether no slice is routed."""
        return not any(len(self.slices(name)) for name in mixture_parameters(self.base))

    def forward(self, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Map tokens (N, d) to (N, d) through the mixture's own experts `index` (N, k), weighted (N, k)."""
        if self.slot.bypassed and not self._is_listened_to():
            answer: Tensor = self.base(hidden, index, weights)
            return answer
        tokens, n_chosen = Tokens(len(hidden), self.slot), index.shape[1]
        chosen, places, pieces = index.flatten(), list[Tensor](), list[Tensor]()  # (N k,)
        for number in chosen.unique().tolist():
            if number >= self.base.num_experts:  # how some blocks mask a token
                continue
            place = (chosen == number).nonzero()[:, 0]  # (n,)
            places.append(place)
            pieces.append(self._one(number, hidden, place // n_chosen, tokens) * weights.flatten()[place, None])
        if self.slot.records is not None:
            tokens.record(self.slot.records)
        if not pieces:
            return torch.zeros_like(hidden)
        whole = pieces[0].new_zeros(len(chosen), hidden.shape[1])
        whole = whole.index_copy(0, torch.cat(places), torch.cat(pieces))
        return whole.view(len(hidden), n_chosen, -1).sum(1).to(hidden.dtype)

    def _one(self, number: int, hidden: Tensor, at: Tensor, tokens: Tokens) -> Tensor:
        """Compute what one of the mixture's own experts makes of the tokens `at` (n,): (n, d)."""
        up, down = mixture_parameters(self.base)
        inner = self._product(up, number, hidden[at], at, tokens)
        inner = self.base._apply_gate(inner) if self.base.has_gate else self.base.act_fn(inner)
        outer = self._product(down, number, inner, at, tokens)
        return self.base.post_expert_norm(outer) if self.base.has_post_expert_norm else outer

    def _product(self, parameter: str, number: int, x: Tensor, at: Tensor, tokens: Tokens) -> Tensor:
        """Multiply x (n, d_in) with a slice, its bias included, and add what the library's experts make of it."""
        weight = getattr(self.base, parameter)[number]
        bias = getattr(self.base, f"{parameter}_bias")[number] if self.base.has_bias else None
        y = nn.functional.linear(x, weight.T if self.base.is_transposed else weight, bias)
        slices = self.slices(parameter)
        if str(number) not in slices:
            return y
        routed: Tensor = slices[str(number)](x.unsqueeze(0), y.unsqueeze(0), at, tokens)
        return routed.squeeze(0)

    def _is_listened_to(self) -> bool:
        every = [one for name in mixture_parameters(self.base) for one in self.slices(name).values()]
        return any(one._forward_pre_hooks for one in every)


def of_mixture(model: nn.Module, site: str) -> tuple[nn.Module, str] | None:
    """Find the mixture that a slice is of, routed or not, and its path; None for a layer."""
    if (place := parse_slice(site)) is None:
        return None
    module = model.get_submodule(place.module)
    return (module, place.module) if isinstance(module, RoutedMixture) or is_mixture(module) else None


def put_slices(model: nn.Module, new: Mapping[str, RoutedSlice]) -> None:
    """Put routed slices into a model's mixtures, which are replaced by routed ones."""
    for site, one in new.items():
        found, place = of_mixture(model, site), parse_slice(site)
        assert found is not None and place is not None
        module, path = found
        if not isinstance(module, RoutedMixture):
            module = RoutedMixture(module, one.slot).train(module.training)
            model.set_submodule(path, module)
        module.slices(place.parameter.rpartition(".")[2])[str(place.number)] = one


def take_slice(model: nn.Module, site: str) -> None:
    """Take a routed slice out of a model, and with the last one of a mixture put the very same base module back."""
    found, place = of_mixture(model, site), parse_slice(site)
    assert found is not None and place is not None
    mixture, path = found
    assert isinstance(mixture, RoutedMixture)
    del mixture.slices(place.parameter.rpartition(".")[2])[str(place.number)]
    if mixture.is_empty:
        model.set_submodule(path, mixture.base)
