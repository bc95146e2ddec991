"""Gradient checkpointing: a layer that runs again for its gradient sees the context and evidence of its first time.

transformers gives the modules that it checkpoints a function that calls `torch.utils.checkpoint`; it is told here, by
what that function has for it, which contexts to use. Reentrant checkpointing has nothing of the kind, and cuts the
gradient through evidence: it is refused for gates that look at more than the hidden state.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from copy import deepcopy
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from torch import nn

from lorary.errors import RoutingError
from lorary.routing.contract import Context

_NAME = "_gradient_checkpointing_func"
_Two = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


class HoldsContext(Protocol):
    """Where gates find the context of a call."""

    context: Context
    shape: tuple[int, int] | None


def remember_contexts(model: nn.Module, slot: HoldsContext, *, needed: bool) -> None:
    """Let what is checkpointed in a model run again as it ran. `needed`: gates look at the context.

    Raises E-CHECKPOINT for reentrant checkpointing where that is needed.
    """
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            function = getattr(module, _NAME)
            if not isinstance(function, _Remembering):
                setattr(module, _NAME, function := _Remembering(function, slot))
            if needed and function.is_reentrant:
                raise RoutingError(
                    "E-CHECKPOINT",
                    "with reentrant gradient checkpointing these gates would not see their context again.",
                    'Enable it with {"use_reentrant": False}.',
                )


def forget_contexts(model: nn.Module) -> None:
    """Give modules their own functions back."""
    for module in model.modules():
        if isinstance(function := getattr(module, _NAME, None), _Remembering):
            setattr(module, _NAME, function.inner)


class _Remembering:
    """Call a checkpointing function with contexts for the first and the second time."""

    def __init__(self, inner: Callable[..., Any], slot: HoldsContext) -> None:
        self.inner, self._slot = inner, slot
        self._options = getattr(inner, "keywords", {})
        self.is_reentrant = self._options.get("use_reentrant", True) is not False

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.is_reentrant:
            return self.inner(function, *args, **options)
        return self.inner(function, *args, **{**options, "context_fn": self._contexts})

    def _contexts(self) -> _Two:
        others = self._options.get("context_fn", _nothing)()
        return others[0], _Again(self._slot, others[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deepcopy(self.inner, memo)  # a copy of the model has a slot of its own, or none


def _nothing() -> _Two:
    return nullcontext(), nullcontext()


class _Again(AbstractContextManager[None]):
    """Put back, in the block, the context as it was when this was made."""

    def __init__(self, slot: HoldsContext, other: AbstractContextManager[Any]) -> None:
        self._slot, self._other, self._stack = slot, other, ExitStack()
        self._context, self._shape = _copy(slot.context), slot.shape

    def __enter__(self) -> None:
        self._stack.enter_context(self._other)
        self._stack.callback(setattr, self._slot, "context", self._slot.context)
        self._stack.callback(setattr, self._slot, "shape", self._slot.shape)
        self._slot.context, self._slot.shape = _copy(self._context), self._shape

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()


def _copy(context: Context) -> Context:
    return replace(context, evidence=context.evidence.copy())
