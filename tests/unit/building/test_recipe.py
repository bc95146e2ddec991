"""A recipe file and a command line name the same jobs; what is misspelt is refused with what is near."""

import json
import os
from pathlib import Path

import pytest

from lorary.building.builders.private import Private
from lorary.building.clustering.clusters import Clusters
from lorary.building.recipe import Recipe, make_recipe, read_recipe
from lorary.errors import LoraryError
from lorary.folder import BUILDERS
from recipe_files import write_recipe, write_tasks

RECIPE = """
tasks = "{tasks}"
only = ["copy", "swap"]
base = "smollm2-135m"
into = "libs/private"

[builder]
name = "private"
rank = 2
steps = 6
lr = 1e-2
targets = ["q_proj", "v_proj"]
"""


@pytest.fixture
def tasks(toy, tmp_path):
    return write_tasks(tmp_path / "tasks", toy.only(["copy", "swap", "upper"]))


def test_a_table_and_a_spec_make_the_same_jobs(tasks, base, tmp_path):
    recipe = read_recipe(write_recipe(tmp_path, RECIPE.format(tasks=tasks)))
    spec = "private:rank=2,steps=6,lr=1e-2,targets=(q_proj,v_proj)"
    in_one_line = make_recipe({"builder": spec, "into": "libs/private", "tasks": str(tasks), "only": "copy"}, "line")
    assert recipe.builder == in_one_line.builder == BUILDERS.parse(spec)
    assert recipe.builder == Private(rank=2, steps=6, lr=1e-2, targets=("q_proj", "v_proj"))
    assert (str(recipe.into), recipe.base, recipe.device, recipe.source) == (
        "libs/private", "smollm2-135m", "auto", None,
    )  # fmt: skip
    assert list(recipe.read_tasks()) == ["copy", "swap"]
    assert in_one_line.only == ("copy",)
    keys = [r.builder.plan(r.read_tasks())[0].key(base.fingerprint) for r in (recipe, in_one_line)]
    assert keys[0] == keys[1]


def test_one_target_is_a_list_of_it_wherever_it_is_given(tasks, base, tmp_path):
    table = RECIPE.format(tasks=tasks).replace('["q_proj", "v_proj"]', '"all-linear"')
    recipe = read_recipe(write_recipe(tmp_path, table))
    options = {"rank": 2, "steps": 6, "lr": 1e-2}
    made = [recipe.builder, Private(targets="all-linear", **options), Private(targets=("all-linear",), **options)]
    keys = {builder.plan(recipe.read_tasks())[0].key(base.fingerprint) for builder in made}
    assert len(keys) == 1


def test_a_recipe_says_how_attention_is_computed(tasks, tmp_path):
    path = write_recipe(tmp_path, 'attention = "eager"\n' + RECIPE.format(tasks=tasks))
    assert read_recipe(path).loading["attention"] == "eager"
    assert read_recipe(path, {"attention": "sdpa"}).loading["attention"] == "sdpa"
    assert read_recipe(write_recipe(tmp_path, RECIPE.format(tasks=tasks))).loading["attention"] is None


def test_what_is_given_wins(tasks, tmp_path):
    path = write_recipe(tmp_path, RECIPE.format(tasks=tasks))
    recipe = read_recipe(path, {"into": tmp_path / "other", "builder": "shared:steps=2"})
    assert (recipe.into, recipe.builder.steps, type(recipe.builder).__name__) == (tmp_path / "other", 2, "Shared")


def test_clusters_are_read_from_their_file(tmp_path):
    Clusters({"c0": ("copy",)}).write(tmp_path / "groups.json")
    builder = {"name": "per_cluster", "clusters": str(tmp_path / "groups.json")}
    assert make_recipe({"builder": builder, "into": "x"}, "line").builder.clusters == Clusters({"c0": ("copy",)})


def test_without_tasks_there_are_none(tmp_path):
    recipe = make_recipe({"builder": "private", "into": "x"}, "line")
    assert len(recipe.read_tasks()) == 0
    assert recipe.open_source() is None


def test_paths_hold_anywhere_once_they_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi").mkdir()
    made = make_recipe({"builder": "private", "into": "x", "tasks": "t", "source": "s", "base": "phi"}, "l").absolute()
    assert (made.into, made.tasks, made.source) == (tmp_path / "x", (str(tmp_path / "t"),), tmp_path / "s")
    assert made.base == str(tmp_path / "phi")
    assert Recipe(builder=made.builder, into=made.into, base="some/hub").absolute().base == "some/hub"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "taks = 't'",
            "unknown key 'taks'. Did you mean 'tasks'? Known: answers, attention, base, builder, ",
        ),
        ("into = 'x'", 'builder is missing. Write builder = "...".'),
        ("builder = 'private'", 'into is missing. Write into = "...".'),
        ("builder = 3\ninto = 'x'", 'builder=3: expected builder = "private:rank=4", or a table [builder] with a '),
        ("into = 'x'\n[builder]\nrank = 4", "builder={'rank': 4}: expected builder = "),
        ("builder = 'private'\ninto = 3", "into=3, expected a path."),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path, text, message):
    path = write_recipe(tmp_path, text)
    with pytest.raises(LoraryError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"error[E-OPTION] recipe {path}: {message}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name = 'privat'", "error[E-NAME] unknown builder 'privat'. Did you mean 'private'? "),
        ("name = 'private'\nrnk = 4", "error[E-OPTION] private: unknown option 'rnk'. Did you mean 'rank'? "),
        ("name = 'private'\nrank = 'x'", "error[E-OPTION] private: rank='x', expected a whole number."),
    ],
)
def test_what_is_wrong_in_a_builder_is_named_as_on_the_command_line(tmp_path, table, message):
    with pytest.raises(LoraryError) as caught:
        read_recipe(write_recipe(tmp_path, f"into = 'x'\n[builder]\n{table}"))
    assert str(caught.value).startswith(message)


def test_what_is_no_toml_is_named(tmp_path):
    path = write_recipe(tmp_path, "tasks = ")
    with pytest.raises(LoraryError, match=r"is not TOML: Invalid value \(at "):
        read_recipe(path)
    path.write_bytes(b"\xff")
    with pytest.raises(LoraryError, match="is not TOML: 'utf-8' codec"):
        read_recipe(path)
    for name, hint in ("x", "Check the path."), ("recpe.toml", f"Did you mean '{path}'?"):
        with pytest.raises(LoraryError) as caught:
            read_recipe(tmp_path / name)
        assert str(caught.value) == (
            f"error[E-OPTION] recipe {tmp_path / name} can't be read: No such file or directory. {hint}"
        )


def test_what_has_no_end_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero"), tmp_path):
        with pytest.raises(LoraryError) as caught:
            read_recipe(path)
        assert str(caught.value) == (
            f"error[E-OPTION] recipe {path} can't be read: not a regular file. Check the path."
        )
    path = write_recipe(tmp_path, "# " + "a" * (1 << 20))
    with pytest.raises(LoraryError, match=r"has more than 1,048,576 bytes\. Is this a recipe\?$"):
        read_recipe(path)
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(LoraryError, match=r"E-OPTION.*is (nested too deeply|not TOML)"):
        read_recipe(path)


def test_a_recipe_says_how_tasks_are_read(tmp_path):
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    (tmp_path / "talk.train.jsonl").write_text(json.dumps({"messages": turns, "summary": "They talk."}))
    plain = {"builder": "private", "into": "lib", "tasks": str(tmp_path)}
    with pytest.raises(LoraryError, match="'summary' \\(1 row\\)"):
        make_recipe(plain, "line").read_tasks()
    text = f'tasks = "{tmp_path}"\ninto = "lib"\nbuilder = "private"\nignore = "summary"\nanswers = "all"\n'
    recipe = read_recipe(write_recipe(tmp_path, text))
    assert (recipe.ignore, recipe.answers) == (("summary",), "all")
    assert len(recipe.read_tasks()["talk"].train) == 2
    assert len(make_recipe({**plain, "ignore": ["summary"]}, "line").read_tasks()["talk"].train) == 1
    with pytest.raises(LoraryError, match="answers='first', expected last or all"):
        make_recipe({**plain, "answers": "first"}, "line")


def test_a_recipe_takes_a_share_of_the_training_examples(tasks, toy, tmp_path):
    plain = {"builder": "private", "into": "lib", "tasks": str(tasks)}
    found = make_recipe({**plain, "train_share": 0.5}, "line").read_tasks()
    whole = make_recipe(plain, "line").read_tasks()
    assert {name: len(task.train) for name, task in found.items()} == {
        name: round(len(task.train) / 2) for name, task in whole.items()
    }
    with pytest.raises(LoraryError, match=r"share=0\.0, expected above 0, at most 1"):
        make_recipe({**plain, "train_share": 0.0}, "line").read_tasks()


def test_a_name_of_the_hub_is_no_path():
    recipe = make_recipe({"builder": "private", "into": "lib", "tasks": ["hf://datasets/u/n", "x.jsonl"]}, "line")
    assert recipe.absolute().tasks == ("hf://datasets/u/n", str(Path("x.jsonl").absolute()))


def test_a_recipe_can_be_hashed(tmp_path):
    path = write_recipe(tmp_path, "template_options = {thinking = false}\nbuilder = 'private'\ninto = 'x'")
    assert hash(read_recipe(path)) == hash(read_recipe(path))
