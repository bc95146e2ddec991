"""A base with a library routed into it: forward, generate, explain, detach."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from lorary.adapters.base import Mix
from lorary.errors import RoutingError
from lorary.evaluation.base import LogLikelihood
from lorary.model.attach import Attachment
from lorary.model.base_model import BaseModel
from lorary.model.speaking import answer, score
from lorary.model.tokens import encode, render_prompt
from lorary.model.trace import Trace, make_trace
from lorary.options import to_spec
from lorary.routing.base import Context, Router
from lorary.tasks.example import Example

Encoder = Callable[[Sequence[str]], Tensor]


class RoutedModel:
    """Answers with the experts that its router chooses. Leaves the base bit for bit as it was when it is detached.

    `owner`: task name -> index of its expert, or of its learned weights. `encoder`: texts -> features, for
    routers that read whole texts.
    """

    def __init__(
        self,
        base: BaseModel,
        attachment: Attachment,
        *,
        names: Sequence[str],
        router: Router,
        library_hash: str,
        owner: Mapping[str, int],
        encoder: Encoder | None,
    ) -> None:
        self.base, self.router = base, router
        self.names = tuple(names)
        self._attachment = attachment
        self._library_hash = library_hash
        self._owner = owner
        self._encoder = encoder

    def __enter__(self) -> "RoutedModel":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.detach()

    def detach(self) -> None:
        """Put the base's own layers back; a second call does nothing."""
        self._attachment.detach()

    @property
    def mix(self) -> Mix:
        """How the chosen experts are combined."""
        return self._attachment.slot.mix

    @property
    def identity(self) -> Mapping[str, Any]:
        """What this model is, for the header of a run."""
        routing = {"library": self._library_hash, "router": to_spec(self.router), "mix": self.mix}
        return {**self.base.identity, **routing}

    def __call__(self, input_ids: Tensor, *, tasks: Sequence[str] | None = None, **options: Any) -> Any:
        """Run the model on ids (B, T) as transformers does; `tasks` names each row's task for the oracle."""
        with self._attachment.turn(self._context_of_ids(input_ids, tasks)):
            return self.base.hf(input_ids=input_ids, **options)

    def generate(self, input_ids: Tensor, *, tasks: Sequence[str] | None = None, **options: Any) -> Tensor:
        """Generate after ids (B, T) as transformers does: KV cache, sampling, beams, all its options."""
        with self._attachment.turn(self._context_of_ids(input_ids, tasks)):
            ids: Tensor = self.base.hf.generate(input_ids=input_ids, **options)
        return ids

    def log_likelihood(self, examples: Sequence[Example]) -> list[LogLikelihood]:
        """Score each example's completion, end of sequence included, in nats; routers see the prompt's text only."""
        return score(self.base, examples, self._turn)

    def generate_text(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[str]:
        """Answer each example's prompt greedily."""
        return answer(self.base, examples, self._turn, max_new_tokens=max_new_tokens)

    def explain(self, prompt: str | Example, *, max_new_tokens: int = 32) -> Trace:
        """Answer a prompt and tell who spoke at each token of prompt and answer, at each site."""
        example = prompt if isinstance(prompt, Example) else Example(prompt, "")
        limit = self.base.max_tokens - max_new_tokens
        row = encode(self.base.tokenizer, [replace(example, completion="")], max_tokens=limit)[0]
        ids = torch.tensor([row.prompt], device=self.base.device)
        slot = self._attachment.slot
        with torch.inference_mode(), self._turn([example]):
            context = slot.context
            ids = self.base.hf.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
            )
            slot.context = context
            slot.records = {}
            try:
                self.base.hf(input_ids=ids, use_cache=False)
                records = slot.records
            finally:
                slot.records = None
        tokens = [self.base.tokenizer.decode([i]) for i in ids[0].tolist()]
        return make_trace(tokens, self.names, records)

    def _turn(self, examples: Sequence[Example]) -> AbstractContextManager[None]:
        features = None
        if self._encoder is not None:
            features = self._features([render_prompt(self.base.tokenizer, e) for e in examples])
        return self._attachment.turn(Context(experts=self._experts([e.task for e in examples]), features=features))

    def _context_of_ids(self, ids: Tensor, tasks: Sequence[str] | None) -> Context:
        features = None
        if self._encoder is not None:
            features = self._features(self.base.tokenizer.batch_decode(ids, skip_special_tokens=True))
        return Context(experts=self._experts(tasks), features=features)

    def _features(self, texts: Sequence[str]) -> Tensor:
        assert self._encoder is not None
        with self._attachment.bypassed():
            return self._encoder(texts).to(self.base.device)

    def _experts(self, tasks: Sequence[str] | None) -> Tensor | None:
        if "task" not in self.router.needs or tasks is None:
            return None
        for task in tasks:
            if task not in self._owner:
                raise RoutingError(
                    "E-TASK",
                    f"no expert was trained on task {task!r}, so {to_spec(self.router)!r} can't choose one.",
                    "Use a router that doesn't need the task.",
                )
        return torch.tensor([self._owner[task] for task in tasks], device=self.base.device)
