"""Sequences that are continued together: their KV cache, what of it is padding, and what their router knows of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorary.model.attached.kv_cache import can_join, can_leave, drop_first, fork, join, named_cache, reads_mask
from lorary.model.attached.roomy import give_room
from lorary.model.attached.slot import Slot
from lorary.model.attached.spoken import Spoken, read_spoken
from lorary.model.sites import last_logits
from lorary.routing.contract import Context, Routing
from lorary.tasks.example import Example


@dataclass(frozen=True)
class Caller:
    """A model as decoding calls it.

    prepare: what the router is told of the rows of some examples; turn: tells it so for the calls in a `with` block.
    slot: where its routings can be recorded, and `names` whose they are; None for a base without experts.
    """

    hf: Any
    prepare: Callable[[Sequence[Example]], Context]
    turn: Callable[[Context], AbstractContextManager[None]]
    slot: Slot | None = None
    names: Sequence[str] = ()

    def about(self, examples: Sequence[Example]) -> AbstractContextManager[None]:
        """Tell the router of the rows of examples for the calls in a `with` block."""
        return self.turn(self.prepare(examples))


class Rows:
    """B sequences, padded on the left to one length. mask: (B, T), 0 at padding, for all that the cache holds.

    spoken: who spoke at the last token that was read of each row, if that was to be recorded.
    """

    def __init__(self, caller: Caller, context: Context) -> None:
        self._caller = caller
        self._context = context
        self._cache: Any = None
        self._word = ""  # what this version of transformers calls it
        self.mask: Tensor | None = None
        self.spoken: Spoken | None = None

    @property
    def n_tokens(self) -> int:
        """T, padding included."""
        return 0 if self.mask is None else self.mask.shape[1]

    @property
    def n_rows(self) -> int:
        """B."""
        return 0 if self.mask is None else len(self.mask)

    @property
    def can_be_continued(self) -> bool:
        """Tell whether the base hands on what it has read."""
        return self._cache is not None

    @property
    def can_leave(self) -> bool:
        """Tell whether single rows may leave, by `keep`; else the base must be left to transformers."""
        return can_leave(self._cache)

    @property
    def can_join(self) -> bool:
        """Tell whether rows of another length may join, by `add`: where every layer keeps all keys and values."""
        return can_join(self._cache)

    def read(self, ids: Tensor, mask: Tensor, *, every: bool = False, recorded: bool = False) -> Tensor:
        """Read tokens (B, t) behind those before; give the logits of what follows the last: (B, 1, V).

        every: of what follows each of them, (B, t, V). recorded: whether `spoken` is to be told.
        """
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], 1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if self._word and ids.shape[1] == 1 and self.can_leave:  # token by token from here on
            give_room(self._cache)
        cache = {self._word: self._cache} if self._word else {}
        seen = self.mask if reads_mask(self._cache) else None
        slot = self._caller.slot if recorded else None
        recording: AbstractContextManager[Mapping[str, Sequence[Routing]]] = nullcontext({})
        if slot is not None:
            recording = slot.recording()
        with self._caller.turn(self._context), recording as records:
            output = self._caller.hf(
                input_ids=ids, attention_mask=seen, position_ids=positions, use_cache=True,
                **cache, **({} if every else last_logits(self._caller.hf)),
            )  # fmt: skip
        evidence = slot.evidence if slot is not None else None
        self.spoken = read_spoken(records, len(ids), ids.shape[1], self._caller.names, evidence)
        self._word, self._cache = named_cache(output)
        logits: Tensor = output.logits if every else output.logits[:, -1:]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        assert self.mask is not None
        if list(rows) == list(range(len(self.mask))):
            return
        index = torch.tensor(rows, device=self.mask.device)
        self._cache.batch_select_indices(index)
        self.mask, self._context = self.mask[index], self._context.select(index)
        if rows and self.can_join:
            self._trim()

    def fork(self, rows: Sequence[int]) -> "Rows":
        """Continue these rows, each as often as it is named, beside all of them, which stay as they are."""
        assert self.mask is not None
        index = torch.tensor(rows, device=self.mask.device)
        other = Rows(self._caller, self._context.select(index))
        other._cache, other._word, other.mask = fork(self._cache, index), self._word, self.mask[index]
        return other

    def _trim(self) -> None:
        """Forget the columns that are padding in every row."""
        assert self.mask is not None
        n = int(self.mask.any(0).int().argmax())
        if n:
            self.mask = self.mask[:, n:]
            drop_first(self._cache, n)

    def add(self, other: "Rows") -> None:
        """Let the rows of another join behind these; the other is used up."""
        assert self.mask is not None and other.mask is not None
        width = max(self.n_tokens, other.n_tokens)
        self._cache = join(self._cache, other._cache)
        self.mask = torch.cat([_widened(self.mask, width), _widened(other.mask, width)])
        self._context = self._context.joined(other._context)


def _widened(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
