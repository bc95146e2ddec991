"""Adapters into a library and out of it, on the command line."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_line import Run, World
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file

from lorary.errors import LibraryError
from lorary.library.library import Library
from lorary.testing.pico import pico_base


def test_add(run: Run, world: World, copied: Path) -> None:
    source = world.library / "experts" / "swap"
    added = run("add", copied, source, "--as", "turned", "--task", "swap", "--task", "turn")
    assert (added.code, added.out) == (0, f"{copied}/turned: rank 4, 8 sites\n")
    assert json.loads((copied / "experts" / "turned" / "expert.json").read_text())["tasks"] == ["swap", "turn"]
    again = run("add", copied, source, "--as", "turned", "--json")
    assert (again.code, again.out) == (1, "")
    assert (
        again.err == "error[E-EXISTS] expert 'turned' exists already. Choose another name, or replace it (--replace).\n"
    )


def test_add_makes_a_library(run: Run, world: World, tmp_path: Path) -> None:
    added = run("add", tmp_path / "new", world.library / "experts" / "swap", "--as", "swap", "--json")
    source = str(world.library / "experts" / "swap")
    told = {"added": [{"expert": "swap", "source": source, "findings": []}], "kept": [], "refused": []}
    assert json.loads(added.out) == {"library": str(tmp_path / "new"), **told}
    assert run("show", tmp_path / "new").code == 0


def test_add_keeps_nothing_of_an_expert_with_nan(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    source = world.library / "experts" / "swap"
    (bad / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    arrays = load_file(source / "adapter_model.safetensors")
    key = min(arrays)
    arrays[key][0, 0] = np.nan
    save_file(arrays, bad / "adapter_model.safetensors")
    refused = run("add", copied, bad, "--as", "poems")
    assert refused.code == 1
    assert refused.err == (
        f"error[E-NONFINITE] expert 'poems': tensor {key!r} has 1 entries that are not numbers below 10000, "
        "the first at (0, 0). Its training diverged; leave it out or train it again.\n"
    )
    assert not (copied / "experts" / "poems").exists()
    assert not list((copied / ".staging").iterdir())


def test_add_tells_warnings(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    source = world.library / "experts" / "swap"
    (odd / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    config = json.loads((source / "adapter_config.json").read_text())
    (odd / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": "lora_ga"}))
    added = run("add", copied, odd, "--as", "odd", "--json")
    assert [finding["code"] for finding in json.loads(added.out)["added"][0]["findings"]] == ["W-INIT", "W-TWIN"]
    assert added.err.startswith("warning[W-INIT] ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/where", "error[E-FILE] expert 'poems': there is no directory '/no/where'. Check the path."),
        ("hf://user", "error[E-HUB] 'hf://user' can't be read. Write hf://user/repo[/folder][@revision]."),
    ],
)
def test_add_tells_what_it_cannot_find(run: Run, copied: Path, source: str, message: str) -> None:
    refused = run("add", copied, source, "--as", "poems")
    assert (refused.code, refused.err) == (1, message + "\n")


# ---- of which base ------------------------------------------------------------------------------


def others(world: World, directory: Path, weights: Any = None, **config: Any) -> Path:
    """An adapter as others have it: no expert.json, another config, other weights."""
    source = world.library / "experts" / "swap"
    directory.mkdir(parents=True)
    arrays = load_file(source / "adapter_model.safetensors")
    save_file(weights(arrays) if weights else arrays, directory / "adapter_model.safetensors")
    fields = {**json.loads((source / "adapter_config.json").read_text()), **config}
    (directory / "adapter_config.json").write_text(json.dumps(fields))
    return directory


def test_an_adapter_of_another_base_is_refused(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    strange = others(world, tmp_path / "llama", base_model_name_or_path="meta-llama/Llama-3-8B")
    refused = run("add", copied, strange)
    assert refused.code == 1
    assert refused.err == (
        "error[E-BASE] expert 'llama' was trained on base 'meta-llama/Llama-3-8B', "
        f"the library is of '{world.called}'. "
        f"If that is the same one under another name, say so: --base {world.called}.\n"
    )
    assert run("add", copied, strange, "--base", world.called).code == 0, "what is told to do does it"
    assert run("remove", copied, "llama").code == 0
    wrong = run("add", copied, strange, "--base", "meta-llama/Llama-3-8B")
    assert (wrong.code, wrong.err.split("]")[0]) == (1, "error[E-BASE")
    assert run("ask", copied, "up", "--router", "uniform", "--max-new-tokens", 1).code == 0


def test_the_user_may_say_that_it_is_the_same_base(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    theirs = others(world, tmp_path / "mine", base_model_name_or_path="/home/me/pico")
    nameless = others(world, tmp_path / "nameless", base_model_name_or_path=None)
    assert run("add", copied, theirs, nameless, "--base", world.base).code == 0
    for name in ("mine", "nameless"):
        assert Library.open(copied)[name].config["base_model_name_or_path"] == world.called
    asked = run("ask", copied, "up", "--router", "uniform", "--max-new-tokens", 1)
    assert (asked.code, asked.err.splitlines()[0]) == (0, f"loading base {world.base} ...")


def test_what_experts_were_built_on_counts_not_what_others_call_it(
    run: Run, world: World, copied: Path, tmp_path: Path
) -> None:
    theirs = others(world, tmp_path / "mine", base_model_name_or_path="/home/me/pico")
    Library.open(copied).add(theirs, "mine")
    assert run("ask", copied, "up", "--router", "uniform", "--max-new-tokens", 1).code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: {key.replace("layers.1.", "layers.9."): value for key, value in arrays.items()},
            "error[E-TARGET] expert 'odd': site 'model.layers.9.self_attn.k_proj' (and 3 more sites): "
            "the base has no such layer.",
        ),
        (
            lambda arrays: {key: np.ascontiguousarray(a[:, :16]) if "_A" in key else a for key, a in arrays.items()},
            "error[E-SHAPE] expert 'odd': site 'model.layers.0.self_attn.k_proj' (and 7 more sites): "
            "the adapter maps 16 to 32, the base 32 to 32. It was trained on another base.",
        ),
    ],
)
def test_sizes_are_checked(run: Run, world: World, copied: Path, tmp_path: Path, change: Any, message: str) -> None:
    refused = run("add", copied, others(world, tmp_path / "odd", change, target_modules=None))
    assert refused.code == 1
    assert refused.err.startswith(message)
    assert run("show", copied).code == 0


def test_a_library_s_fingerprint_counts_before_it_has_experts(
    run: Run, world: World, copied: Path, tmp_path: Path
) -> None:
    fingerprint = {**(Library.open(copied).base or {}), "n_layers": 30}
    Library.create(tmp_path / "new", base=fingerprint)
    refused = run("add", tmp_path / "new", others(world, tmp_path / "odd"))
    assert refused.err.startswith("error[E-BASE] expert 'odd': made for another base (n_layers is 2,")


def test_where_the_base_is_elsewhere_a_warning_says_what_was_not_checked(
    run: Run, world: World, tmp_path: Path
) -> None:
    theirs = others(world, tmp_path / "theirs", base_model_name_or_path="no/where")
    added = run("add", tmp_path / "new", theirs)
    assert added.code == 0
    assert added.err == (
        "warning[W-BASE] expert 'theirs': whether it fits was not checked, for base 'no/where' isn't on this machine.\n"
    )


def test_a_base_with_more_rows_is_the_same_where_that_is_said(
    run: Run, world: World, copied: Path, padded: Path, tmp_path: Path
) -> None:
    theirs = others(world, tmp_path / "theirs", base_model_name_or_path=str(padded))
    add = ("add", tmp_path / "lib", theirs, "--base", padded)
    Library.create(tmp_path / "lib", base=Library.open(copied).base)
    refused = run(*add)
    assert refused.code == 1
    assert "vocab_size is 320, the library's is 258" in refused.err and "--vocab-size 258, load" in refused.err
    assert run(*add, "--vocab-size", 400).err.startswith("error[E-OPTION] --vocab-size 400: base ")
    assert run(*add, "--vocab-size", 0).code == 2
    assert run(*add, "--vocab-size", 258).code == 0
    ask = ("ask", copied, "up", "--router", "arrow", "--max-new-tokens", 1, "--base")
    assert "--vocab-size 258" in run(*ask, padded).err
    assert run(*ask, padded, "--vocab-size", 258).out == run(*ask, world.base).out


def test_a_chat_template_that_an_adapter_brings_is_kept_told_of_and_used_when_asked_for(
    run: Run, world: World, copied: Path, tmp_path: Path
) -> None:
    theirs = others(world, tmp_path / "chat", base_model_name_or_path=str(world.base))
    (theirs / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    added = run("add", copied, theirs)
    kept = copied / "experts" / "chat" / "chat_template.jinja"
    told = f"To use it, give --chat-template {str(kept)!r}."
    assert added.code == 0 and "warning[W-CHAT] it brings a chat template, " in added.err and told in added.err
    ask = ("ask", copied, "up", "--chat", "--router", "uniform", "--max-new-tokens", 1)
    assert run(*ask).code == 1
    assert run(*ask, "--chat-template", kept).code == 0
    (tmp_path / "empty").write_text(" ")
    for wrong, code in ((tmp_path / "empty", "E-CHAT"), (tmp_path / "nowhere", "E-FILE"), (tmp_path, "E-PATH")):
        refused = run(*ask, "--chat-template", wrong)
        assert refused.code == 1 and f"error[{code}] " in refused.err and "Give the file itself" in refused.err


# ---- many ---------------------------------------------------------------------------------------


def test_a_folder_of_adapters_is_added_as_far_as_it_passes(run: Run, world: World, tmp_path: Path) -> None:
    pile = tmp_path / "pile"
    others(world, pile / "my model v1.2")
    others(world, pile / "nan", lambda arrays: {**arrays, min(arrays): arrays[min(arrays)] * np.nan})
    others(world, pile / "poems")
    others(world, pile / "llama", base_model_name_or_path="meta-llama/Llama-3-8B", r=4)
    (pile / "notes").mkdir()
    (pile / "a_file.txt").write_text("hi")
    added = run("add", tmp_path / "lib", pile, "--base", world.base, "--task", "{name}")
    assert (added.code, added.out) == (1, f"{tmp_path / 'lib'}: 3 added, 1 refused\n")
    passed_over, *told = [line for line in added.err.splitlines() if "W-TWIN" not in line]
    assert passed_over == "passed over, for no adapter is in it: notes"
    assert [line.partition(" ")[0] for line in told] == ["llama:", "my-model-v1-2:", str(pile / "nan"), "poems:"]
    assert told[2].startswith(f"{pile / 'nan'} refused: error[E-NONFINITE] expert 'nan': ")
    library = Library.open(tmp_path / "lib")
    assert {name: expert.provenance.tasks for name, expert in library.items()} == {
        name: (name,) for name in ("llama", "my-model-v1-2", "poems")
    }
    shutil.rmtree(pile / "nan")
    again = run("add", tmp_path / "lib", pile, "--base", world.base, "--json")
    assert (again.code, json.loads(again.out)["kept"]) == (0, ["llama", "my-model-v1-2", "poems"])
    grouped = run("cluster", tmp_path / "lib", "--method", "mbc:k=1,space=products", "--into", tmp_path / "groups.json")
    assert grouped.code == 0


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")
def test_a_directory_of_several_adapters_as_peft_saves_them_is_added_whole(
    run: Run, world: World, tmp_path: Path
) -> None:
    """PEFT puts the adapter "default" at the root and all others into folders; a trainer puts checkpoints there."""
    model = get_peft_model(pico_base().hf, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name in ("poems", "law"):
        model.add_adapter(name, LoraConfig(r=4, target_modules=["v_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "tuned")
    assert (tmp_path / "tuned" / "poems" / "adapter_config.json").exists()
    for name in ("checkpoint-10", "checkpoint-200"):
        shutil.copytree(tmp_path / "tuned" / "law", tmp_path / "tuned" / name)
    (tmp_path / "tuned" / "runs").mkdir()
    added = run("add", tmp_path / "lib", tmp_path / "tuned", "--base", world.base)
    assert (added.code, added.out) == (0, f"{tmp_path / 'lib'}: 3 added, 0 refused\n")
    left = f"{tmp_path / 'tuned'}: left out, for they are checkpoints of it: checkpoint-10, checkpoint-200"
    assert left in added.err.splitlines()
    library = Library.open(tmp_path / "lib")
    assert {name: sorted({site[-6:] for site in expert.sites}) for name, expert in library.items()} == {
        "law": ["v_proj"], "poems": ["v_proj"], "tuned": ["q_proj"],
    }  # fmt: skip

    single = run("add", tmp_path / "lib", tmp_path / "tuned", "--as", "one", "--base", world.base)
    assert single.code == 2
    alone = run("add", tmp_path / "lib", tmp_path / "tuned" / "checkpoint-10", "--as", "early", "--base", world.base)
    assert alone.code == 0

    (tmp_path / "pile").mkdir()
    shutil.move(tmp_path / "tuned", tmp_path / "pile" / "tuned")
    piled = run("add", tmp_path / "more", tmp_path / "pile", "--base", world.base)
    assert (piled.code, sorted(Library.open(tmp_path / "more"))) == (0, ["tuned", "tuned-law", "tuned-poems"])
    with pytest.raises(
        LibraryError, match="'tuned' is 5 adapters, one in another, not a library. `lorary add LIBRARY "
    ):
        Library.open(tmp_path / "pile" / "tuned")


def test_what_stands_in_an_adapter_and_leads_elsewhere_is_refused(run: Run, world: World, tmp_path: Path) -> None:
    others(world, tmp_path / "elsewhere")
    tuned = others(world, tmp_path / "tuned")
    (tuned / "link").symlink_to(tmp_path / "elsewhere")
    (tuned / "empty").mkdir()
    (tuned / "broken").mkdir()
    (tuned / "broken" / "adapter_config.json").write_text("{")
    added = run("add", tmp_path / "lib", tuned, "--base", world.base)
    assert (added.code, added.out) == (1, f"{tmp_path / 'lib'}: 1 added, 2 refused\n")
    assert "error[E-PATH] 'link' is not a plain directory." in added.err.replace("expert 'link': ", "")
    assert "broken refused: error[E-CONFIG]" in added.err


def test_many_are_noted_once(run: Run, world: World, copied: Path, notes: list[list[str]]) -> None:
    sources = [world.library / "experts" / name for name in ("copy", "swap")]
    assert run("add", copied.parent / "new", *sources).code == 0
    assert [named for named in notes if named] == [["copy", "swap"]]


def test_what_was_respelt_is_known_again(run: Run, world: World, tmp_path: Path) -> None:
    others(world, tmp_path / "pile" / "odd", lambda arrays: {"_orig_mod." + key: a for key, a in arrays.items()})
    line = ("add", tmp_path / "lib", tmp_path / "pile", "--base", world.base, "--json")
    first = run(*line)
    assert (
        first.code,
        "warning[W-KEYS] 16 of 16 tensors have names by which PEFT would not find them" in first.err,
    ) == (0, True)
    assert json.loads(run(*line).out)["kept"] == ["odd"]


def test_two_of_one_name_are_not_put_over_one_another(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    source = world.library / "experts" / "swap"
    twice = run("add", copied, source, others(world, tmp_path / "swap"), "--replace")
    assert (twice.code, twice.out) == (1, f"{copied}: 1 added, 1 refused\n")
    assert "refused: error[E-EXISTS] two of the adapters would be called 'swap'." in twice.err


def test_none_that_passes_leaves_no_library(run: Run, world: World, tmp_path: Path) -> None:
    others(world, tmp_path / "pile" / "bad", peft_type="IA3")
    refused = run("add", tmp_path / "lib", tmp_path / "pile")
    assert (refused.code, refused.out) == (1, f"{tmp_path / 'lib'}: 0 added, 1 refused\n")
    assert not (tmp_path / "lib").exists()


def test_what_is_no_place_for_a_library_stops_at_once(run: Run, world: World) -> None:
    refused = run("add", world.tasks, world.library / "experts")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"error[E-EXISTS] '{world.tasks}' exists and isn't empty. Choose another path.\n"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("{library}/experts --as x", 2, "it names a single adapter; several keep the names of their directories."),
        ("{library}/experts/swap {library}/experts/copy --as x", 2, "it names a single adapter"),
        ("{tasks}", 1, "holds no adapter: no adapter_config.json, and no folders with one."),
        ("{library}/library.json", 1, "is a file, expected an adapter's directory."),
        ("{library}/experts/swap --as my.model", 1, "starting with a letter or digit. 'my-model' would do."),
    ],
)
def test_add_says_what_it_takes(run: Run, world: World, copied: Path, line: str, code: int, message: str) -> None:
    refused = run("add", copied, *line.format(**vars(world)).split())
    assert refused.code == code
    assert message in refused.err


def test_a_link_into_the_hub_s_cache_says_how_it_is_reached(
    run: Run, world: World, copied: Path, tmp_path: Path
) -> None:
    others(world, tmp_path / "blobs")
    snapshot = tmp_path / "models--bob--my-poems" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (snapshot / name).symlink_to(tmp_path / "blobs" / name)
    refused = run("add", copied, snapshot, "--as", "poems")
    assert "It is in the Hub's cache: give hf://bob/my-poems@abc instead" in refused.err


# ---- mending ------------------------------------------------------------------------------------


def test_a_bad_expert_is_replaced_or_removed(run: Run, world: World, copied: Path) -> None:
    broken = copied / "experts" / "swap" / "adapter_model.safetensors"
    broken.write_bytes(b"")
    asked = run("ask", copied, "up", "--router", "uniform", "--max-new-tokens", 1)
    assert f"`lorary remove {copied} swap` takes it out" in asked.err
    assert run("add", copied, world.library / "experts" / "swap", "--replace").code == 0
    assert run("show", copied).code == 0
    broken.write_bytes(b"")
    removed = run("remove", copied, "swap")
    assert (removed.code, removed.out) == (0, f"{copied}: 1 removed, 2 left\n")
    assert run("show", copied).code == 0
    assert not list((copied / ".staging").iterdir())


def test_remove_takes_all_or_none(run: Run, copied: Path) -> None:
    refused = run("remove", copied, "copy", "swop")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == "error[E-NAME] unknown expert 'swop'. Did you mean 'swap'? Known: copy, swap, upper.\n"
    told = json.loads(run("remove", copied, "copy", "swap", "copy", "--json").out)
    assert (told["removed"], told["experts"]) == (["copy", "swap"], ["upper"])


def test_remove_takes_a_link_and_not_what_it_leads_to(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    elsewhere = others(world, tmp_path / "elsewhere")
    (copied / "experts" / "link").symlink_to(elsewhere)
    assert run("remove", copied, "link").code == 0
    assert list(Library.open(copied)) == ["copy", "swap", "upper"]
    assert (elsewhere / "adapter_config.json").exists()


def test_an_expert_s_tasks_are_set_by_adding_it_again(run: Run, world: World, copied: Path) -> None:
    path = copied / "experts" / "swap" / "expert.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tasks": []}))
    line = ("cluster", copied, "--method", "mbc:k=1", "--into", copied.parent / "groups.json")
    refused = run(*line)
    hint = f"lorary add {copied} {path.parent} --replace --task NAME"
    assert f"`{hint}`" in refused.err
    assert run(*hint.replace("NAME", "swap").split()[1:]).code == 0
    assert run(*line).code == 0
    assert Library.open(copied)["swap"].provenance.extra["job"], "all else that is known of it stays"


# ---- --probe ------------------------------------------------------------------------------------


def test_who_would_take_every_text_is_told_when_that_is_asked(
    run: Run, world: World, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = others(world, tmp_path / "evil", lambda arrays: {name: 3 * tensor for name, tensor in arrays.items()})
    assert "W-HIJACK" not in run("add", copied, evil).err, "its base isn't loaded for that"
    monkeypatch.setattr(
        "lorary.model.routed.hijack.takes_most", lambda shares: [name for name in shares if name == "evil"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # the command says them
        probed = run("add", copied, evil, "--replace", "--probe", "--json")
    assert probed.code == 0 and "warning[W-HIJACK] library 'copied': expert 'evil' takes" in probed.err
    (added,) = json.loads(probed.out)["added"]
    assert [finding["code"] for finding in added["findings"]][-1] == "W-HIJACK"


def test_without_its_base_nothing_can_be_probed_and_what_was_added_stays(
    run: Run, world: World, tmp_path: Path
) -> None:
    nameless = others(world, tmp_path / "nameless", base_model_name_or_path="no/where")
    probed = run("add", tmp_path / "new", nameless, "--probe")
    assert (probed.code, probed.err.splitlines()[-1]) == (
        1,
        "error[E-BASE] library 'new' was made on base 'no/where', which isn't on this machine. "
        "Give it with --base, to fetch it.",
    )
    assert list(Library.open(tmp_path / "new")) == ["nameless"]


KILLED_IN_THE_MIDDLE = """
import os, signal, sys, tempfile
from pathlib import Path
from lorary.cli.main import main
from lorary.library import sync

def half(uri, into, wanted):
    Path(into).mkdir(parents=True)
    (Path(into) / "adapter_model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

tempfile.tempdir, sync.fetch = sys.argv[1], half
main(["add", sys.argv[2], "hf://me/lib"])
"""


@pytest.mark.slow
def test_add_takes_what_a_killed_add_had_fetched(
    run: Run, world: World, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, fetched, copied], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(fetched.rglob("adapter_model.safetensors"))) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(fetched))
    assert run("add", copied, world.library / "experts" / "swap", "--as", "turned").code == 0
    assert not list(fetched.iterdir())
