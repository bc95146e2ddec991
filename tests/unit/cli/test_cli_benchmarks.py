"""`lorary eval --benchmark`: a file for each pair of a router and a benchmark, and a table that ends with the mean."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_line import Run, World

from benchmark_rows import HUB, OURS
from lorary.evaluation.benchmarking.mean import mean_over
from lorary.evaluation.scores import read_scores
from lorary.testing.contracts import files_of

ROUTERS = ("--router", "uniform", "--router", "arrow:top_k=1")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three benchmarks, one in the Hub's shape."""
    write(tmp_path / "zeroshot/piqa.jsonl", OURS["piqa"])
    write(tmp_path / "zeroshot/winogrande.jsonl", OURS["winogrande"])
    write(tmp_path / "zeroshot/ai2_arc/ARC-Easy/test-00000-of-00001.jsonl", HUB["arc_easy"])
    return tmp_path / "zeroshot"


@pytest.mark.slow
def test_routers_by_benchmarks_end_with_the_mean(run: Run, world: World, place: Path, tmp_path: Path) -> None:
    line = ("eval", world.library, place, "--benchmark", "all:score=acc", *ROUTERS, "--into", tmp_path / "runs")
    first = run(*line, "--workers", 1)
    assert first.code == 0, first.err
    names = [f"{name}-score=acc" for name in ("arc_easy", "piqa", "winogrande")]
    head, *rows = [text.split() for text in first.out.splitlines()]
    assert head == ["ARC-E", "PIQA", "WG", "mean", "of", "3"]
    for row, router in zip(rows, ("uniform", "arrow-top_k=1"), strict=True):
        runs = [read_scores(tmp_path / "runs" / f"private-{router}.{name}.jsonl") for name in names]
        assert [one.metric for one in runs] == ["choice:normalise=none,open_end=True"] * 3
        found = mean_over(runs)
        assert row == [
            f"private-{router.replace('-', ':')}", *(f"{one.mean:.1f}" for one in runs),
            f"{found.mean:.1f}", f"[{found.low:.1f},", f"{found.high:.1f}]",
        ]  # fmt: skip
    assert len(list((tmp_path / "runs").iterdir())) == 6
    assert "not scored, of the benchmarks there are: arc_challenge, bbh, boolq, hellaswag, " in first.err
    assert first.err.count("loading base") == 1
    before = files_of(tmp_path / "runs")
    again = run(*line, "--json")
    assert (again.code, files_of(tmp_path / "runs")) == (0, before)
    models = json.loads(again.out)["models"]
    assert [list(model["benchmarks"]) for model in models] == [["arc_easy:score=acc", "piqa:score=acc",
                                                                "winogrande:score=acc"]] * 2  # fmt: skip
    assert (
        models[1]["mean"]
        == mean_over([read_scores(tmp_path / "runs" / f"private-arrow-top_k=1.{name}.jsonl") for name in names]).mean
    )
    report = run("report", *sorted((tmp_path / "runs").glob("*.jsonl")), "--into", tmp_path / "report.html")
    assert report.code == 0, report.err


def test_one_benchmark_of_one_model_is_a_file(run: Run, world: World, place: Path, tmp_path: Path) -> None:
    line = (
        "eval",
        "base",
        place,
        "--base",
        world.base,
        "--benchmark",
        "piqa:shots=1",
        "--into",
        tmp_path / "one.jsonl",
    )
    answer = run(*line)
    assert answer.code == 0, answer.err
    scores = read_scores(tmp_path / "one.jsonl")
    assert (len(scores.outcomes), list(scores.header["tasks"])) == (2, ["piqa"])
    assert answer.out.splitlines()[-1].startswith(f"one: choice {scores.mean:.3f} [")
    one_file = run(*line[:2], place / "piqa.jsonl", *line[3:])
    assert (one_file.code, one_file.out) == (0, answer.out)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--benchmark", "piqa", "--metric", "choice"), 2, "a benchmark has a metric of its own; give one of the two."),
        (("--benchmark", "piqua"), 1, "error[E-NAME] unknown benchmark 'piqua'. Did you mean 'piqa'?"),
        (("--benchmark", "boolq"), 1, "there are no rows of 'boolq'."),
        (("--benchmark", "all"), 2, "several routers, metrics or benchmarks, and workers, need a directory"),
    ],
)
def test_what_is_no_benchmark_is_refused_before_a_base_is_loaded(
    run: Run, world: World, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("lorary.grid.grid_work.load_base", None)
    answer = run("eval", world.library, place, *more, "--into", tmp_path / "never.jsonl")
    assert answer.code == code, answer.err
    assert message in " ".join(answer.err.replace("│", " ").split())
    assert not (tmp_path / "never.jsonl").exists()


def test_the_list_of_benchmarks(run: Run) -> None:
    found = run("eval", "base", "nowhere", "--into", "x", "--benchmark", "list")
    assert found.code == 0
    assert "piqa           Which of two ways to reach an everyday goal works." in found.out
