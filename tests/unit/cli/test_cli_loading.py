"""Options of all commands that load a base: what they hand on, and what is said of it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from cli_line import Run, World

from lorary.building import build as backend
from lorary.building.recipe import make_recipe
from lorary.cli.options.groups import Group, grouped
from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.model.base import base_model
from lorary.using import open_model


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What each base was loaded with, beside its name."""
    seen: list[dict] = []
    load = open_model.load_base

    def listen(name: str, **options: object) -> object:
        seen.append(options)
        return load(name, **options)

    for home in (base_model, open_model):  # of saved models, and of all else
        monkeypatch.setattr(home, "load_base", listen)
    return seen


def test_they_reach_the_base(run: Run, world: World, loaded: list[dict]) -> None:
    told = ("--template-option", "enable_thinking=false", "--template-option", "mood=kind")
    sizes = ("--max-tokens", 100, "--batch-tokens", 64, "--dtype", "float32")
    assert run("ask", "base", "hello", "--base", world.base, "--max-new-tokens", 2, *told, *sizes).code == 0
    (options,) = loaded
    assert options == {
        "device": "auto",
        "dtype": "float32",
        "max_tokens": 100,
        "batch_tokens": 64,
        "template_options": {"enable_thinking": False, "mood": "kind"},
        "chat_template": None,
        "vocab_size": None,
    }


def test_a_template_option_is_a_pair(run: Run, world: World) -> None:
    answer = run("ask", "base", "hello", "--base", world.base, "--template-option", "thinking")
    assert answer.code == 2
    assert "'thinking' is not KEY=VALUE" in answer.err


@pytest.mark.filterwarnings("default")
def test_a_question_that_is_cut_is_told(run: Run, world: World) -> None:
    line = ("ask", world.library, "x" * 300, "--router", "uniform", "--max-new-tokens", 4)
    answer = run(*line, "--max-tokens", 50)
    assert answer.code == 0
    assert (
        "warning: 1 of 1 prompts were cut at their start, by up to 254 tokens: "
        "a prompt and its answer may have 50 tokens together (max_tokens).\n"
    ) in answer.err
    assert "warning" not in run("ask", world.library, "x" * 200, *line[3:]).err


def test_an_answer_ends_before_a_stop_text(run: Run, world: World) -> None:
    line = ("ask", world.library, "hello", "--router", "uniform", "--json", "--max-new-tokens", 12)
    whole = json.loads(run(*line).out)["answer"]
    assert len(whole) > 3
    assert json.loads(run(*line, "--stop", whole[2:4]).out)["answer"] == whole[:2].strip()


@pytest.mark.slow
def test_a_build_notes_the_longest_text_by_option_or_recipe(run: Run, world: World, tmp_path: Path) -> None:
    line = ("build", world.tasks, "--method", "private:steps=1", "--base", world.base, "--only", "copy")
    assert run(*line, "--into", tmp_path / "a", "--max-tokens", 99).code == 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("max_tokens = 98\ntemplate_options = {mood = 'kind'}\n")
    assert run(*line, "--into", tmp_path / "b", "--recipe", recipe).code == 0
    found = [json.loads((tmp_path / name / "experts" / "copy" / "expert.json").read_text()) for name in "ab"]
    assert [facts["max_tokens"] for facts in found] == [99, 98]
    assert run(*line, "--into", tmp_path / "c", "--max-tokens", 10_000).code == 1


def test_a_library_is_built_further_on_a_base_with_more_rows(
    run: Run, world: World, copied: Path, padded: Path, tmp_path: Path
) -> None:
    shutil.copy(world.tasks / "copy.jsonl", tmp_path / "more.jsonl")
    line = ("build", tmp_path / "more.jsonl", "--method", "private:steps=1", "--into", copied)
    refused = run(*line, "--base", padded)
    assert refused.code == 1 and "--vocab-size 258" in refused.err
    assert run(*line, "--base", padded, "--vocab-size", 258).code == 0
    fingerprints = [e.provenance.base_fingerprint for e in Library.open(copied).values()]
    assert len(fingerprints) == 4 and all(facts == fingerprints[0] for facts in fingerprints)


def test_a_recipe_names_a_chat_template_from_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "builder": "private:steps=1",
        "into": "lib",
        "tasks": "t",
        "chat_template": "chat.jinja",
        "vocab_size": 258,
    }
    loading = make_recipe(given, "recipe").absolute().loading
    assert (loading["chat_template"], loading["vocab_size"]) == (str(tmp_path / "chat.jinja"), 258)
    with pytest.raises(OptionError, match="vocab_size"):
        make_recipe({**given, "vocab_size": "many"}, "recipe")


def test_a_saved_model_takes_them_too(run: Run, world: World, tmp_path: Path, loaded: list[dict]) -> None:
    assert run("save", world.library, "--router", "uniform", "--into", tmp_path / "saved").code == 0
    assert run("ask", tmp_path / "saved", "hello", "--max-new-tokens", 2, "--max-tokens", 77).code == 0
    assert loaded[-1]["max_tokens"] == 77


def test_groups_are_spread_out_into_options() -> None:
    @dataclass(frozen=True)
    class Both(Group):
        wide: Annotated[int, typer.Option(help="Width.")] = 3
        name: str = "x"

    def command(first: int, last: bool = False, *, how: Both) -> int:
        assert isinstance(how, Both)
        return first * how.wide

    spread = grouped(command)
    assert spread(first=2, last=True, wide=5, name="y") == 10
    assert list(spread.__annotations__) == ["first", "last", "wide", "name"]
    assert spread.__name__ == "command"


def test_a_build_and_its_recipe_say_how_attention_is_computed(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(backend, "build_recipe", lambda recipe, **_: asked.append(recipe.loading["attention"]) or {})
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'attention = "sdpa"\nbuilder = "private"\nbase = "{world.base}"\ntasks = "{world.tasks}"\n')
    line = ("build", "--recipe", recipe, "--into", tmp_path / "lib")
    assert run(*line).code == run(*line, "--attention", "eager").code == 0
    assert asked == ["sdpa", "eager"]
