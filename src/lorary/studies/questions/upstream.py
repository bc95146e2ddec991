"""What each library and router gives on new examples of the tasks that it was trained on."""

from dataclasses import dataclass

from lorary.building.limits import check_positive
from lorary.studies.comparing.compared import ComparedStudy
from lorary.studies.comparing.paper_claims import Claim, judge_all
from lorary.studies.comparing.rows import (
    ANSWERS,
    OF_LIBRARY,
    all_cells,
    require_known,
    require_subject,
    rows_of,
    trained_cells,
)
from lorary.studies.contract import TRAINED, Plan, Results, Subject, Verdict

_ANSWERS = ANSWERS + TRAINED
_CLAIMS = (
    Claim(
        "C3", "on its own tasks Arrow is better than averaging a private library", "25.4 to 56.9 Rouge-L; oracle 61.6",
        "Route a library of one expert per task; don't average it.", _ANSWERS, "private-arrow", "private-uniform",
    ),
    Claim(
        "C3 (loss)", "so it is by the loss of the right answer", "not measured",
        "Of the loss fewer examples are needed than of answers.", TRAINED, "private-arrow", "private-uniform",
    ),
    Claim(
        "C4", "Arrow is better than averaging cluster experts", "39.8 to 51.6 Rouge-L; oracle 66.1",
        "Route cluster experts too, on tasks that they were trained on.", _ANSWERS, "mbc-arrow", "mbc-uniform",
    ),
    Claim(
        "C5", "the right cluster expert is better than the right private one", "66.1 against 61.6 Rouge-L",
        "Train similar tasks together where their data may be pooled.", _ANSWERS, "mbc-oracle", "private-oracle",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class UpstreamStudy(ComparedStudy):
    """Compare libraries and routers on new examples of the tasks that the libraries were trained on.

    Private and cluster experts under all routers that need no training, beside one expert for all, Poly, MHR, gates
    trained as PHATGOOSE's, and the base with all its weights trained: by Rouge-L of the answers and by the loss of the
    right ones.
    Source: 2405.11157 section 5, "upstream" performance.
    """

    n_score: int = 16
    """Test examples of each task to score by the loss."""
    n_answer: int = 8
    """Test examples of each task to answer."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_score", "n_answer")

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK for fewer than two tasks, E-OPTION for unknown libraries."""
        require_known("upstream", "libraries", self.libraries, OF_LIBRARY)
        require_known("upstream", "again", self.again, self.libraries)
        require_subject("upstream", subject)
        how = {"limit": self.n_score, "n_answer": self.n_answer, "max_new_tokens": self.max_new_tokens}
        cells = list(trained_cells(subject, **how))
        builds = self.stock(subject.tasks, self.libraries)
        return Plan(
            list(builds.values()), all_cells(rows_of(self.libraries, self.n_fit), cells, subject.tasks, told_task=True)
        )

    def judge(self, results: Results) -> list[Verdict]:
        """Judge Arrow beside averaging, and clusters beside single tasks."""
        return judge_all(_CLAIMS, results)
