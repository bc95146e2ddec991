"""The whole road on the command line, and what each command leaves."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from cli_line import Run, World

from lorary.building.builders.private import Private
from lorary.building.contract import JobStep
from lorary.cli.printing.samples import show_samples
from lorary.cli.work import Work
from lorary.library.library import Library
from lorary.tasks.task import Task
from lorary.tasks.toy import toy_tasks
from lorary.testing.pico import pico_tokenizer
from lorary.work.survey import JobState


@pytest.mark.slow
def test_whole_road(run: Run, world: World, tmp_path: Path) -> None:
    groups, library, into = tmp_path / "groups.json", tmp_path / "libs" / "mbc", tmp_path / "runs"
    assert run("cluster", world.library, "--method", "mbc:k=2", "--into", groups).code == 0
    clusters = json.loads(groups.read_text())["clusters"]
    assert sorted(task for members in clusters.values() for task in members) == ["copy", "swap", "upper"]

    spec = f"per_cluster:clusters={groups},steps=2"
    built = run("build", world.tasks, "--method", spec, "--base", world.base, "--into", library)
    assert (built.code, built.out) == (0, f"{library}: 2 experts\n")

    line = ("eval", library, world.tasks, "--router", "arrow:top_k=1", "--metric", "exact_match:max_new_tokens=4")
    scored = run(*line, "--into", into / "mbc-arrow.jsonl", "--base", world.base, "--limit", 2)
    assert scored.code == 0
    assert "mbc-arrow: exact_match:max_new_tokens=4 0.000 [0.000, 0.000] (0-100)" in scored.out.splitlines()
    line = ("eval", "base", world.tasks, "--metric", "exact_match:max_new_tokens=4", "--limit", 2)
    bare = run(*line, "--into", into / "base.jsonl", "--base", world.base, "--json")
    assert json.loads(bare.out)["tasks"] == {"copy": 0.0, "swap": 0.0, "upper": 0.0}

    page = tmp_path / "report.html"
    reported = run("report", into / "base.jsonl", into / "mbc-arrow.jsonl", "--into", page)
    assert (reported.code, reported.out) == (0, f"{page}\n")
    assert "mbc-arrow" in page.read_text()


def test_build_again_trains_nothing(run: Run, world: World) -> None:
    line = ("build", world.tasks, "--method", "private:steps=3", "--base", world.base, "--into", world.library)
    again = run(*line, "--json")
    assert json.loads(again.out) == {"library": str(world.library), "experts": ["copy", "swap", "upper"]}
    assert again.err.splitlines()[-1] == "3 experts to build, 3 are there already."


def test_build_tells_its_steps_on_stderr(run: Run, world: World, tmp_path: Path) -> None:
    line = ("build", world.tasks, "--method", "private:steps=2", "--base", world.base, "--into", tmp_path / "one")
    built = run(*line, "--only", "swap")
    lines = built.err.splitlines()  # transformers talks if it was imported before the command line was
    loading, plan, first, last = (line for line in lines if line and not line.startswith("Loading weights"))
    assert (loading, plan) == (f"loading base {world.base} ...", "1 experts to build, 0 are there already.")
    assert re.fullmatch(r"training steps: 1/2 \(swap 1/2 loss \d+\.\d{3}\)", first)
    assert re.fullmatch(r"training steps: 2/2 \(swap 2/2 loss \d+\.\d{3}\)", last)


def test_the_progress_of_a_build_tells_of_all_that_run(tmp_path: Path) -> None:
    told: list[tuple[int, int, str, int]] = []
    work = Work(lambda *heard: told.append(heard), tmp_path)
    work.on_plan([JobState(name, "waiting", n_steps=2) for name in ("ant", "bee", "cat")], ["cat"])
    for step in (JobStep("ant", 1, 2, 3.0), JobStep("bee", 1, 2), JobStep("ant", 2, 2, 2.5, 2.0), JobStep("bee", 2, 2)):
        work.on_step(step)
    work.on_step(JobStep("cat", 2, 2))
    assert told == [
        (1, 4, "ant 1/2 loss 3.000", 0),
        (2, 4, "ant 1/2 loss 3.000, bee 1/2", 0),
        (3, 4, "ant 2/2 loss 2.000, bee 1/2", 0),
        (4, 4, "bee 2/2", 0),
    ]


def test_steps_of_an_earlier_run_are_told_apart_since_they_took_no_time(tmp_path: Path) -> None:
    told: list[tuple[int, int, str, int]] = []
    work = Work(lambda *heard: told.append(heard), tmp_path)
    work.on_plan([JobState(name, "waiting", n_steps=9) for name in ("ant", "bee")], [])
    for step in (JobStep("ant", 6, 9), JobStep("bee", 1, 9), JobStep("ant", 7, 9)):
        work.on_step(step)
    assert [(done, total, before) for done, total, _, before in told] == [(6, 18, 5), (7, 18, 5), (8, 18, 5)]


def test_dry_run_writes_nothing(run: Run, world: World, tmp_path: Path) -> None:
    into = tmp_path / "new"
    line = ("build", world.tasks, "--method", "private:steps=3", "--into", into, "--dry-run")
    with_base = run(*line, "--base", world.base)
    tokens = {name: tokens_of(task) for name, task in toy_tasks(16, 4, 4).items() if name in ("copy", "swap", "upper")}
    numbers = "3      16     4      1      "
    size = str(4 * 4 * 2 * 4 * (32 + 32))  # float32 x rank x layers x (q, k, v, o) x (in + out)
    assert with_base.out.splitlines() == [
        "expert  steps  train  valid  tasks  tokens  bytes  pack",
        f"copy    {numbers}{tokens['copy']}     {size}   1",
        f"swap    {numbers}{tokens['swap']}     {size}   1",
        f"upper   {numbers}{tokens['upper']}     {size}   2",
        f"3 jobs, 9 steps, about {sum(tokens.values()):,} tokens to train on, 1 MB of experts.",
    ]
    plan = json.loads(run(*line, "--base", world.base, "--json").out)
    assert plan["jobs"][0] == {
        "expert": "copy", "tasks": ["copy"], "steps": 3, "examples": {"train": 16, "valid": 4},
        "tokens": tokens["copy"], "bytes": int(size), "pack": 1,
    }  # fmt: skip
    assert (plan["tokens"], plan["tokens_are_counted"], plan["seconds"]) == (sum(tokens.values()), True, None)
    without = run(*line, "--base", "some/where")
    assert without.out.splitlines()[1].split()[-3:] == [str(round((tokens["copy"] - 24) / 4)), "-", "-"]
    assert without.out.splitlines()[-1] == (
        f"3 jobs, 9 steps, about {sum(round((n - 24) / 4) for n in tokens.values())} tokens to train on. "
        "Base 'some/where' isn't on this machine: tokens are estimated from characters; bytes and packs are unknown."
    )
    assert not into.exists()


def test_dry_run_shows_what_is_read_of_each_shape_and_what_is_not(run: Run, world: World, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi\x1b"}, {"role": "assistant", "content": "Yo"}]
    rows = [
        {"prompt": "2+\n", "completion": "2", "id": "a"},
        {"question": "3+3?\n", "answer": "6", "id": "b", "hint": "Count."},
        {"prompt": "4+\n", "completion": "4"},
    ]
    data = tmp_path / "sums.train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ("build", data, "--method", "private:steps=3", "--into", tmp_path / "new", "--dry-run")
    refused = run(*line, "--base", world.base)
    assert refused.code == 1
    assert "sums.train.jsonl:2: text in fields that are not read: 'hint' (1 row)." in refused.err
    shown = run(*line, "--base", world.base, "--ignore", "hint")
    end = pico_tokenizer().eos_token
    assert shown.err.splitlines()[-9:] == [
        "not read: 'id' (2 rows), 'hint' (1 row)",
        "prompt, completion: 2 rows; one of task 'sums', > is trained on:",
        "  | 2+",
        "  | ",
        f"  > 2{end}",
        "question, answer: 1 row; one of task 'sums', > is trained on:",
        "  | 3+3?",
        "  | ",
        f"  > 6{end}",
    ]
    data.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": turns[:1] + turns}) + "\n")
    plan = run(*line, "--base", "some/where", "--answers", "all", "--json")
    assert json.loads(plan.out)["samples"] == [{
        "shape": "messages", "rows": 2, "task": "sums", "prompt": "user: Hi\x1b", "completion": "Yo",
        "as_tokens": False,
    }]  # fmt: skip
    assert "Hi\\x1b" in run(*line, "--base", "some/where").err


def test_a_long_sample_is_cut_in_its_middle(capfd: pytest.CaptureFixture[str]) -> None:
    text = "a" * 600 + "\n" + "b" * 800
    show_samples([{"shape": "x", "rows": 1, "task": "t", "prompt": text, "completion": "y", "as_tokens": False}])
    assert capfd.readouterr().err.splitlines() == [
        "x: 1 row; one of task 't', > is trained on, before any chat template:",
        f"  | {'a' * 600}", "  | ... 201 characters ...", f"  | {'b' * 600}", "  > y",
    ]  # fmt: skip


def tokens_of(task: Task) -> int:
    """Count those of 3 steps of 8 examples: a byte is a token, and a token ends them."""
    lengths = [len(e.prompt) + len(e.completion) + 1 for e in task.train]
    return round(3 * 8 * sum(lengths) / len(lengths))


def test_a_recipe_builds_what_the_command_line_builds(run: Run, world: World, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    text = f"tasks = '{world.tasks}'\nbase = '{world.base}'\ninto = '{tmp_path / 'wrong'}'\n"
    recipe.write_text(text + "[builder]\nname = 'private'\nsteps = 3\n")
    built = run("build", "--recipe", recipe, "--into", world.library, "--json")
    assert json.loads(built.out)["experts"] == ["copy", "swap", "upper"]
    assert built.err.splitlines()[-1] == "3 experts to build, 3 are there already."
    assert not (tmp_path / "wrong").exists()


def test_a_build_may_start_from_a_library(run: Run, world: World, tmp_path: Path, monkeypatch) -> None:
    heard = []
    plan = Private.plan
    monkeypatch.setattr(Private, "plan", lambda self, tasks, source=None: heard.append(source) or plan(self, tasks))
    line = ("build", world.tasks, "--method", "private:steps=1", "--only", "copy", "--into", tmp_path / "lib")
    built = run(*line, "--from", world.library)
    assert built.code == 0
    said = [
        f"base {world.base}, that of library {world.library}; use --base for another.",
        f"loading base {world.base} ...",
    ]
    assert built.err.splitlines()[:2] == said, "its base is the one the source names"
    assert {tuple(source) for source in heard} == {("copy", "swap", "upper")}


@pytest.mark.slow
def test_cluster_writes_a_page_and_lets_experts_join(run: Run, world: World, copied: Path, tmp_path: Path) -> None:
    line = ("cluster", copied, "--method", "mbc:k=auto,space=products", "--into", tmp_path / "groups.json")
    assert run(*line, "--report", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").read_text().count("<figure>") == 3
    assert run("add", copied, copied / "experts" / "swap", "--as", "swap2", "--task", "swap2").code == 0
    joined = run("cluster", copied, "--join", tmp_path / "groups.json", "--into", tmp_path / "joined.json", "--json")
    assert any({"swap", "swap2"} <= set(tasks) for tasks in json.loads(joined.out).values())
    both = run(*line, "--join", tmp_path / "groups.json")
    assert (both.code, "give either --method or --join." in both.err) == (2, True)


def test_cluster_by_examples(run: Run, world: World, tmp_path: Path) -> None:
    line = ("cluster", world.library, "--method", "embeddings:k=2,n_examples=2", "--into", tmp_path / "groups.json")
    assert "Pass base=... and tasks=..., or --tasks DIR." in run(*line).err
    assert run(*line, "--tasks", world.tasks).code == 0
    assert len(json.loads((tmp_path / "groups.json").read_text())["clusters"]) == 2


def test_cluster_json(run: Run, world: World, tmp_path: Path) -> None:
    line = ("cluster", world.library, "--method", "mbc:k=1", "--into", tmp_path / "groups.json", "--json")
    assert json.loads(run(*line).out) == {"c0": ["copy", "swap", "upper"]}


@pytest.mark.slow
def test_ask(run: Run, world: World) -> None:
    line = ("ask", world.library, "swap: red fox", "--base", world.base, "--max-new-tokens", 3)
    fitted = list((world.library / "derived").glob("compass-*"))
    plain = run(*line)
    told = json.loads(run(*line, "--json", "--explain", "--router", "uniform", "--mix", "outputs").out)
    assert plain.code == 0
    assert plain.out
    assert (f"fitting compass to {world.library.name} ..." in plain.err) == (not fitted)
    assert "fitting" not in run(*line).err, "the second time it is fetched"
    assert told["question"] == "swap: red fox"
    assert told["trace"]["experts"] == ["copy", "swap", "upper"]
    assert len(told["trace"]["shares"]) == len(told["trace"]["tokens"]) >= len("swap: red fox")
    assert told["trace"]["total"] == pytest.approx(dict.fromkeys(["copy", "swap", "upper"], 1 / 3))


def test_ask_as_a_turn_of_a_chat(run: Run, world: World, tmp_path: Path) -> None:
    chatty = Path(shutil.copytree(world.base, tmp_path / "chatty"))
    (chatty / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role[:2] }}: {{ m.content }}{% endfor %}")
    line = ("--max-new-tokens", 3, "--router", "uniform")
    assert "error[E-CHAT]" in run("ask", world.library, "red fox", "--base", world.base, "--chat", *line).err
    found = run("ask", world.library, "red fox", "--base", chatty, "--chat", *line)
    assert (found.code, found.out) == (0, run("ask", world.library, "us: red fox", "--base", chatty, *line).out)


def test_ask_tells_of_an_empty_answer(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorary.asking.stream.Stream", lambda *_: iter([""]))
    found = run("ask", world.library, "red fox", "--base", world.base, "--router", "uniform")
    assert found.out == "\n"
    assert found.err.endswith("the answer is empty: the model stopped at once. A chat model may need --chat.\n")


def test_ask_without_base_takes_the_one_the_library_names(
    run: Run, world: World, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("ask", copied, "swap: red fox", "--max-new-tokens", 1)
    assert run(*line).err.startswith(f"loading base {world.base} ...\n")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))  # nothing is known of where bases are
    for name, config in [(path.parent.name, path) for path in sorted(copied.glob("experts/*/adapter_config.json"))]:
        named = {"copy": "some/where", "swap": "no where", "upper": "some/where"}[name]
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": named}))
    assert run(*line).err == (
        "error[E-BASE] library 'copied' was made on base 'no where' and 'some/where'. "
        "Give the one to use with --base.\n"
    )
    shutil.rmtree(copied / "experts" / "swap")
    assert run(*line).err == (
        "error[E-BASE] library 'copied' was made on base 'some/where', which isn't on this machine. "
        "Give it with --base, to fetch it.\n"
    )


@pytest.mark.slow
def test_a_base_of_a_relative_name_is_found_from_anywhere(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    shutil.copytree(world.base, tmp_path / "mine")
    (tmp_path / "else" / "mine").mkdir(parents=True)  # no base, and not what is meant
    monkeypatch.chdir(tmp_path)
    built = run("build", world.tasks, "--method", "private:steps=1", "--base", "./mine", "--into", "lib")
    assert built.code == 0
    recorded = {e.config["base_model_name_or_path"] for e in Library.open("lib").values()}
    assert recorded == {"./mine"}, "as it was given: what is shared holds no path of this machine"
    monkeypatch.chdir(tmp_path / "else")
    asked = run("ask", "../lib", "red fox", "--max-new-tokens", 1, "--router", "uniform")
    assert (asked.code, asked.err.splitlines()[0]) == (0, f"loading base {tmp_path / 'mine'} ...")
    assert run("save", "../lib", "--into", "saved", "--router", "uniform").code == 0
    assert run("ask", "saved", "red fox", "--max-new-tokens", 1).code == 0
    merged = run("build", "--method", "svd:rank=2", "--from", "../lib", "--into", "merged")
    assert (merged.code, merged.err.splitlines()[0]) == (
        0, "base ./mine, that of library ../lib; use --base for another.",
    )  # fmt: skip
    assert {e.config["base_model_name_or_path"] for e in Library.open("merged").values()} == {"./mine"}
    for place in (tmp_path, tmp_path / "else"):
        shutil.rmtree(place / "mine")
    lost = run("ask", "../lib", "red fox", "--router", "uniform")
    assert (lost.code, lost.err) == (
        1,
        "error[E-BASE] library 'lib' was made on base './mine', which was a directory where it was made. "
        "Give its directory with --base.\n",
    )


def test_build_into_a_library_takes_its_base(
    run: Run, world: World, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Library.open(copied).remove("swap")
    line = ("build", world.tasks, "--method", "private:steps=3", "--into", copied)
    built = run(*line)
    assert (built.code, built.out) == (0, f"{copied}: 3 experts\n")
    assert built.err.splitlines()[:2] == [
        f"base {world.base}, that of library {copied}; use --base for another.", f"loading base {world.base} ...",
    ]  # fmt: skip
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    for path in copied.glob("experts/*/adapter_config.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "some/where"}))
    assert run(*line).err == (
        "error[E-BASE] library 'copied' was made on base 'some/where', which isn't on this machine. "
        "Give it with --base, to fetch it.\n"
    )


def test_ask_explains_in_words(run: Run, world: World) -> None:
    line = ("ask", world.library, "up", "--base", world.base, "--max-new-tokens", 1, "--explain")
    _answer, shares, tokens = run(*line).out.rstrip("\n").split("\n\n")
    assert [line.split()[0] for line in sorted(shares.splitlines())] == ["copy", "swap", "upper"]
    assert [line.split()[0] for line in tokens.splitlines()][:2] == ["'u'", "'p'"]


def test_ask_with_a_router_that_needs_data(run: Run, world: World) -> None:
    line = ("ask", world.library, "up", "--base", world.base, "--max-new-tokens", 1, "--router", "centroid")
    assert run(*line).err.splitlines()[-1] == (
        "error[E-PROBE] router 'centroid' needs the tasks that the library was built from. "
        "Pass tasks=..., or on the command line --tasks TASKS."
    )
    assert run(*line, "--tasks", world.tasks).code == 0


# ---- show ---------------------------------------------------------------------------------------


def test_show_a_library(run: Run, world: World) -> None:
    base, head, *rows = run("show", world.library).out.splitlines()
    assert base == f"base: {world.called} (LlamaForCausalLM, 2 layers, 32 wide)"
    assert head.split() == ["expert", "tasks", "rank", "sites", "steps", "valid_loss", "findings"]
    assert [row.split()[:5] for row in rows] == [[name, name, "4", "8", "3"] for name in ("copy", "swap", "upper")]


def test_show_an_expert(run: Run, world: World) -> None:
    shown = run("show", world.library / "swap")
    assert shown.code == 0
    assert "\ntasks                    swap\n" in shown.out
    assert shown.out.endswith("\nno findings\n")
    told = json.loads(run("show", world.library / "experts" / "swap", "--json").out)
    assert told["expert"] == "swap"
    assert told["findings"] == []
    assert told["provenance"]["tasks"] == ["swap"]


def test_show_goes_on_past_a_bad_expert(run: Run, world: World, copied: Path) -> None:
    (copied / "experts" / "swap" / "adapter_model.safetensors").write_bytes(b"")
    shown = run("show", copied)
    assert shown.code == 3
    assert [line.split()[0] for line in shown.out.splitlines()] == ["base:", "expert", "copy", "upper", "swap"]
    alone = run("show", copied / "swap")
    assert alone.code == 1
    assert "error[E-FILE]" in alone.out
    assert list(json.loads(run("show", copied, "--json").out)["bad"]) == ["swap"]


def test_show_tells_shares_at_every_site_in_few_words(run: Run, world: World, tmp_path: Path) -> None:
    line = ("export", world.library, "--texts", world.tasks, "--router", "uniform", "--limit", 1)
    assert run(*line, "--into", tmp_path / "mean").code == 0
    shown = run("show", tmp_path / "mean").out
    assert "shares=(8 of them, with --json)" in shown
    assert max(map(len, shown.splitlines())) < 700


def test_show_escapes_what_steers_terminals(run: Run, copied: Path) -> None:
    path = copied / "experts" / "swap" / "expert.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tasks": ["\x1b[31mred"]}))
    assert "\\x1b[31mred" in run("show", copied).out
    path = copied / "experts" / "swap" / "adapter_config.json"
    named = {"base_model_name_or_path": "\x1b]0;me\x07\u202ebase", "peft_version": "\x9b31m\u2066"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    for shown in (run("show", copied), run("show", path.parent)):
        assert shown.out.replace("\n", "").isprintable() and "\\x202ebase" in shown.out
    for line in (("show", copied), ("show", path.parent), ("remove", copied, "swap")):
        told = run(*line, "--json").out
        assert told.replace("\n", "").isprintable() and json.loads(told)


def test_a_poly_library_is_scored_by_its_own_router(run: Run, world: World, tmp_path: Path) -> None:
    library = tmp_path / "poly"
    spec = "poly:n_skills=2,steps=2"
    assert run("build", world.tasks, "--method", spec, "--base", world.base, "--into", library).code == 0
    line = ("eval", library, world.tasks, "--router", "poly", "--metric", "perplexity", "--base", world.base)
    assert run(*line, "--into", tmp_path / "poly.jsonl").code == 0
    line = ("eval", world.library, world.tasks, "--router", "poly", "--metric", "perplexity", "--base", world.base)
    refused = run(*line, "--into", tmp_path / "private.jsonl")
    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        "error[E-LEARNED] this library has no Poly weights for its experts. Build it with --method poly."
    )


def test_finetune_makes_a_base_that_is_scored_as_any(run: Run, world: World, tmp_path: Path) -> None:
    into = tmp_path / "full"
    line = ("finetune", world.tasks, "--options", "steps=2,lr=1e-3", "--base", world.base, "--into", into)
    made = run(*line)
    assert (made.code, made.out) == (0, f"{into}: a base; score it with `lorary eval base TASKS --base {into}`\n")
    assert any(line.startswith("training steps: 2/2 (loss ") for line in made.err.splitlines())
    assert json.loads(run(*line, "--json").out) == {"base": str(into)}
    line = ("eval", "base", world.tasks, "--metric", "perplexity", "--base", into, "--into", tmp_path / "full.jsonl")
    assert run(*line).code == 0
    refused = run("finetune", world.tasks, "--options", "rank=4", "--base", world.base, "--into", into)
    assert refused.code == 1
    assert "error[E-OPTION] finetune: unknown option 'rank'." in refused.err


# ---- who may read it ----------------------------------------------------------------------------


def test_the_umask_says_who_may_read_what_was_made(run: Run, world: World, tmp_path: Path) -> None:
    lib, model, adapter, new = (tmp_path / name for name in ("lib", "model", "adapter", "new"))
    before = os.umask(0o022)
    try:
        base = ("--base", world.base)
        assert run("build", world.tasks, "--method", "poly:steps=1,n_skills=2", *base, "--into", lib).code == 0
        assert run("save", lib, "--router", "arrow", "--into", model).code == 0
        assert run("export", lib, "--into", adapter).code == 0
        assert run("finetune", world.tasks, "--options", "steps=1", *base, "--into", new).code == 0
    finally:
        os.umask(before)
    places = {place: list(place.rglob("*")) for place in (lib, model, adapter, new)}
    assert all(any(path.suffix == ".safetensors" for path in paths) for paths in places.values())
    assert list((lib / "learned").iterdir()) and list((lib / "derived").iterdir())
    closed = [path for paths in places.values() for path in paths if path.stat().st_mode & 0o044 != 0o044]
    assert not closed
