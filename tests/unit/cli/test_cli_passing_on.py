"""What is passed on tells nothing of where it was made, and is found again all the same."""

import json
import re
import shutil
import warnings
from pathlib import Path

import peft
import pytest
from cli_line import Run, World
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lorary.library.base_names import is_shared_name, shared_name
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.model.base.named_bases import find_base, find_here, remember_base

ROUTER = ("--router", "arrow")


def leaks(made: Path, *places: Path) -> list[str]:
    """Name the files below a directory that hold a path of these."""
    secrets = [str(place).encode() for place in places]
    files = [path for path in sorted(made.rglob("*")) if path.is_file()]
    assert files
    return [str(path.relative_to(made)) for path in files if any(secret in path.read_bytes() for secret in secrets)]


@pytest.fixture
def theirs(world: World, tmp_path: Path) -> Path:
    """An adapter as PEFT leaves it on somebody's disk: with the path of its base and of files beside."""
    source, directory = world.library / "experts" / "swap", tmp_path / "theirs"
    directory.mkdir()
    arrays = load_file(source / "adapter_model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in arrays.items()}, directory / "adapter_model.safetensors")
    fields = json.loads((source / "adapter_config.json").read_text())
    more = {"base_model_name_or_path": str(world.base), "eva_config": {"cache": [str(tmp_path)], "to": str(tmp_path)}}
    (directory / "adapter_config.json").write_text(json.dumps({**fields, **more}))
    return directory


def test_a_library_and_what_is_made_of_it_hold_no_path(
    run: Run, world: World, theirs: Path, copied: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(copied, out / "lib")
    for step in [
        ("add", out / "lib", theirs),
        ("save", out / "lib", "--into", out / "saved", *ROUTER),
        ("export", out / "lib", "--into", out / "mean", "--mix", "outputs"),
    ]:
        done = run(*step)
        assert done.code == 0, (step, done.err)
    Library.open(out / "lib")["theirs"].copy_to(out / "copy")
    assert leaks(out, tmp_path, world.base.parent) == []
    assert {e.config["base_model_name_or_path"] for e in Library.open(out / "lib").values()} == {world.called}


@pytest.mark.slow
def test_nothing_that_any_command_writes_holds_a_path(run: Run, world: World, theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lib, line = out / "libs" / "private", ("--base", world.base, "--into")
    steps = [
        ("build", world.tasks, "--method", "private:steps=1", *line, lib),
        ("add", lib, theirs, "--task", "swap"),
        ("cluster", lib, "--method", "mbc:k=2", "--into", out / "groups.json"),
        ("build", world.tasks, "--method", f"per_cluster:steps=1,clusters={out / 'groups.json'}", *line, out / "mbc"),
        ("build", "--from", lib, "--method", "svd:rank=2", "--into", out / "merged"),
        ("ask", lib, "red fox", *ROUTER, "--max-new-tokens", 1),
        ("save", lib, "--into", out / "saved", *ROUTER),
        ("export", lib, "--into", out / "mean", "--mix", "outputs"),
        ("eval", lib, world.tasks, "--metric", "perplexity", "--into", out / "runs" / "a.jsonl", *ROUTER, "--limit", 1),
        ("report", out / "runs" / "a.jsonl", "--into", out / "page.html"),
        ("finetune", world.tasks, "--options", "steps=1", *line, out / "full"),
        ("quickstart", "--tasks", world.tasks, "--steps", 1, "--max-new-tokens", 1, *line, out / "quick"),
    ]
    for step in steps:
        done = run(*step)
        assert done.code == 0, (step, done.err)
    assert leaks(out, tmp_path, world.base.parent) == []
    card = (lib / "README.md").read_text()
    assert "base_model:" not in card, "no name on the Hub is made up"


def test_it_is_found_again_where_the_user_named_it(run: Run, world: World, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    assert run("add", lib, world.library, "--base", world.base).code == 0
    asked = run("ask", lib, "red fox", *ROUTER, "--max-new-tokens", 1)
    assert (asked.code, asked.err.splitlines()[0]) == (0, f"loading base {world.base} ...")
    assert load_base(world.called, device="cpu").name == world.called
    assert find_here(world.called) == str(world.base) == find_base(world.called, None)
    assert find_here(world.called[:-1] + "x") is None


@pytest.mark.slow
def test_an_older_library_opens_and_goes_on(run: Run, world: World, theirs: Path, copied: Path) -> None:
    for config in copied.glob("experts/*/adapter_config.json"):  # with the path, as it was written
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(world.base)}))
    assert run("add", copied, theirs).code == 0
    assert run("show", copied).out.startswith(f"base: {world.base} (")
    shutil.rmtree(copied / "experts" / "swap")
    built = run("build", world.tasks, "--method", "private:steps=3", "--into", copied)
    assert built.code == 0, built.err
    called = {name: expert.config["base_model_name_or_path"] for name, expert in Library.open(copied).items()}
    assert called == {"copy": str(world.base), "upper": str(world.base), "swap": world.called, "theirs": world.called}
    assert run("ask", copied, "red fox", *ROUTER, "--max-new-tokens", 1).code == 0


def test_peft_opens_it_on_the_base_that_it_is_given(world: World, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(world.base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.PeftModel.from_pretrained(base, str(world.library), subfolder="experts/swap")
    assert model.peft_config["default"].base_model_name_or_path == world.called


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/me/llama", r"\./llama~[0-9a-f]{8}"),
        ("/home/me/a/../llama//", r"\./llama~[0-9a-f]{8}"),
        (r"C:\Users\me\llama", r"\./llama~[0-9a-f]{8}"),
        ("C:/Users/me/llama", r"\./llama~[0-9a-f]{8}"),
        (r"\\server\me\llama", r"\./llama~[0-9a-f]{8}"),
        ("~/llama", r"\./llama~[0-9a-f]{8}"),
        ("file:///home/me/llama", r"\./llama~[0-9a-f]{8}"),
        ("/", r"\./base~[0-9a-f]{8}"),
        ("me/llama", "me/llama"),
        ("llama", "llama"),
        ("./llama", r"\./llama"),
        ("", ""),
    ],
)
def test_a_path_is_told_as_its_last_part_and_a_hash(path: str, name: str) -> None:
    assert re.fullmatch(name, shared_name(path))
    assert shared_name(shared_name(path)) == shared_name(path)
    assert is_shared_name(shared_name(path)) == ("~" in name)


def test_directories_of_one_name_are_two_bases(world: World, tmp_path: Path) -> None:
    assert (
        shared_name("/a/llama/") == shared_name("/a/llama") == shared_name("file:/a/llama") != shared_name("/b/llama")
    )
    other = Path(shutil.copytree(world.base, tmp_path / "pico"))
    remember_base(str(other))
    assert find_here(shared_name(str(other))) == str(other)
    assert find_here(world.called) == str(world.base)
