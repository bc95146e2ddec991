"""A base that somebody's files name: none of its code is run, and no path is opened that the user didn't name."""

import io
import json
import shutil
import time
import warnings

import pytest

import lorary
from lorary.cli.main import main
from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.model.base.config import MAX_PARTS
from lorary.model.base.named_bases import find_here
from lorary.model.base.outline import outline
from lorary.model.routed.route import route
from lorary.testing.pico import pico_base, random_library
from lorary.using.base_of import base_of

TRAP = """
open({mark!r}, "w").write("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class C(LlamaConfig): model_type = "evil"
class M(LlamaForCausalLM): pass
class T(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def directory(base, tmp_path):
    base.write(tmp_path / "somewhere" / "pico")
    return tmp_path / "somewhere" / "pico"


def rewrite(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def trap(directory, tmp_path, monkeypatch):
    """Make a base bring code along; answer yes to whoever asks. Gives the file that the code writes."""
    mark = tmp_path / "RAN"
    (directory / "evil.py").write_text(TRAP.format(mark=str(mark)))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return mark


CODE = {
    "its own architecture": lambda d: rewrite(
        d / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    ),
    "its own model": lambda d: rewrite(
        d / "config.json", model_type="roberta_evil", auto_map={"AutoConfig": "evil.C"}, architectures=["M"]
    ),
    "kernels": lambda d: rewrite(d / "config.json", attn_implementation="evil/kernels"),
    "kernels of experts": lambda d: rewrite(d / "config.json", experts_implementation="evil/kernels@v1:x"),
}


@pytest.mark.parametrize("what", CODE)
@pytest.mark.parametrize("opened", [outline, load_base])
def test_no_code_of_a_base_is_run(what, opened, directory, trap):
    CODE[what](directory)
    with pytest.raises(LoraryError, match=r"^error\[E-CODE\] base '.*pico'.* which lorary never runs\. Give a base "):
        opened(str(directory))
    assert not trap.exists()


def test_a_tokenizer_s_code_is_not_run_either(directory, trap):
    rewrite(directory / "tokenizer_config.json", tokenizer_class="T", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    for opened in (outline, load_base):
        try:
            opened(str(directory))  # transformers may know another way to read it
        except LoraryError as error:
            assert error.code in ("E-CODE", "E-BASE")  # noqa: PT017
        assert not trap.exists()


def test_a_base_that_transformers_knows_is_opened_without_its_code(directory, trap):
    rewrite(directory / "config.json", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    loaded = load_base(str(directory), dtype="float32")
    assert type(loaded.hf).__name__ == "LlamaForCausalLM" and outline(str(directory)) is not None
    loaded.trainable_copy()
    assert not trap.exists()


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_experts", "vision_config.depth", "layer_types"])
def test_a_base_that_claims_more_than_any_network_has_is_refused_in_no_time(key, directory):
    n = 2_000_000_000
    outer, _, inner = key.partition(".")
    rewrite(directory / "config.json", **{outer: {inner: n} if inner else ["full"] * 100_000 if "types" in key else n})
    began = time.process_time()
    for opened in (outline, load_base):
        with pytest.raises(
            LoraryError, match=rf"^error\[E-LIMIT\] base .* claims .* {key}, the limit is {MAX_PARTS:,}"
        ):
            opened(str(directory))
    assert time.process_time() - began < 1


def test_a_giant_config_is_refused_unread(directory):
    with (directory / "config.json").open("ab") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(LoraryError, match="E-LIMIT"):
        outline(str(directory))


# ---- whose path it is ---------------------------------------------------------------------------


@pytest.fixture
def theirs(directory, tmp_path):
    """A library whose experts name a base by a path, as older lorary wrote it."""
    library = random_library(tmp_path / "lib", pico_base(), 2)
    for expert in library.values():
        config = expert.directory / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(directory)}))
    return Library.open(library.path)


def test_a_path_counts_once_the_user_named_it(directory, theirs, tmp_path):
    assert find_here(str(directory)) is None
    with pytest.raises(LoraryError) as caught:
        base_of(theirs)
    assert str(caught.value) == (
        f"error[E-BASE] library 'lib' was made on base '{directory}', which is a directory that nobody but its files "
        "named. Give it with --base, if you trust it."
    )
    base = load_base(str(directory), dtype="float32")
    assert base_of(theirs) == str(directory) == find_here(str(directory))
    with route(base, theirs, "uniform") as model:
        model.save(tmp_path / "model")
    lorary.load(tmp_path / "model").detach()
    shutil.move(directory, tmp_path / "moved")
    (tmp_path / "moved" / "pico").mkdir(exist_ok=True)
    assert find_here(str(tmp_path / "moved")) is None


def test_a_saved_model_s_base_at_a_path_is_not_opened(base, directory, theirs, tmp_path):
    with route(base, theirs, "uniform") as model:
        model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    rewrite(path, base={**json.loads(path.read_text())["base"], "name": str(directory)})
    with pytest.raises(LoraryError, match="which is a directory that nobody but its files named"):
        lorary.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["lib/base", "pile_base", "../x", "/proc/self/cwd"])
def test_a_relative_path_means_nothing_by_itself(name, directory, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if not name.startswith("/proc"):
        shutil.copytree(directory, name)
    assert find_here(name) is None


def test_adding_a_pile_opens_no_base_that_it_names(directory, trap, theirs, tmp_path, monkeypatch, capsys):
    CODE["its own architecture"](directory)
    monkeypatch.chdir(tmp_path)
    for more, why in (
        ([], "is a directory that nobody but its files named"),
        (["--replace", "--base", str(directory)], "which lorary never runs. [E-CODE]"),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        with pytest.raises(SystemExit) as ended:
            main(["add", "lib2", str(theirs.path), *more])
        said = capsys.readouterr()
        assert not ended.value.code and why in said.err and "[y/N]" not in said.out + said.err
        assert not trap.exists()
    assert sorted(Library.open(tmp_path / "lib2")) == ["e0", "e1"]


def test_what_the_user_named_is_silent(directory):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_base(str(directory), dtype="float32")
