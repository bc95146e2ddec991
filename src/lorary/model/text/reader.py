"""What batching and scoring need of a model: the base, as far as it reads and writes text."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from lorary.adapters.contract import Site
from lorary.model.text.tokens import Encoded
from lorary.tasks.example import Example


class Calls(Protocol):
    """How a model calls its layers."""

    @property
    def hides_padding(self) -> bool:
        """Whether rows of unequal length don't disturb each other."""


class Reader(Protocol):
    """A causal model of transformers with its tokenizer, and how long a text it is given. `BaseModel` is one."""

    hf: Any
    tokenizer: Any
    max_tokens: Any
    template_options: Mapping[str, Any]
    batch_tokens: int | None
    stop_tokens: list[int]
    sites: dict[str, Site]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""

    @property
    def calls(self) -> Calls:
        """How it calls its layers."""

    @property
    def in_parts(self) -> int:
        """The longest row that it reads in parts as it reads it whole: 0 if it can't."""

    @property
    def turn_end(self) -> int | None:
        """The token that ends an answer in a chat, where its template has one."""

    def in_groups(self, rows: Sequence[Encoded], **limits: object) -> Iterator[list[int]]:
        """Group row numbers for padded batches."""

    def encode(self, examples: Sequence[Example], *, quiet: bool = False, open_end: bool = False) -> list[Encoded]:
        """Turn examples into ids as this model reads them."""

    def head_at(self, where: Tensor | tuple[Tensor, Tensor]) -> AbstractContextManager[None]:
        """Compute the head only where a mask (B, T) is True, or at rows and columns."""
