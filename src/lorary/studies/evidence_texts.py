"""The compass calibrated on texts that others wrote, to be set beside those that the base writes itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorary.adapters.base import Mix
from lorary.adapters.peft_format import read_experts
from lorary.errors import TaskError
from lorary.library.library import Library
from lorary.model.attach import Attachment, Slot
from lorary.model.base_model import BaseModel
from lorary.model.probe import DataProbe
from lorary.model.route import find_sites, make_parts
from lorary.model.routed_model import RoutedModel
from lorary.routing.base import Router
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
    experts = read_experts(library)
    sites = find_sites(base, experts)
    probe = _Texts(base, experts, sites, {}, Tasks([]))
    probe.texts = texts
    parts = make_parts(base, experts, sites, router, router.fit(experts, sites, probe))
    return RoutedModel(
        base, Attachment(base.hf, parts, Slot(mix)), names=sorted(experts), router=router, library_hash=library.hash,
        owner={}, encoder=None,
    )  # fmt: skip
