"""What --dry-run foresees is what the build then does."""

from dataclasses import replace

import pytest

from lorary.building import estimate as module
from lorary.building.build import build
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.estimate import estimate, recall_rate, remember_rate
from lorary.errors import AdapterError
from lorary.folder import BUILDERS
from lorary.library.adapter.expert import Expert
from lorary.model.base.base_model import BaseModel
from lorary.model.base.outline import name_of, outline
from lorary.model.text.tokens import encode
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.pico import pico_base, random_library
from recipe_files import write_base

BUILDER = Private(rank=3, steps=6, batch_size=2, dropout=0.0, targets=("q_proj", "down_proj"))


@pytest.fixture
def tasks(toy):
    return toy.only(["copy", "swap"])


def test_bytes_are_those_of_the_experts_made(base, tasks, tmp_path):
    found = estimate(BUILDER, BUILDER.plan(tasks), base, base.name)
    library = build(BUILDER, tasks, base, into=tmp_path / "lib")
    sizes = {name: numbers_in(expert) for name, expert in library.items()}
    assert {cost.job: cost.product_bytes for cost in found.jobs} == sizes
    assert found.product_bytes == sum(sizes.values())


@pytest.mark.parametrize(
    "spec",
    [
        "uniform", "uniform:rank=2", "ties", "dare:rank=3", "svd:rank=1", "poly:n_skills=3,steps=1",
        "lib_poly:steps=1", "lib_polyz:steps=1", "lib_mu:steps=1", "from_expert:expert=swap,steps=1",
    ],
)  # fmt: skip
def test_bytes_of_what_starts_from_a_library(spec, base, tasks, tmp_path):
    source = random_library(tmp_path / "source", base, ["copy", "swap"], ranks=2)
    builder = BUILDERS.parse(spec)
    found = estimate(builder, builder.plan(tasks, source), base, base.name)
    made = build(builder, tasks, base, source=source, into=tmp_path / "lib")
    size = sum(numbers_in(expert) for expert in made.values())
    if spec == "ties":  # what is trimmed may leave a rank that is not quite full
        assert 0.9 * found.product_bytes < size <= found.product_bytes
    else:
        assert found.product_bytes == size


LOUD = "lorahub:mix=outputs,penalty=-99"  # the two tries are nothing, of rank 0, and the mean, which must win


@pytest.mark.parametrize("spec", ["neighbours", "neighbours:rank=2", "pi_tuning", "lorahub", LOUD])
def test_bytes_of_what_is_found_while_it_runs_are_the_most_it_can_be(spec, base, toy, tmp_path):
    source = random_library(tmp_path / "source", base, ["copy", "swap"], ranks=2 if spec == "lorahub" else [1, 3])
    tasks, builder = toy.only(["copy", "swap", "last"]), BUILDERS.parse(spec)
    small = {"steps": 2, "n_examples": 2} | ({"adapt_to": ("last",)} if hasattr(builder, "adapt_to") else {})
    builder = replace(builder, **{key: value for key, value in small.items() if hasattr(builder, key)})
    found = estimate(builder, builder.plan(tasks, source), base, base.name)
    made = build(builder, tasks, base, source=source, into=tmp_path / "lib")
    assert found.product_bytes == sum(numbers_in(expert) for expert in made.values())


@pytest.mark.parametrize("spec", ["uniform", "lib_poly:steps=1", "lib_mu:steps=1"])
def test_what_starts_from_experts_of_another_base_is_refused(spec, base, tasks, tmp_path):
    """By their places: a base in outline has no fingerprint."""
    source = random_library(tmp_path / "source", base, ["copy", "swap"])
    other = outline(str(write_base(tmp_path / "other", pico_base("gpt2"))))
    builder = BUILDERS.parse(spec)
    with pytest.raises(AdapterError) as caught:
        estimate(builder, builder.plan(tasks, source), other, "other")
    assert caught.value.code == "E-TARGET"


def test_a_merge_passes_no_token(base, tasks, tmp_path):
    source = random_library(tmp_path / "source", base, ["copy", "swap"], ranks=2)
    builder = BUILDERS.parse("uniform")
    found = estimate(builder, builder.plan(tasks, source), base, base.name)
    assert [(cost.steps, cost.tokens) for cost in found.jobs] == [(0, 0)]


def numbers_in(expert: Expert) -> int:
    return 4 * expert.n_parameters


def test_tokens_are_those_of_the_batches(base, tasks):
    job = BUILDER.plan(tasks)[0]
    lengths = [len(row) for row in encode(base.tokenizer, job.train, max_tokens=base.max_tokens)]
    assert job.n_tokens(base) == round(6 * 2 * sum(lengths) / len(lengths))


def test_tokens_of_a_joint_job_are_those_of_all_its_tasks(base, tmp_path):
    """Not of the first ones alone, as long as their rows are."""
    tasks = Tasks([Task("a", train=_rows("a", 300, 1)), Task("b", train=_rows("b", 300, 9))])
    (job,) = Shared(steps=6, batch_size=2).plan(tasks)
    lengths = [len(row) for row in encode(base.tokenizer, job.train, max_tokens=base.max_tokens)]
    assert job.n_tokens(base) == round(6 * 2 * sum(lengths) / len(lengths))


def _rows(task, n, n_words):
    return tuple(Example(f"{i} " + "word " * n_words, "x", task) for i in range(100, 100 + n))


def test_examples_are_tokenised_once_however_often_plans_ask(base, tasks, monkeypatch):
    asked = []
    encode_all = BaseModel.encode
    monkeypatch.setattr(
        BaseModel, "encode", lambda self, rows, **how: (asked.extend(rows), encode_all(self, rows, **how))[1]
    )
    fresh = replace(base)
    first = estimate(BUILDER, BUILDER.plan(tasks), fresh, "x")
    assert len(asked) == len(set(asked)) == sum(len(task.train) for task in tasks.values())
    assert estimate(replace(BUILDER, steps=12), BUILDER.plan(tasks), fresh, "x").tokens == first.tokens
    n = len(asked)
    fresh.max_tokens = 12
    assert estimate(BUILDER, BUILDER.plan(tasks), fresh, "x").tokens < first.tokens
    assert len(asked) > n


def test_without_the_base_tokens_are_guessed_and_the_rest_left_out(tasks):
    found = estimate(BUILDER, BUILDER.plan(tasks), None, "some/where")
    job = BUILDER.plan(tasks)[0]
    characters = sum(len(e.prompt) + len(e.completion) for e in job.train) / len(job.train)
    assert found.jobs[0].tokens == round(6 * 2 * characters / 4)
    assert not found.tokens_are_counted
    assert (found.product_bytes, found.jobs[0].pack, found.tokens_per_s, found.seconds) == (None, None, None, None)


def test_packs_are_those_that_run(base, tasks):
    found = estimate(BUILDER, BUILDER.plan(tasks), base, base.name)
    assert [cost.pack for cost in found.jobs] == [1, 1]


def test_an_outline_knows_what_the_base_knows(base, tasks, tmp_path):
    seen = outline(str(write_base(tmp_path / "pico", base)))
    assert seen is not None
    assert seen.target_sites(["attention"]) == base.target_sites(["attention"])
    assert seen.max_tokens == base.max_tokens
    assert all(p.device.type == "meta" for p in seen.hf.parameters())
    one, two = (estimate(BUILDER, BUILDER.plan(tasks), b, "x") for b in (base, seen))
    assert one == two


def test_a_base_that_is_not_here_has_no_outline(tmp_path, monkeypatch):
    assert outline(str(tmp_path / "nothing")) is None
    assert outline("some/where-nobody-is") is None
    assert name_of("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_time_comes_from_what_was_measured_here(base, tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    assert recall_rate("a/base") is None
    remember_rate("a/base", 1000, 4.0)
    assert recall_rate("a/base") is None, "four seconds are noise"
    remember_rate("a/base", 1000, 10.0)
    remember_rate("another", 1000, 20.0)
    assert recall_rate("a/base") == 100.0
    found = estimate(BUILDER, BUILDER.plan(tasks), base, "a/base")
    assert found.seconds == found.tokens / 100.0
    monkeypatch.setattr(module.platform, "node", lambda: "another-machine")
    assert recall_rate("a/base") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"tokens_per_s": null}'])
def test_a_damaged_note_of_a_rate_counts_as_none(content, tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path))
    remember_rate("a/base", 1000, 10.0)
    (path,) = (tmp_path / "rates").iterdir()
    path.write_bytes(content)
    assert recall_rate("a/base") is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "file"))
    remember_rate("a/base", 1000, 10.0)
    assert recall_rate("a/base") is None
