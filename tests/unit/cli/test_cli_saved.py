"""Saved models on the command line."""

import json
import shutil
from pathlib import Path

import pytest
from cli_line import Run, World


@pytest.fixture
def saved(run: Run, world: World, copied: Path, tmp_path: Path) -> Path:
    into = tmp_path / "model"
    line = ("save", copied, "--router", "arrow:top_k=2", "--mix", "outputs", "--base", world.base, "--into", into)
    told = run(*line)
    assert (told.code, told.out) == (0, f"{into}: 3 experts, arrow:top_k=2, mix=outputs\n")
    return into


@pytest.mark.slow
def test_ask_and_eval_take_a_saved_model(run: Run, world: World, copied: Path, saved: Path, tmp_path: Path) -> None:
    routed = ("--router", "arrow:top_k=2", "--mix", "outputs", "--base", world.base)
    asked = ("swap: red fox", "--max-new-tokens", 3, "--json", "--explain")
    expected = run("ask", copied, *asked, *routed).out
    shutil.rmtree(copied)
    found = run("ask", saved, *asked)
    assert (found.code, found.out) == (0, expected)
    assert found.err.startswith(f"loading saved model {saved} ...\n")

    line = ("eval", saved, world.tasks, "--metric", "perplexity", "--limit", 2, "--into", tmp_path / "run.jsonl")
    assert run(*line).code == 0
    header = json.loads((tmp_path / "run.jsonl").read_text().splitlines()[0])
    assert header["model"]["router"] == "arrow:top_k=2"


def test_save_a_saved_model_again_as_json(run: Run, saved: Path, tmp_path: Path) -> None:
    told = json.loads(run("save", saved, "--refer", "--into", tmp_path / "again", "--json").out)
    assert told == {
        "model": str(tmp_path / "again"), "experts": ["copy", "swap", "upper"], "router": "arrow:top_k=2",
        "mix": "outputs",
    }  # fmt: skip
    assert run("ask", tmp_path / "again", "up", "--max-new-tokens", 1).code == 0


def test_show_tells_of_a_saved_model(run: Run, world: World, saved: Path) -> None:
    shown = run("show", saved)
    dtype = json.loads((saved / "model.json").read_text())["base"]["dtype"]  # what this machine computes in
    assert (shown.code, shown.out.splitlines()) == (0, [
        f"model    {saved}",
        f"base     {world.called} (LlamaForCausalLM, 2 layers, 32 wide), {dtype}",
        "router   arrow",
        "mix      outputs",
        "experts  copy, swap, upper",
        "options  temperature=1, top_k=2",
    ])  # fmt: skip
    told = json.loads(run("show", saved, "--json").out)
    assert (told["base"]["name"], told["experts"]) == (world.called, ["copy", "swap", "upper"])
    (saved / "model.json").write_text('{"base": 3}')
    assert (
        run("show", saved).err == f"error[E-MODEL] {saved / 'model.json'}: base is no object. Save the model again.\n"
    )


@pytest.mark.parametrize("option", [("--router", "uniform"), ("--mix", "factors"), ("--tasks", "x")])
def test_a_saved_model_has_its_own_router_and_mix(run: Run, saved: Path, option: tuple[str, str]) -> None:
    refused = run("ask", saved, "up", *option)
    assert refused.code == 2
    assert "a saved model has its own; this is for libraries." in refused.err


def test_what_is_wrong_with_a_saved_model_is_one_line(run: Run, world: World, saved: Path) -> None:
    shutil.rmtree(saved / "experts" / "swap")
    refused = run("ask", saved, "up", "--base", world.base)
    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        f"error[E-FILE] expert 'swap' of saved model 'model' is missing: no {str(saved / 'experts' / 'swap')!r}. "
        "Restore it there, or save the model again."
    )
    taken = run("save", saved, "--into", saved)
    assert taken.code == 1
