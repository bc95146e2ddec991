"""`lorary study`: benchmarks that it scores, and what it says a run will cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_line import Run, World

from benchmark_rows import OURS
from lorary.evaluation.scores import read_scores

ROWS = ("base", "shared")
CHEAP = "libraries=(shared,),steps=1,n_answer_new=1,n_score_new=1,max_new_tokens=2"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two benchmarks of choices, and one that runs code."""
    for name in ("piqa", "winogrande", "humaneval"):
        path = tmp_path / "benchmarks" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in OURS[name]))
    return tmp_path / "benchmarks"


@pytest.fixture
def line(world: World, place: Path) -> tuple[object, ...]:
    """A study without benchmarks that are named."""
    return (world.tasks, "--base", world.base, "--scale", "tiny", "--heldout", "upper", "--benchmarks", place)


def chosen(*names: str) -> list[str]:
    return [word for name in names for word in ("--benchmark", name)]


@pytest.mark.slow
def test_benchmarks_are_scored_by_every_row_and_judged_by_their_mean(
    run: Run, line: tuple[object, ...], tmp_path: Path
) -> None:
    into = tmp_path / "run"
    answer = run(
        "study", f"zero_shot:{CHEAP}", *line, *chosen("piqa", "winogrande"), "--into", into, "--json", "--workers", 1
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    groups = {column["group"] for table in found["tables"] for column in table["columns"]}
    assert {"piqa", "winogrande", "mean of the benchmarks"} <= groups
    assert not list(into.rglob("*humaneval*"))
    for row in ROWS:
        scores = read_scores(into / "seed42" / "runs" / f"{row}.piqa.jsonl")
        assert (scores.metric.partition(":")[0], len(scores.outcomes)) == ("choice", 3)
    (held,) = [one for one in found["verdicts"] if one["claim"].startswith("C8:")]
    assert held["numbers"] == "mbc-uniform on mean of the benchmarks was not measured."


@pytest.mark.slow
def test_the_paper_is_foreseen_with_its_benchmarks_and_no_weights(
    run: Run, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorary.grid.grid_work.load_base", None)
    monkeypatch.setattr("lorary.evaluation.evaluators.pass_at_k.require", None)  # only who runs code needs a sandbox
    monkeypatch.setattr("torch.nn.Module.load_state_dict", None)
    plan = ("study", "paper", *line, "--scale", "paper", "--dry-run", "--into", tmp_path / "run")
    answer = run(*plan)
    assert answer.code == 0, answer.err
    assert "study clusters can't be run on this: error[E-TASK] study clusters: 25 clusters of 2 tasks" in answer.err
    assert not (tmp_path / "run").exists()
    *rows, sums, time = answer.out.splitlines()
    assert sums.endswith("of them to train on.")
    assert "isn't known: nothing was trained on this base here" in time or "for one worker" in time
    counted = {row.split()[0]: row.split()[2:] for row in rows}
    path = "zero_shot/seed42/runs/{}.{}.jsonl"
    for name in ("piqa", "winogrande", "humaneval"):
        assert counted[path.format("mbc-arrow", name)] == counted[path.format("base", name)]
        assert counted[path.format("base", name)][0] == "3"
    assert "shared/seed42/libs/private" in counted
    assert "upstream/seed42/libs/private" not in counted
    as_json = json.loads(run(*plan, "--json").out)
    assert f"{as_json['tokens']:,} tokens, {as_json['tokens_to_train_on']:,} of them" in sums


def test_a_question_is_read_with_all_its_options(run: Run, line: tuple[object, ...], place: Path) -> None:
    (place / "piqa.jsonl").write_text(json.dumps(OURS["piqa"][0]) + "\n")
    plan = ("study", f"zero_shot:{CHEAP}", *line, *chosen("piqa"), "--dry-run", "--json")
    before = tokens_of(run(*plan).out)
    longer = {**OURS["piqa"][0], "choices": [OURS["piqa"][0]["choices"][0], "fill it with tea, with milk and with ice"]}
    (place / "piqa.jsonl").write_text(json.dumps(longer) + "\n")
    assert tokens_of(run(*plan).out) > before > 0


def tokens_of(out: str) -> int:
    parts: list[dict[str, Any]] = json.loads(out)["parts"]
    (found,) = [part["tokens"] for part in parts if part["path"].endswith("base.piqa.jsonl")]
    return int(found)


@pytest.mark.parametrize("study", [f"zero_shot:{CHEAP}", "paper:studies=(upstream,zero_shot),steps=1"])
def test_without_a_sandbox_code_is_refused_before_anything_is_built(
    study: str, run: Run, line: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = run("study", study, *line, "--into", tmp_path / "run")
    assert (answer.code, "error[E-SANDBOX]" in answer.err) == (1, True), answer.err
    assert not list(tmp_path.rglob("manifest.json")) and not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--benchmark", "piqua"), 1, "error[E-NAME] unknown benchmark 'piqua'. Did you mean 'piqa'?"),
        (("--benchmark", "boolq"), 1, "there are no rows of 'boolq'."),
        (
            ("--benchmark", "piqa", "--benchmark", "piqa:score=acc"), 1,
            "error[E-NAME] benchmark 'piqa' is given twice. Choose one of its forms",
        ),
    ],
)  # fmt: skip
def test_what_is_no_benchmark_is_refused(
    run: Run, line: tuple[object, ...], more: tuple[str, ...], code: int, message: str
) -> None:
    answer = run("study", "zero_shot", *line, *more, "--dry-run")
    assert (answer.code, message in " ".join(answer.err.split())) == (code, True), answer.err


def test_a_benchmark_needs_its_data(run: Run, world: World) -> None:
    answer = run("study", "zero_shot", world.tasks, "--benchmark", "piqa", "--dry-run")
    assert answer.code == 2
    assert "--benchmarks DIR" in " ".join(answer.err.replace("│", " ").split())
