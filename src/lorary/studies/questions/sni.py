"""What libraries give on the twelve held-out tasks of Super-NaturalInstructions, without training on them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorary.building.limits import check_positive
from lorary.errors import OptionError, quote
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.evaluation.scores import Scores
from lorary.reporting.table import Table, make_table
from lorary.studies.comparing.paper_claims import Claim, judge_all
from lorary.studies.comparing.rows import all_cells, require_subject, rows_of
from lorary.studies.comparing.stock import StockStudy
from lorary.studies.contract import Cell, Plan, Results, Subject, Verdict

PAPERS_TASKS = (
    "task202_mnli_contradiction_classification",
    "task304_numeric_fused_head_resolution",
    "task614_glucose_cause_event_detection",
    "task613_politifact_text_generation",
    "task362_spolin_yesand_prompt_response_sub_classification",
    "task242_tweetqa_classification",
    "task1728_web_nlg_data_to_text",
    "task1557_jfleg_answer_generation",
    "task035_winogrande_question_modification_person",
    "task1356_xlsum_title_generation",
    "task039_qasc_find_overlapping_words",
    "task1153_bard_analogical_reasoning_affordance",
)
"""The held-out tasks of 2405.11157, in the order of its tables."""
GROUP = "SNI tasks"
_LIBRARIES = ("shared", "private", "mbc")
_ROWS = ("base", "shared", "private-uniform", "private-arrow", "mbc-uniform", "mbc-arrow")
_CLAIMS = (
    Claim(
        "C18", "averaged cluster experts beat one expert for all tasks", "44.4 against 39.3 (Phi-2), 50.6 against 45.6",
        "Average a few cluster experts rather than train on all tasks.", GROUP, "mbc-uniform", "shared",
    ),
    Claim(
        "C9 (SNI)", "Arrow is better than averaging private experts", "+0.8 (Phi-2), +10.5 (Mistral)",
        "Route a library of one expert per task on new tasks too.", GROUP, "private-arrow", "private-uniform",
    ),
    Claim(
        "C12 (SNI)", "averaging cluster experts is better than routing them", "44.4 against 36.7, 50.6 against 45.9",
        "Average cluster experts on new tasks.", GROUP, "mbc-uniform", "mbc-arrow",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SniStudy(StockStudy):
    """Compare libraries on the twelve held-out tasks of Super-NaturalInstructions, by the answers' Rouge-L.

    Any tasks may be held out. One that isn't among the paper's twelve is a stand-in and marked so; `stand_ins` says
    what it stands for. Means over stand-ins aren't the paper's.
    Source: 2405.11157 Table 5.
    """

    stand_ins: Path | None = None
    """JSON file: name of a held-out task -> that of the paper's task which it stands for."""
    n_answer_new: int = 100
    """Test examples of each held-out task to answer."""
    max_new_tokens: int = 64
    """Longest answer."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_answer_new", "max_new_tokens")

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK without tasks held out, E-OPTION for a file of no stand-ins."""
        require_subject("sni", subject, heldout=True)
        self.stood_for()
        rows = [row for row in rows_of(_LIBRARIES, 1) if row.name in _ROWS]
        answers = RougeL(max_new_tokens=self.max_new_tokens)
        cell = Cell("runs/{row}.sni.answers.jsonl", "", GROUP, answers, subject.heldout, self.n_answer_new)
        builds = self.stock(subject.tasks, _LIBRARIES)
        return Plan(list(builds.values()), all_cells(rows, [cell], subject.tasks, told_task=False))

    def judge(self, results: Results) -> list[Verdict]:
        """Judge clusters beside one expert for all, and routing; says how many tasks are stand-ins."""
        rows = results.get(GROUP, {})
        names = list(next(iter(rows.values())).header["tasks"]) if rows else []
        n = sum(not _is_papers(name) for name in names)
        note = f" {n} of {len(names)} tasks are stand-ins." if n else ""
        return [replace(found, numbers=found.numbers + note) for found in judge_all(_CLAIMS, results)]

    def tables(self, results: Results, title: str) -> list[Table]:
        """Lay out the means, then every task in a column of its own."""
        rows = results.get(GROUP, {})
        labels = {scores.metric: "Rouge-L" for scores in rows.values()}
        mean = make_table({GROUP: rows.values()}, title=title, labels=labels)
        names = sorted({task for scores in rows.values() for task in scores.header["tasks"]}, key=_place)
        groups = {self._called(task): [_only(scores, task) for scores in rows.values()] for task in names}
        return [mean, make_table(groups, title=f"{title}: each task", labels=labels)]

    def _called(self, task: str) -> str:
        """Name a task as the tables do, a stand-in as such."""
        if _is_papers(task):
            return task
        stood_for = self.stood_for().get(task)
        return f"{task} (stand-in for {stood_for})" if stood_for else f"{task} (stand-in)"

    def stood_for(self) -> dict[str, str]:
        """Read what stands for what. Raises E-OPTION for what is no such file, or names no task of the paper."""
        if self.stand_ins is None:
            return {}
        where = f"study sni: stand_ins={quote(str(self.stand_ins))}"
        try:
            content = json.loads(self.stand_ins.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise OptionError("E-OPTION", f"{where} can't be read as JSON: {error}.", "Check the path.") from None
        if not isinstance(content, dict):
            raise OptionError("E-OPTION", f"{where} holds no JSON object of names.", 'Write {"mine": "theirs"}.')
        found = {name: _papers_name(value) for name, value in content.items()}
        for name, theirs in found.items():
            if theirs is not None and theirs not in PAPERS_TASKS:
                what = f"{where}: {quote(name)} stands for {quote(str(theirs))}, which is no task of the paper."
                raise OptionError("E-OPTION", what, f"They are {', '.join(PAPERS_TASKS)}.")
        return {name: theirs for name, theirs in found.items() if theirs is not None}


def _papers_name(value: Any) -> str | None:
    """Find the paper's task in a name, or in facts about a task that have it under "paper_task"."""
    found = value.get("paper_task") if isinstance(value, Mapping) else value
    return None if found is None else str(found)


def _is_papers(task: str) -> bool:
    return task in PAPERS_TASKS


def _place(task: str) -> tuple[int, str]:
    return (PAPERS_TASKS.index(task) if _is_papers(task) else len(PAPERS_TASKS)), task


def _only(scores: Scores, task: str) -> Scores:
    """Keep the scores of one task."""
    header = {**scores.header, "tasks": {task: scores.header["tasks"][task]}}
    return Scores(header, tuple(outcome for outcome in scores.outcomes if outcome.task == task))
