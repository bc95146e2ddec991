"""Fisher information of tasks, the experts nearest to one, and training from them."""

import json

import pytest
import torch

from lorary.adapters.lora import LoRA
from lorary.building.build import build
from lorary.building.builders.neighbours import Neighbours
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.merging.fisher import fisher
from lorary.building.merging.neighbourhood import nearest, split_tasks
from lorary.building.training.batches import mix_seed
from lorary.errors import LoraryError, ModelError, OptionError
from lorary.formats.peft import read_weights
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.pico import random_library

OWN = ["copy", "swap", "upper"]


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, OWN, ranks=[2, 3, 4])


def test_fisher_is_the_mean_square_of_single_gradients(base, toy):
    examples, kind = toy["copy"].train[:5], LoRA(rank=2, alpha=6)
    found = fisher(base, examples, kind=kind, targets=("attention",), seed=3)
    sites = base.target_sites(("attention",))
    factors = {}
    for site in sites:
        weights = kind.fresh(site, torch.Generator().manual_seed(mix_seed(3, site.name)))
        factors[site.name] = (weights.a, weights.b.clone().requires_grad_(True), weights.scale)

    def add(a, b, scale):
        return lambda _, args, output: output + scale * (args[0] @ a.T @ b.T)

    hooks = [base.hf.get_submodule(name).register_forward_hook(add(*f)) for name, f in factors.items()]
    total = torch.zeros_like(found)
    try:
        for example in examples:
            prompt = base.tokenizer(example.prompt.rstrip())["input_ids"]
            text = example.prompt + example.completion
            ids = torch.tensor([[*base.tokenizer(text)["input_ids"], base.tokenizer.eos_token_id]])
            logits = base.hf(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum")
            gradients = torch.autograd.grad(loss, [b for _, b, _ in factors.values()])
            total += torch.cat([g.T.flatten() ** 2 for g in gradients])
    finally:
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(found, total / 5, rtol=1e-3, atol=1e-6)


def test_a_task_is_its_own_nearest_neighbour(base, toy, library, tmp_path):
    tasks = toy.only(OWN)
    made = build(
        Neighbours(top_k=2, adapt_to=("swap",), n_examples=6), tasks, base, source=library, into=tmp_path / "near"
    )
    weights = made["swap"].provenance.builder["weights"]
    assert next(iter(weights)) == "swap" and len(weights) == 2
    assert sum(weights.values()) == pytest.approx(1)
    parts = {name: read_weights(library[name]) for name in weights}
    for site, found in read_weights(made["swap"]).items():
        expected = sum(share * parts[name][site].delta() for name, share in weights.items())
        torch.testing.assert_close(found.delta(), expected, atol=1e-6, rtol=1e-5)


def test_new_tasks_are_those_that_no_expert_was_trained_on(base, toy, library, tmp_path):
    tasks = toy.only([*OWN, "last", "first"])
    made = build("neighbours:n_examples=4", tasks, base, source=library, into=tmp_path / "near")
    assert sorted(made) == ["first", "last"]
    facts = made["last"].provenance
    assert (facts.tasks, facts.steps, len(facts.parents)) == (("last",), 0, 3)
    fewer = toy.only([*OWN, "last"])
    again = build("neighbours:n_examples=4", fewer, base, source=library, into=tmp_path / "again")
    assert read_weights(again["last"]).keys() == read_weights(made["last"]).keys()
    assert again["last"].hash == made["last"].hash


def test_without_a_new_task_there_is_nothing_to_build(base, toy, library, tmp_path):
    with pytest.raises(
        LoraryError, match=r"E-TASK\] there is nothing to build: every given task has an expert"
    ) as caught:
        build(Neighbours(), toy.only(OWN), base, source=library, into=tmp_path / "near")
    assert caught.value.hint.startswith("Give new tasks beside copy, swap, upper, or name some of them: adapt_to=")
    assert not (tmp_path / "near").exists()


def test_the_library_s_own_tasks_are_needed(toy, library):
    with pytest.raises(LoraryError) as caught:
        Neighbours().plan(toy.only(["copy", "last"]), library)
    assert str(caught.value) == (
        "error[E-DATA] expert 'swap': no training examples of its tasks ['swap'] were given. "
        "Give the library's own tasks."
    )


@pytest.fixture
def known(base, toy, tmp_path):
    """Experts trained a little on their own tasks, so that a mean of them is a start worth having."""
    return build("private:rank=2,steps=6,batch_size=4,lr=3e-3", toy.only(OWN), base, into=tmp_path / "known")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1e-300}, "temperature=1e-300, expected 1e-06 or more. At such a one the nearest gets all."),
        ({"temperature": float("inf")}, "temperature=inf, expected a finite number."),
        ({"targets": ()}, 'targets=(), expected names of layers, as in ("attention",).'),
        ({"top_k": 2.5}, "top_k=2.5, expected a whole number."),
        ({"seed": -1}, "seed=-1, expected a whole number from 0 to 4294967295."),
    ],
)
def test_options_without_meaning_are_refused(options, expected):
    with pytest.raises(OptionError) as caught:
        Neighbours(**options)
    assert str(caught.value) == f"error[E-OPTION] neighbours: {expected}"


def test_a_task_that_the_base_cannot_be_given_fails_alone(base, toy, library, tmp_path):
    bad = Task("bad", (Example("q", "y" * 600, "bad"),))
    tasks = Tasks([*toy.only([*OWN, "last"]).values(), bad])
    with pytest.raises(ModelError, match=r"^error\[E-LENGTH\] "):
        build(Neighbours(top_k=2, n_examples=4), tasks, base, source=library, into=tmp_path / "near")
    assert sorted(Library.open(tmp_path / "near")) == ["last"]


def test_tuning_starts_from_the_interpolation(base, toy, library, tmp_path):
    """With rates of next to nothing what comes out is what went in; a fresh own expert adds zero. Ranks differ."""
    tasks = toy.only([*OWN, "last"])
    builder = PiTuning(top_k=2, n_examples=4, steps=1, batch_size=2, lr=1e-12, routing_lr=1e-12, own_share=0.0)
    made = build(builder, tasks, base, source=library, into=tmp_path / "tuned")["last"]
    cosines = nearest(builder, base, split_tasks(builder, tasks, library)[0], {"last": tasks["last"]}, {})["last"]
    shares = torch.softmax(torch.tensor([1.0, *cosines.values()]) / builder.temperature, 0).tolist()
    facts = made.provenance.builder
    assert facts["own_weight"] == pytest.approx(shares[0], abs=1e-6)
    assert facts["weights"] == pytest.approx(dict(zip(cosines, shares[1:], strict=True)), abs=1e-6)
    parts = {name: read_weights(library[name]) for name in cosines}
    for site, found in read_weights(made).items():
        expected = sum(facts["weights"][name] * parts[name][site].delta() for name in cosines)
        torch.testing.assert_close(found.delta(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_experts_and_their_shares_are_tuned_together(base, toy, known, tmp_path):
    tasks = toy.only([*OWN, "last", "first"])
    builder = PiTuning(top_k=2, n_examples=4, steps=12, batch_size=4, lr=1e-2, dropout=0.0, temperature=1.0)
    made = build(builder, tasks, base, source=known, into=tmp_path / "tuned")
    assert sorted(made) == ["first", "last"]
    for task in ("first", "last"):
        facts = made[task].provenance
        weights, own = facts.builder["weights"], facts.builder["own_weight"]
        assert sum(weights.values()) + own == pytest.approx(1)
        assert facts.parents == tuple(f"{name}@{known[name].hash[:12]}" for name in sorted(weights))
        assert made[task].rank == 4 + 2 + 2, "its own, of the default rank, and two neighbours"
        rows = [json.loads(line) for line in (made[task].directory / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [*range(7), *range(6, 13)], "alone, then together"
        assert facts.metrics["valid_loss"] < rows[7]["valid_loss"] < rows[0]["valid_loss"]
        assert facts.metrics["best_step"] > 6
        # The plain expert that is left says what the tuned mixture said.
        assert facts.metrics["valid_loss"] == pytest.approx(
            loss_alone(base, made[task], tasks[task], tmp_path), rel=1e-4
        )
        cosines = nearest(builder, base, split_tasks(builder, tasks, known)[0], {task: tasks[task]}, {})[task]
        start = torch.softmax(torch.tensor([1.0, *cosines.values()]), 0).tolist()
        assert abs(own - start[0]) > 0.01, "the shares have learned"


def loss_alone(base, expert, task, tmp_path):
    """What one expert says on a task's validation part, in nats per token."""
    lone = Library.create(tmp_path / f"lone-{task.name}", base=base.fingerprint)
    lone.add(expert.directory, "it")
    with route(base, lone, "uniform") as model:
        scores = model.log_likelihood(task.valid)
    return -sum(s.nats for s in scores) / sum(s.n_tokens for s in scores)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_some_steps_must_be_left_to_tune_together(share):
    with pytest.raises(LoraryError) as caught:
        PiTuning(own_share=share)
    assert str(caught.value) == f"error[E-OPTION] pi_tuning: own_share={share}, expected 0 or more, below 1."


def test_what_else_is_adapted_changes_nothing(base, toy, known, tmp_path):
    options = {"top_k": 1, "n_examples": 4, "steps": 2, "batch_size": 2, "dropout": 0.0}
    both = PiTuning(**options).plan(toy.only([*OWN, "last", "first"]), known)
    (alone,) = PiTuning(**options, adapt_to=("last",)).plan(toy.only([*OWN, "last"]), known)
    assert alone.key({}) == next(job for job in both if job.name == "last").key({})
