"""New tasks, from how to mix a library's experts as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.building.contract import Write
from lorary.building.training.adaptation import LibraryMixture
from lorary.building.training.curve import Curve
from lorary.building.training.job import TrainingJob
from lorary.building.training.mixture import Skills
from lorary.model.base.base_model import BaseModel


@dataclass(frozen=True, kw_only=True)
class LibPolyZ(LibraryMixture):
    """Learn only the weights by which new tasks mix a library's experts, per layer; the experts stay as they are.

    The new library holds copies of them; the router `poly` reads the weights. `lr` is not used, `routing_lr` is.
    Source: Ostapenko et al. 2024 (2405.11157) section 4, "<library>-PolyZ".
    """

    trains_experts: ClassVar[bool] = False

    def form(self, name: str, weights: Mapping[str, Weights]) -> LoRA:
        """Tell nothing of use: experts are copied in the form they have."""
        return LoRA()

    def writer(
        self,
        job: TrainingJob,
        base: BaseModel,
        name: str,
        skills: Skills,
        index: int,
        banks: Mapping[str, LowRankBank],
        curve: Curve,
    ) -> Write:
        """Make the writer of a copy."""
        assert job.source is not None
        return partial(job.write_copy, job.source[name], curve)
