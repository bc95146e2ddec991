"""What each library and router gives on tasks that nobody trained on, and on benchmarks."""

from dataclasses import dataclass

from lorary.building.limits import check_positive
from lorary.evaluation.scores import Scores
from lorary.reporting.table import Table, make_table
from lorary.studies.comparing.compared import ComparedStudy
from lorary.studies.comparing.paper_claims import Claim, judge_all
from lorary.studies.comparing.rows import (
    ANSWERS,
    OF_LIBRARY,
    all_cells,
    benchmark_cells,
    require_known,
    require_subject,
    rows_of,
    unseen_cells,
)
from lorary.studies.contract import UNSEEN, Plan, Results, Subject, Verdict
from lorary.studies.seeds import joined

_MEAN = "mean of the benchmarks"
_UNIT = "0-100"


def _claims(group: str, points: str) -> tuple[Claim, ...]:
    return (
        Claim(
            "C8", "averaged cluster experts beat one expert for all tasks", "67.1 against 65.5; Private-mean 64.8",
            "Average a few cluster experts rather than train on all tasks.", group, "mbc-uniform", "shared",
        ),
        Claim(
            "C8 (Poly)", "averaged cluster experts beat averaged Poly", "67.1 against 65.7",
            "Find clusters before training, not skills in it.", group, "mbc-uniform", "poly-uniform",
        ),
        Claim(
            "C8 (MHR)", "averaged cluster experts beat averaged MHR", "67.1 against 65.9",
            "Find clusters before training, not skills in it.", group, "mbc-uniform", "mhr-uniform",
        ),
        Claim(
            "C9", "on unseen tasks Arrow is better than averaging private experts", "+1.8 (Phi-2), +2.5 (Mistral)",
            "Route a library of one expert per task on new tasks too.", group, "private-arrow", "private-uniform",
        ),
        Claim(
            "C10 (TP)", "Arrow gains more than a task predictor", "+1.8 against +0.9",
            "Weights alone route as well as the training prompts do.", group, "private-arrow", "private-tp",
        ),
        Claim(
            "C10 (CM)", "Arrow gains more than centroids of the experts' data", "+1.8 against +0.9",
            "Weights alone route as well as the training data do.", group, "private-arrow", "private-cm",
        ),
        Claim(
            "C11", "routed private experts are as good as one trained on all data, or better", "66.6 against 65.5",
            "Experts that were trained apart need no joint data.", group, "private-arrow", "shared",
        ),
        Claim(
            "C11 (FullFT)", "and as a base all of whose weights were trained", "66.6 against 65.6",
            "Experts that were trained apart need no joint data.", group, "private-arrow", "full",
        ),
        Claim(
            "C12", "routing hardly matters for cluster experts", "+0.3 (Phi-2), -0.7 (Mistral), -1.8 (StableLM)",
            "Average cluster experts on new tasks; routing them is no gain.", points, "mbc-arrow", "mbc-uniform", 1.0,
        ),
        Claim(
            "C13", "routed cluster experts beat the base", "+3.6",
            "A library helps on tasks that it never saw.", group, "mbc-arrow", "base",
        ),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ZeroShotStudy(ComparedStudy):
    """Compare libraries and routers on tasks that nobody trained on, and on benchmarks where they are given.

    All libraries and routers that can answer without knowing the task: the loss of the right answer and Rouge-L on the
    tasks held out, and every benchmark by its own metric. The claims are judged on the mean of the benchmarks, or
    without benchmarks on the loss of the tasks held out, which needs fewer examples than answers do; that routing
    hardly matters is judged in points, on the answers.
    Source: 2405.11157 Tables 1 and 4, Figure 3.
    """

    n_score_new: int = 32
    """Test examples of each held-out task to score by the loss."""
    n_answer_new: int = 16
    """Test examples of each held-out task to answer."""
    n_benchmark: int = 1000
    """Questions of each benchmark, at most."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_score_new", "n_answer_new", "n_benchmark")

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK without tasks to build from, or anything to score, E-OPTION."""
        require_known("zero_shot", "libraries", self.libraries, OF_LIBRARY)
        require_known("zero_shot", "again", self.again, self.libraries)
        require_subject("zero_shot", subject, heldout=not subject.benchmarks)
        how = {"limit": self.n_score_new, "n_answer": self.n_answer_new, "max_new_tokens": self.max_new_tokens}
        cells = [
            *(unseen_cells(subject, **how) if subject.heldout else ()),
            *benchmark_cells(subject, self.n_benchmark),
        ]
        rows = rows_of(self.libraries, self.n_fit)
        builds = self.stock(subject.tasks, self.libraries)
        return Plan(list(builds.values()), all_cells(rows, cells, subject.tasks, told_task=False))

    def judge(self, results: Results) -> list[Verdict]:
        """Judge by the benchmarks where there are any, else by the tasks held out."""
        mean = _mean(results)
        claims = _claims(_MEAN, _MEAN) if mean else _claims(UNSEEN, ANSWERS + UNSEEN)
        return judge_all(claims, Results({**results, **mean}, results.measured))

    def tables(self, results: Results, title: str) -> list[Table]:
        """Put the mean of the benchmarks into a table of its own."""
        mean = _mean(results)
        return [
            *super().tables(results, title),
            *([make_table({g: r.values() for g, r in mean.items()}, title=_MEAN)] if mean else []),
        ]


def _mean(results: Results) -> dict[str, dict[str, Scores]]:
    """Join the benchmarks that are scored from 0 to 100; none without benchmarks."""
    groups = [rows for group, rows in results.items() if not group.endswith(UNSEEN)]
    groups = [rows for rows in groups if all(scores.unit == _UNIT for scores in rows.values())]
    if not groups:
        return {}
    return {_MEAN: {name: joined([rows[name] for rows in groups]) for name in groups[0]}}
