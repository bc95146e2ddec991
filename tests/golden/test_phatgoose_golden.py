"""PHATGOOSE against numbers computed by hand and against plain autograd, and a whole library with gates."""

import dataclasses
import math
import shutil
import warnings
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorary
from lorary.adapters.contract import Site
from lorary.building.build import build
from lorary.building.builders import phatgoose
from lorary.building.builders.phatgoose import Phatgoose
from lorary.building.training import loop as training
from lorary.errors import LibraryError, RoutingError, TaskError
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.model.text.scoring import row_losses
from lorary.model.text.tokens import pad
from lorary.routing.contract import Context
from lorary.routing.routers.phatgoose import PhatgooseRouter
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base, random_library

NAMES = ["copy", "swap", "upper"]
QUICK = {"steps": 30, "batch_size": 4, "n_evaluations": 3, "lr": 0.03}


def test_scores_by_hand():
    """h = (1, 2, 3, 4) has mean 5/2 and variance 5/4: standardised (-3, -1, 1, 3) / sqrt(5).

    A gate along it scores 20/5 / sqrt(4) = 2, one against it -2. (1, -1, -1, 1) is standardised as it is: 0.
    Of 2, -2 and 0 two are kept: e^2 / (e^2 + 1) = 0.880797 and the rest.
    """
    along = torch.tensor([10.0, 20, 30, 40])
    gates = {"a": along, "b": 7 - along, "c": torch.tensor([1.0, -1, -1, 1])}

    class Left:
        def learned(self, kind, expert):
            return {"q": gates[expert]}

    site = Site("q", 4, 2)
    router = PhatgooseRouter()
    state = router.fit({name: {"q": None} for name in gates}, {"q": site}, Left())
    routing = router.gate(site, state, list(gates))(torch.tensor([[[1.0, 2, 3, 4]]]), Context())
    assert routing.experts.tolist() == [[[0, 2]]]
    share = math.exp(2) / (math.exp(2) + 1)
    torch.testing.assert_close(routing.weights, torch.tensor([[[[share, 1 - share]]]]), atol=1e-4, rtol=0)


def gate_gradients(base, library, tasks, names, n_rows=3):
    """Losses and gradients of the gates of some experts, from values that aren't zero; by expert, by site."""
    jobs = [job for job in Phatgoose(**QUICK).plan(tasks, library) if job.name in names]
    members = {job.name: library[job.name] for job in jobs}
    with phatgoose._gated([job.pupil(base) for job in jobs], members, base, 1e-3) as (trainable, gates):
        for gate in gates.values():
            gate.vectors.data.fill_(0.1)
        rows = [row for i in range(len(jobs)) for row in trainable.batch(i, range(n_rows))]
        n_tokens = [sum(len(row.text.completion) for row in rows if row.owner == i) for i in range(len(jobs))]
        losses = training._gradients(training._Run(trainable, Phatgoose(**QUICK), 1, None), rows, n_tokens, 5)
        sizes = [gate.vectors.shape[1] for gate in gates.values()]
        parts = trainable.stacks["gates"].grad.split(sizes, dim=1)
        return losses, {job.name: dict(zip(gates, (p[i] for p in parts), strict=True)) for i, job in enumerate(jobs)}


def gated(v, delta, _, args, out):
    """W x + sigmoid(v . x) s B A x, as a hook on the base's layer."""
    return out + torch.sigmoid(args[0] @ v).unsqueeze(-1) * (args[0] @ delta.T)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_layer_and_its_gradient_are_the_formula_s(architecture, toy, tmp_path):
    """With autograd through plain operations; several ranks in one pack."""
    base = pico_base(architecture)
    targets = ("attention",) if architecture == "llama" else ("c_attn",)
    library = random_library(tmp_path / "lib", base, NAMES, ranks=[1, 2, 3], targets=targets)
    losses, found = gate_gradients(base, library, toy, NAMES)
    for i, name in enumerate(NAMES):
        deltas = {site: weights.delta() for site, weights in read_experts(library)[name].items()}
        v = {site: torch.full((delta.shape[1],), 0.1, requires_grad=True) for site, delta in deltas.items()}

        hooks = [base.hf.get_submodule(s).register_forward_hook(partial(gated, v[s], deltas[s])) for s in deltas]
        (pupil,) = [job.pupil(base) for job in Phatgoose(**QUICK).plan(toy, library) if job.name == name]
        batch = pad(pupil.train[:3])
        loss = row_losses(base, batch).sum() / batch.n_labels.sum()
        loss.backward()
        for handle in hooks:
            handle.remove()
        torch.testing.assert_close(losses[i], loss)
        for site in deltas:
            assert v[site].grad.any()
            torch.testing.assert_close(found[name][site], v[site].grad, atol=1e-5, rtol=1e-4)


def test_gates_learn_what_they_would_alone(base, toy, tmp_path):
    library = random_library(tmp_path / "lib", base, NAMES, ranks=[1, 2, 3])
    _, together = gate_gradients(base, library, toy, NAMES)
    for name in NAMES:
        _, alone = gate_gradients(base, library, toy, [name])
        for site, gradient in alone[name].items():
            torch.testing.assert_close(
                together[name][site], gradient, atol=1e-5 * float(gradient.abs().max()), rtol=1e-5
            )


# ---- whole libraries ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private(_pico, toy, tmp_path_factory):
    into = tmp_path_factory.mktemp("private") / "lib"
    return build("private:rank=2,steps=30,batch_size=4,lr=1e-2", toy.only(NAMES), _pico, into=into)


@pytest.fixture(scope="module")
def with_gates(private, _pico, toy, tmp_path_factory):
    into = tmp_path_factory.mktemp("gated") / "lib"
    return build(Phatgoose(**QUICK), toy.only(NAMES), _pico, source=private, into=into)


@pytest.mark.slow
def test_the_experts_are_copies_with_a_gate_each(private, with_gates):
    for name in NAMES:
        assert with_gates[name].provenance.weights_sha256 == private[name].provenance.weights_sha256
        assert with_gates[name].provenance.parents == (f"{name}@{private[name].hash[:12]}",)
        gates = load_file(
            with_gates.path / "learned" / f"phatgoose-{with_gates[name].provenance.extra['job']}.safetensors"
        )
        assert {site: tuple(gate.shape) for site, gate in gates.items()} == dict.fromkeys(with_gates[name].sites, (32,))
        assert all(gate.any() for gate in gates.values())


def test_tokens_go_to_their_own_experts_more_than_to_others(base, with_gates, toy):
    with route(base, with_gates, "phatgoose:top_k=none", mix="outputs") as model:
        for i, name in enumerate(NAMES):
            shares = torch.stack([model.explain(e, max_new_tokens=1).shares.mean(0) for e in toy[name].test[:4]]).mean(
                0
            )
            assert shares.argmax() == i


@pytest.mark.slow
def test_who_comes_later_changes_no_gate(base, private, toy, tmp_path):
    library, into = Library.create(tmp_path / "grown", base=base.fingerprint), tmp_path / "lib"
    for name in NAMES[:2]:
        library.add(private[name].directory, name)
    build(Phatgoose(**QUICK), toy, base, source=library, into=into)
    before = files_of(into / "learned")
    library.add(private["upper"].directory, "upper")
    grown = build(Phatgoose(**QUICK), toy, base, source=library, into=into)
    after = files_of(into / "learned")
    assert len(after) == 3
    assert before.items() < after.items()
    with route(base, grown, "phatgoose", mix="outputs") as model:
        assert model.log_likelihood(toy["copy"].test[:1])


def answer(model):
    with torch.inference_mode():
        return model(torch.arange(2, 26).view(3, 8)).logits


@pytest.mark.slow
def test_a_model_that_stands_takes_in_who_came_later(base, private, with_gates, toy, tmp_path):
    library, into = Library.create(tmp_path / "two", base=base.fingerprint), tmp_path / "lib"
    for name in NAMES[:2]:
        library.add(private[name].directory, name)
    two = build(Phatgoose(**QUICK), toy, base, source=library, into=into)
    with route(pico_base(), with_gates, "phatgoose") as model:
        expected = answer(model)
    with route(base, two, "phatgoose") as model:
        model.add(with_gates["upper"])
        torch.testing.assert_close(answer(model), expected, atol=1e-4, rtol=1e-4)  # with the gates of that library
        model.remove("upper")
        library.add(private["upper"].directory, "upper")
        grown = build(Phatgoose(**QUICK), toy, pico_base(), source=library, into=into)
        with route(pico_base(), grown, "phatgoose") as anew:
            expected = answer(anew)
        model.add("upper")  # its own library has it by now
        assert torch.equal(answer(model), expected)
        saved = model.save(tmp_path / "saved")
    with lorary.load(saved, base=base) as model:
        model.set_router("uniform")
        model.set_router("phatgoose")
        assert torch.equal(answer(model), expected), "with what it was saved with"
        model.replace(grown["copy"])
        assert torch.equal(answer(model), expected)


@pytest.mark.parametrize("memory", [None, "1MB"])
def test_an_expert_that_another_process_replaced_is_not_taken_for_the_one_opened(memory, base, with_gates, tmp_path):
    library = Library.open(shutil.copytree(with_gates.path, tmp_path / "lib"))
    other = random_library(tmp_path / "other", base, ["copy"], ranks=2)
    job = dataclasses.replace(library["copy"].provenance, weights_sha256="")
    Library.open(library.path).replace(other["copy"].directory, "copy", provenance=job)
    with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'copy': adapter_model.safetensors has changed"):
        route(base, library, "phatgoose", memory=memory)


def test_a_library_without_gates_says_how_to_get_them(base, private):
    with pytest.raises(RoutingError) as caught:
        route(base, private, "phatgoose")
    assert str(caught.value) == (
        "error[E-LEARNED] expert 'copy' has no gates in this library. "
        "Build a library of this one with --method phatgoose --from it, and route that."
    )


def test_gates_that_do_not_fit_are_refused(base, with_gates, toy):
    path = with_gates.path / "learned" / f"phatgoose-{with_gates['swap'].provenance.extra['job']}.safetensors"
    written, whole = path.read_bytes(), {name: gate.clone() for name, gate in load_file(path).items()}
    site = next(iter(whole))
    of_the_gate = f"the gate of expert 'swap' at '{site}' is "
    try:
        for bad, what in (
            (torch.zeros(3), of_the_gate),
            (torch.ones(32).long(), of_the_gate),
            (torch.full((32,), math.nan), ".* holds what is no number"),
        ):
            save_file({**whole, site: bad}, path)
            with warnings.catch_warnings(), pytest.raises(RoutingError, match=rf"^error\[E-LEARNED\] {what}"):
                warnings.filterwarnings("ignore", ".*W-ORIGIN")  # the seal is gone, too
                route(base, with_gates, "phatgoose")
    finally:
        path.write_bytes(written)


def test_an_expert_needs_its_own_tasks(private, toy):
    with pytest.raises(TaskError, match=r"^error\[E-DATA\] expert 'upper': no training examples of its tasks"):
        Phatgoose().plan(toy.only(["copy", "swap"]), private)
