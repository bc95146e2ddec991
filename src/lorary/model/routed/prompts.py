"""What a router is told of whole prompts: their embeddings, or what a pass over them with all experts shows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from lorary.model.attached.attachment import Attachment
from lorary.model.base.base_model import BaseModel
from lorary.model.base.calls import require_whole
from lorary.model.ensemble.ensemble import Ensemble
from lorary.model.probes.probe import make_encoder, run_hidden
from lorary.model.sites import input_hooks
from lorary.model.text.chat_prompts import render_prompt
from lorary.model.text.tokens import Encoded, decode, pad
from lorary.routing.contract import Survey
from lorary.routing.nested import encoder_of
from lorary.tasks.example import Example


class Prompts(Protocol):
    """Gives the features (B, F) of prompts; called between calls of the model."""

    def of_examples(self, examples: Sequence[Example]) -> Tensor:
        """Give those of the examples' prompts."""

    def of_ids(self, ids: Tensor, mask: object) -> Tensor:
        """Give those of rows of ids (B, T), less what an attention mask (B, past + T) hides."""


def prompts_of(base: BaseModel, attachment: Attachment, ensemble: Ensemble) -> Prompts | None:
    """Make what gives the features that a router needs; None if it needs none.

    Raises E-ROWS for a survey at a layer that is given some of the tokens only.
    """
    router = ensemble.router
    if "survey" in router.needs:
        survey = router.survey(ensemble.sites, ensemble.state, ensemble.names)
        assert survey is not None, "who needs a survey says which"
        require_whole(base.calls, [survey.site])
        return _Surveyed(base, attachment, survey)
    if "text" in router.needs:
        return _Encoded(base, attachment, make_encoder(encoder_of(router), base))
    return None


class _Encoded:
    """Prompts as a text encoder sees them."""

    def __init__(self, base: BaseModel, attachment: Attachment, encoder: Callable[[Sequence[str]], Tensor]) -> None:
        self.base, self.attachment, self.encoder = base, attachment, encoder

    def of_examples(self, examples: Sequence[Example]) -> Tensor:
        tokenizer, options = self.base.tokenizer, self.base.template_options
        return self._of_texts([render_prompt(tokenizer, example, options) for example in examples])

    def of_ids(self, ids: Tensor, mask: object) -> Tensor:
        return self._of_texts(decode(self.base.tokenizer, ids, mask))

    def _of_texts(self, texts: Sequence[str]) -> Tensor:
        with self.attachment.bypassed():
            return self.encoder(texts).to(self.base.device)


class _Surveyed:
    """Prompts as one layer of the model sees them at their last tokens."""

    def __init__(self, base: BaseModel, attachment: Attachment, survey: Survey) -> None:
        self.base, self.attachment, self.survey = base, attachment, survey

    def of_examples(self, examples: Sequence[Example]) -> Tensor:
        return self._of_rows([Encoded(row.prompt, ()) for row in self.base.encode(examples, quiet=True)])

    def of_ids(self, ids: Tensor, mask: object) -> Tensor:
        seen = torch.ones_like(ids)
        if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) == len(ids) and mask.shape[1] >= ids.shape[1]:
            seen = mask[:, mask.shape[1] - ids.shape[1] :]
        return self._of_rows(
            [Encoded(tuple(row[kept.bool()].tolist()), ()) for row, kept in zip(ids, seen, strict=True)]
        )

    def _of_rows(self, rows: Sequence[Encoded]) -> Tensor:
        found = torch.zeros(len(rows), 0)
        for group in self.base.in_groups(rows):
            features = self.survey.read(self._last_inputs([rows[i] for i in group]))
            if not found.shape[1]:
                found = torch.zeros(len(rows), features.shape[1])
            found[group] = features.cpu()
        return found.to(self.base.device)

    def _last_inputs(self, rows: Sequence[Encoded]) -> Tensor:
        """Give the layer's inputs at the last tokens, (B, d_in)."""
        batch, inputs = pad(rows).to(self.base.device), list[Tensor]()
        hook = {self.survey.site: lambda _, args: inputs.append(_last(args[0], len(rows)))}
        with self._speakers(), input_hooks(self.base.hf, hook), torch.inference_mode():
            run_hidden(self.base, batch.ids, batch.mask, batch.positions)
        return inputs[0]

    def _speakers(self) -> AbstractContextManager[None]:
        return self.attachment.with_everybody() if self.survey.everybody else self.attachment.bypassed()


def _last(x: Tensor, n_rows: int) -> Tensor:
    return x.reshape(n_rows, -1, x.shape[-1])[:, -1]  # some blocks hand over (B * T, d); rows are padded on the left
