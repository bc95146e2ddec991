"""The compass calibrated on texts that others wrote, to be set beside those that the base writes itself."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lorary.adapters.contract import Mix
from lorary.errors import TaskError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import Ensemble, find_sites, make_parts
from lorary.model.ensemble.state import in_rows
from lorary.model.probes.probe import DataProbe
from lorary.model.routed.routed_model import RoutedModel
from lorary.routing.contract import Router
from lorary.tasks.task import Tasks


class _Texts(DataProbe):
    """A probe whose base only reads."""

    texts: Sequence[str]

    def sample_texts(self, *, n_texts: int, n_tokens: int, opening: str, seed: int) -> Tensor:
        """Take the last n_tokens of the first n_texts texts that are as long."""
        rows = (self.base.tokenizer(text)["input_ids"] for text in self.texts)
        long_enough = [ids[-n_tokens:] for ids in rows if len(ids) >= n_tokens][:n_texts]
        if len(long_enough) < n_texts:
            raise TaskError(
                "E-DATA", f"{len(long_enough)} of {len(self.texts)} texts have {n_tokens} tokens, expected {n_texts}."
            )
        return torch.tensor(long_enough)


def route_on_texts(base: BaseModel, library: Library, router: Router, texts: Sequence[str], mix: Mix) -> RoutedModel:
    """Route as `route` does, with given texts in the place of those that the base would write; nothing is stored.

    Raises E-DATA for too few texts of enough tokens.
    """
    members = dict(library)
    bare = Ensemble(members, read_experts(members), find_sites(base, members), router, mix, {}, None, library)
    probe = _Texts(base, bare.experts, bare.sites, {}, Tasks([]))
    probe.texts = texts
    ensemble = replace(bare, state=in_rows(router.fit(bare.experts, bare.sites, probe)))
    return RoutedModel(base, Attachment(base.hf, make_parts(base, ensemble), Slot(mix)), ensemble)
