"""Trainable and Pupil: what the training loop needs to know of what it trains."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lorary.adapters.packed import InputDropout, Rows
from lorary.adapters.sending import sent
from lorary.building.training.stack import Stack
from lorary.errors import ModelError
from lorary.model.attached.attachment import Attachment
from lorary.model.base.base_model import BaseModel
from lorary.model.text.batching import give_back_memory, too_long
from lorary.model.text.tokens import Encoded
from lorary.routing.contract import Context

_CODE = "W-MEMORY"


@dataclass(frozen=True)
class Pupil:
    """One expert of a pack, or all experts that are trained jointly: what it learns from and is judged by.

    train_tasks and valid_tasks name the task of each row by its number, for what routes by task.
    """

    name: str
    train: Sequence[Encoded]
    valid: Sequence[Encoded]
    train_tasks: Sequence[int] = ()
    valid_tasks: Sequence[int] = ()


@dataclass(frozen=True)
class Row:
    """A row of a pass: whose it is, its place among its pupil's rows of the step, and the number of its task."""

    text: Encoded
    owner: int
    place: int
    task: int


@dataclass
class Trainable:
    """What a run trains: pupils over one model. `stacks` hold one row for each pupil.

    attachment: the trained layers in the model; None if the model itself is trained.
    penalty: what the pass just made adds to the loss besides, as a share of the rows of its step.
    """

    model: BaseModel
    pupils: Sequence[Pupil]
    stacks: Mapping[str, Stack]
    attachment: Attachment | None = None
    rows: Rows = field(default_factory=Rows)
    dropout: InputDropout | None = None
    penalty: Callable[[], Tensor] | None = None

    def batch(self, i: int, chosen: Sequence[int]) -> list[Row]:
        """List training rows of pupil i by their numbers, as the rows of a step."""
        pupil = self.pupils[i]
        return [Row(pupil.train[j], i, place, pupil.train_tasks[j]) for place, j in enumerate(chosen)]

    def validation(self, i: int) -> list[Row]:
        """List all validation rows of pupil i."""
        pupil = self.pupils[i]
        return [Row(pupil.valid[j], i, j, pupil.valid_tasks[j]) for j in range(len(pupil.valid))]

    @contextmanager
    def turn(
        self, rows: Sequence[Row], *, dropout_seed: int | None = None, mask: Tensor | None = None
    ) -> Iterator[None]:
        """Let the model see these rows in the block. mask: (B, T), which of their tokens are no padding, if known."""
        device, owners = self.model.device, [row.owner for row in rows]
        counts = {owners.count(i) for i in range(len(self.pupils))}
        self.rows.owner = sent(torch.tensor(owners), device)
        self.rows.is_even = len(counts) == 1 and owners == sorted(owners)
        self.rows.place = sent(torch.tensor([row.place for row in rows]), device)
        context = Context(experts=sent(torch.tensor([row.task for row in rows]), device), mask=mask)
        if self.dropout is not None and dropout_seed is not None:
            self.dropout.start(dropout_seed)
        for stack in self.stacks.values():
            stack.show()
        try:
            with self.attachment.turn(context) if self.attachment else nullcontext():
                yield
        finally:
            if self.dropout is not None:
                self.dropout.stop()


def smaller_pass(trainable: Trainable, rows: Sequence[Row], pass_tokens: int) -> int:
    """Give half of the padded tokens that a step's widest pass has, memory being given back and gradients empty.

    Raises E-MEMORY for a row that is a pass already, and where what is learned depends on the passes.
    """
    texts = [row.text for row in rows]
    groups = list(trainable.model.in_groups(texts, max_tokens=pass_tokens, max_rows=len(rows)))
    sizes = [len(group) * max(len(texts[i]) for i in group) for group in groups]
    widest = sizes.index(max(sizes))
    if len(groups[widest]) == 1:
        raise too_long(max(map(len, texts)))
    if trainable.penalty is not None:
        what = f"a pass of {sizes[widest]:,} tokens needs more memory than is free, and what is learned depends on it."
        raise ModelError("E-MEMORY", what, f"Give pass_tokens={sizes[widest] // 2}, or a smaller batch_size.")
    give_back_memory()
    for stack in trainable.stacks.values():
        stack.grad.zero_()
    half = sizes[widest] // 2
    what = (
        f"warning[{_CODE}] a pass of {sizes[widest]:,} tokens needs more memory than is free: they have {half:,} now."
    )
    warnings.warn(f"{what} pass_tokens={half} has them so from the start.", RuntimeWarning, stacklevel=2)
    return half


@contextmanager
def fast_attention(model: BaseModel) -> Iterator[None]:
    """Avoid the fused attention's backward on the CPU where plain products are faster (measured: docs/log.md)."""
    if model.device.type != "cpu" or model.dtype == torch.float32:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
