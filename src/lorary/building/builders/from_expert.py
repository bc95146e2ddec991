"""New tasks, from one expert."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.limits import check_positive
from lorary.building.training.adaptation import mean_size, mean_starts, plan_adaptations
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import pack_jobs, train_pack
from lorary.errors import OptionError
from lorary.hashing import SKIP_DEFAULT
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class FromExpert(TrainingOptions, Builder):
    """Train one LoRA per new task, starting from one expert of a library, such as the shared one.

    The new experts have the rank and scale of the old one. Stops early on the validation loss.
    Source: Ostapenko et al. 2024 (2405.11157) section 4, "Shared".
    """

    n_evaluations: int = 10
    """How often the validation loss is measured; the best weights are kept."""
    patience: int | None = 3
    """Stop after so many evaluations in a row without a new best; None: never."""
    pack_tokens: int = 512
    """Experts share a pass until a step of usual width has so many tokens; 512 are as fast as more."""
    dropout: float = 0.05
    """Dropout on the adapter's input."""
    expert: str | None = None
    """The expert to start from; None: the only one there is."""
    tie: tuple[str, ...] = field(default=(), metadata=SKIP_DEFAULT)
    """Layers of one module, by the last parts of their paths, that go on sharing one A, as the library's experts do."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per task, named after it.

        Raises E-SOURCE without a library, E-EMPTY for an empty one, and as `_chosen`.
        """
        library = require_source(self, source)
        return plan_adaptations(self, tasks, library, [self._chosen(library)])

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them. Raises as `check_places`."""
        return mean_size(job, base)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let experts share a pass until a step of usual width has pack_tokens."""
        return pack_jobs(jobs, base, self.pack_tokens)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the pack. Raises E-BASE for another base, E-RANK for experts of unequal form."""
        return train_pack(
            pack, base, work, report, start=lambda jobs: mean_starts(jobs, base), dropout=self.dropout, tie=self.tie
        )

    def _chosen(self, library: Library) -> str:
        """Name the one. Raises E-NAME for an unknown one, E-OPTION if none is named and there are several."""
        if self.expert is None and len(library) > 1:
            hint = "Write from_expert:expert=NAME."
            raise OptionError("E-OPTION", f"from_expert: the library holds {len(library)} experts.", hint)
        name = self.expert or next(iter(library))
        library[name]
        return name
