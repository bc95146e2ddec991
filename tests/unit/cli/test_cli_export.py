"""One adapter out of a library, on the command line."""

import json
from pathlib import Path

import pytest
from cli_line import Run, World


def test_export_tells_rank_and_error(run: Run, world: World, tmp_path: Path) -> None:
    told = run("export", world.library, "--into", tmp_path / "a")
    assert told.out.splitlines()[0] == f"{tmp_path / 'a'}: 8 sites, rank 4"
    assert told.out.splitlines()[1].startswith("relative error 0.00e+00; worst 0.00e+00 at model.layers.")
    line = ("export", world.library, "--share", "swap=0.5", "--share", "copy=0.5", "--mix", "outputs", "--rank", 3)
    told = json.loads(run(*line, "--into", tmp_path / "b", "--json").out)
    assert set(told["ranks"].values()) == {3}
    assert 0 < told["error"] <= told["worst"][1] < 1
    assert run("show", tmp_path / "b").code == 0
    again = run("export", world.library, "--into", tmp_path / "a")
    assert (again.code, again.err.split("]")[0]) == (1, "error[E-EXISTS")


def test_export_the_average_of_arrow_s_choices(run: Run, world: World, tmp_path: Path) -> None:
    line = ("export", world.library, "--texts", world.tasks, "--router", "arrow:top_k=2", "--base", world.base)
    told = run(*line, "--limit", 2, "--into", tmp_path / "a")
    assert told.code == 0
    made = json.loads((tmp_path / "a" / "expert.json").read_text())
    assert made["parents"] == ["copy", "swap", "upper"]
    assert sum(next(iter(made["builder"]["shares"].values())).values()) == pytest.approx(1)


def test_a_share_is_a_number(run: Run, world: World, tmp_path: Path) -> None:
    refused = run("export", world.library, "--share", "swap=half", "--into", tmp_path / "a")
    assert refused.code == 2
    assert "'swap=half' is not NAME=NUMBER." in refused.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--router arrow", "--router: it chooses for prompts: give them with --texts TASKS."),
        ("--share swap=1 --share copy=1 --share swap=2", "--share: 'swap' is given twice."),
        ("--texts tasks --share swap=1", "--share: with --texts the router chooses the shares."),
    ],
)
def test_what_would_be_passed_over_is_refused(run: Run, world: World, tmp_path: Path, line: str, message: str) -> None:
    refused = run("export", world.library, *line.split(), "--into", tmp_path / "a")
    assert (refused.code, refused.err.splitlines()[-1]) == (2, f"Error: Invalid value for {message}")
    assert not (tmp_path / "a").exists()


def test_other_forms_are_written_one_at_a_time(run: Run, world: World, tmp_path: Path) -> None:
    line = ("export", world.library, "--base", world.base, "--share", "copy=1")
    assert run(*line, "--merged", tmp_path / "merged").out == f"{tmp_path / 'merged'}: written\n"
    assert (tmp_path / "merged" / "config.json").is_file()
    assert run(*line, "--gguf", tmp_path / "one.gguf", "--json").code == 0
    assert (tmp_path / "one.gguf").read_bytes()[:4] == b"GGUF"
    for more in (("--merged", tmp_path / "x", "--gguf", tmp_path / "y"), (), ("--merged", tmp_path / "x", "--rank", 2)):
        assert run(*line, *more).code == 2
    padded = run("export", world.library, "--into", tmp_path / "padded", "--pad-rank")
    assert padded.out.splitlines()[0].endswith("sites, rank 8")
