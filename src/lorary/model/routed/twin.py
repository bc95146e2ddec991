"""A second model over the same weights, for another thread: modules of its own, parameters shared."""

import copy
from typing import Any, TypeVar

from torch import nn

from lorary.model.attached.attachment import Attachment, wrappers
from lorary.model.base.base_model import BaseModel

M = TypeVar("M", bound=nn.Module)

_FLAGS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
"""Where torch notes how a hook is called, by the same number."""


def twin_base(base: BaseModel, attachment: Attachment | None = None) -> BaseModel:
    """Copy the base's modules but none of its tensors; `attachment`, if it carries one, isn't in the copy.

    The tokenizer is copied too: it can't be used by two threads at once. May be called while the base is in a call.
    """
    twin = copy.copy(base)
    twin._head_at = None  # that of the call that the base is in
    shared: list[Any] = [*base.hf.parameters(), *base.hf.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in shared}
    memo[id(base)] = twin  # the hook of the head is a method of the base
    if attachment is not None:
        memo[id(attachment)] = object()
        for wrapper in wrappers(base.hf):
            memo[id(wrapper)] = copy.deepcopy(wrapper.base, memo)
    twin.hf = copy.deepcopy(base.hf, memo)
    for hook in attachment.hooks if attachment is not None else ():
        for registry in ("_forward_pre_hooks", "_forward_hooks", *_FLAGS):
            getattr(twin.hf, registry).pop(hook.id, None)
    twin.tokenizer = copy.deepcopy(base.tokenizer)
    return twin


def twin_part(part: M) -> M:
    """Make another bank or gate over the same tensors; what is measured about one, such as its plan, isn't shared."""
    twin = copy.copy(part)
    for registry in ("_parameters", "_buffers"):
        setattr(twin, registry, dict(getattr(part, registry)))
    return twin
