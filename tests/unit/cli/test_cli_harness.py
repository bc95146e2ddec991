"""`lorary eval --harness lm-eval`: several routers, the harness's files, our table; what doesn't go together."""

import json
from pathlib import Path

import pytest
from cli_line import Run, World

from lorary.evaluation.scores import read_scores

pytest.importorskip("lm_eval")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and its packages

TASK = {
    "task": "asked", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "{{question}}", "doc_to_choice": ["yes", "no"], "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}  # fmt: skip


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task of the harness over three local rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # seconds, to list all packages
    rows = [{"question": f"Is it {n}?", "label": n % 2} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    data = {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
    (tmp_path / "asked.yaml").write_text(json.dumps(TASK | data), "utf-8")
    return tmp_path / "asked.yaml"


def test_several_routers_by_the_harness(
    run: Run, world: World, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorary.using import open_model

    loaded, load = [], open_model.load_base
    monkeypatch.setattr(open_model, "load_base", lambda *args, **options: loaded.append(args) or load(*args, **options))
    line = ("eval", world.library, "--harness", "lm-eval", "--tasks", task, "--into", tmp_path / "out")
    answer = run(*line, "--router", "uniform", "--router", "arrow:top_k=1", "--limit", 2)
    assert answer.code == 0, answer.err
    assert "private-uniform" in answer.out and "private-arrow:top_k=1" in answer.out and "lm-eval acc" in answer.out
    assert len(loaded) == 1
    found = sorted((tmp_path / "out").glob("*.jsonl"))
    assert [read_scores(path).name for path in found] == ["private-arrow:top_k=1", "private-uniform"]
    assert [len(read_scores(path).outcomes) for path in found] == [2, 2]
    assert len(list((tmp_path / "out").glob("*/results_*.json"))) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("tasks", "--harness", "lm-eval"), "the harness's tasks name their data and metrics"),
        (("--harness", "lm-eval", "--metric", "choice"), "the harness's tasks name their data and metrics"),
        (("--harness", "helm"), "'helm' is unknown; known: lm-eval."),
        (("--harness", "lm-eval"), "name the harness's tasks: --tasks FILE"),
        (("tasks", "--tasks", "x.yaml"), "this names tasks of a harness: --harness lm-eval."),
        ((), "the tasks to score are missing."),
    ],
)
def test_what_does_not_go_together_is_told(run: Run, world: World, more: tuple[str, ...], message: str) -> None:
    answer = run("eval", world.library, *more, "--into", "out")
    assert answer.code == 2 and message in " ".join(answer.err.replace("│", " ").split())
