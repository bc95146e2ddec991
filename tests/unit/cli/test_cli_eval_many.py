"""`lorary eval` with several routers, metrics or benchmarks: one file for each pair, in a directory."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_line import Run, World

from lorary.errors import EvaluationError
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.evaluation.scores import read_scores
from lorary.testing.contracts import files_of

METRICS = ("--metric", "perplexity", "--metric", "exact_match:max_new_tokens=2")
ROUTERS = ("--router", "uniform", "--router", "arrow:top_k=1")
FILES = {
    "private-arrow-top_k=1.exact_match-max_new_tokens=2.jsonl",
    "private-arrow-top_k=1.perplexity.jsonl",
    "private-uniform.exact_match-max_new_tokens=2.jsonl",
    "private-uniform.perplexity.jsonl",
}


@pytest.fixture
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """No base may be loaded."""
    monkeypatch.setattr("lorary.grid.grid_work.load_base", None)
    monkeypatch.setattr("lorary.cli.models.load", None)


@pytest.mark.slow
def test_routers_and_metrics_make_a_grid(run: Run, world: World, tmp_path: Path) -> None:
    line = ("eval", world.library, world.tasks, *ROUTERS, *METRICS, "--into", tmp_path / "runs", "--workers", 1)
    first = run(*line)
    assert first.code == 0, first.err
    assert [row.split()[:3] for row in first.out.splitlines()] == [
        [f"private-{router}", metric, f"{scores.mean:.3f}"]
        for router in ("uniform", "arrow:top_k=1")
        for metric in ("perplexity", "exact_match:max_new_tokens=2")
        for scores in [read_scores(file_of(tmp_path / "runs", router, metric))]
    ]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == FILES
    told = [line for line in first.err.splitlines() if line.startswith(("loading base", "4 runs", "routing"))]
    assert told == [
        f"loading base {world.base} ...",
        "4 runs to score, 0 are there already.",
        "routing private-uniform ...",
        "routing private-arrow:top_k=1 ...",
    ]
    before = files_of(tmp_path / "runs")
    again = run(*line, "--json")
    assert (again.code, files_of(tmp_path / "runs")) == (0, before)
    assert [Path(one["run"]).name for one in json.loads(again.out)["runs"]] == [
        path.name for path in map(Path, (file_of(tmp_path / "runs", r, m) for r, m in pairs()))
    ]
    assert run("status", tmp_path / "runs").out == "4 jobs: 4 done.\n"
    report = run("report", *sorted((tmp_path / "runs").glob("*.jsonl")), "--into", tmp_path / "report.html")
    assert report.code == 0


def pairs() -> list[tuple[str, str]]:
    return [(r, m) for r in ("uniform", "arrow:top_k=1") for m in ("perplexity", "exact_match:max_new_tokens=2")]


def file_of(runs: Path, router: str, metric: str) -> Path:
    return runs / f"private-{router.replace(':', '-')}.{metric.replace(':', '-')}.jsonl"


def test_a_cell_of_a_grid_is_the_run_of_a_single_evaluation(run: Run, world: World, tmp_path: Path) -> None:
    """Save its name, which is the file's by default."""
    metric, common = ("--metric", "perplexity"), (world.library, world.tasks)
    assert run("eval", *common, *ROUTERS, *metric, "--into", tmp_path / "runs", "--threads", 1).code == 0
    for router in ("uniform", "arrow:top_k=1"):
        assert run("eval", *common, "--router", router, *metric, "--into", tmp_path / "one.jsonl").code == 0
        one, cell = (read_scores(p) for p in (tmp_path / "one.jsonl", file_of(tmp_path / "runs", router, "perplexity")))
        assert cell.outcomes == one.outcomes
        assert {**cell.header, "name": "one"} == one.header
        (tmp_path / "one.jsonl").unlink()


def test_a_few_of_the_tasks_are_scored(run: Run, world: World, tmp_path: Path) -> None:
    line = ("eval", world.library, world.tasks, "--metric", "perplexity", "--router", "uniform")
    answer = run(*line, "--only", "copy", "--into", tmp_path / "one.jsonl")
    assert answer.code == 0, answer.err
    assert list(read_scores(tmp_path / "one.jsonl").per_task()) == ["copy"]
    (tmp_path / "runs").mkdir()
    assert run(*line, "--only", "copy", "--into", tmp_path / "runs").code == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["private-uniform.perplexity.jsonl"]
    assert run("report", tmp_path / "runs", "--into", tmp_path / "page.html").code == 0
    refused = run(*line, "--only", "cpoy", "--into", tmp_path / "two.jsonl")
    assert (refused.code, refused.out) == (1, "")
    assert "'cpoy'" in refused.err
    assert "Did you mean 'copy'?" in refused.err


def test_base_and_saved_model_by_several_metrics(run: Run, world: World, tmp_path: Path) -> None:
    assert run("save", world.library, "--router", "uniform", "--into", tmp_path / "saved").code == 0
    for target, base in (("base", ("--base", world.base)), (tmp_path / "saved", ())):
        answer = run("eval", target, world.tasks, *METRICS, *base, "--into", tmp_path / "runs", "--workers", 1)
        assert answer.code == 0, answer.err
    assert {path.name.partition(".")[0] for path in (tmp_path / "runs").iterdir()} == {"base", "saved"}
    refused = run("eval", "base", world.tasks, *METRICS, "--max-share", "0.5", "--into", tmp_path / "runs")
    assert "the bare base has no experts; this is for libraries." in refused.err
    assert refused.code == 2


def test_a_failing_cell_is_partial_success(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise EvaluationError("E-EVAL", "no.")

    monkeypatch.setattr(ExactMatch, "score", fail)
    line = ("eval", world.library, world.tasks, *ROUTERS, *METRICS, "--into", tmp_path / "runs", "--workers", 1)
    failed = run(*line)
    assert failed.code == 3
    assert failed.err.splitlines()[-1] == (
        "2 of 4 runs are done and kept; missing: private-uniform.exact_match-max_new_tokens=2, "
        "private-arrow-top_k=1.exact_match-max_new_tokens=2. The same command tries these again."
    )
    status = run("status", tmp_path / "runs")
    assert status.code == 3
    assert status.out.splitlines()[-1] == "4 jobs: 2 done, 2 failed."
    monkeypatch.undo()
    assert run(*line).code == 0
    assert not (tmp_path / "runs" / ".work").exists()


@pytest.mark.usefixtures("no_base")
@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ("--router uniform --router arow", 1, "error[E-NAME] unknown router 'arow'."),
        ("--metric rouge_l --metric rouge", 1, "error[E-NAME] unknown metric 'rouge'."),
        ("--metric rouge_l --metric choice", 1, "error[E-EVAL] "),
        ("--router uniform --router centroid", 1, "error[E-PROBE] "),
        ("--router uniform --router uniform", 1, "error[E-NAME] 'private-uniform' by 'rouge_l' is given twice."),
        (
            "--router uniform --router arrow --into x.jsonl",
            2,
            "Invalid value for --into: several routers, metrics or benchmarks",
        ),
        (
            "--workers 2 --into x.jsonl",
            2,
            "Invalid value for --into: several routers, metrics or benchmarks, and workers, need",
        ),
        ("--router uniform --router arrow --into file", 1, "error[E-RUN] "),
        ("--backend ray --workers 2", 2, "Invalid value for --workers: only the local backend has them."),
    ],
)
def test_what_is_wrong_is_told_before_a_base_is_loaded(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    answer = run("eval", world.library, world.tasks, "--into", "runs", *more.split())
    assert message in answer.err
    assert answer.code == code
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("no_base")
def test_a_file_of_another_run_is_told_before_a_base_is_loaded(
    run: Run, world: World, tmp_path: Path, copied: Path
) -> None:
    (tmp_path / "private").parent.mkdir(exist_ok=True)
    shutil.move(copied, tmp_path / "private")
    runs = tmp_path / "runs"
    runs.mkdir()
    header = {
        "format": 1, "name": "private-uniform", "metric": "perplexity", "options": {}, "unit": "nats per token",
        "higher_is_better": False, "model": {"router": "arrow"}, "tasks": {"t": {"n_examples": 1, "hash": "0"}},
    }  # fmt: skip
    (runs / "private-uniform.perplexity.jsonl.part").write_text(json.dumps(header) + "\n")
    answer = run("eval", tmp_path / "private", world.tasks, *ROUTERS, *METRICS, "--into", runs)
    assert "private-uniform.perplexity.jsonl.part: holds another run: " in answer.err
    assert answer.code == 1
