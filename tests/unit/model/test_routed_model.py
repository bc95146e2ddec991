"""A library on a base: who may speak, what is refused, what is kept, what is told."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorary.errors import AdapterError, EvaluationError, LibraryError, ModelError, OptionError, RoutingError, TaskError
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.formats.peft import read_experts
from lorary.library.library import Library
from lorary.model.probes.probe import DataProbe
from lorary.model.routed.route import route
from lorary.routing.routers.arrow import Arrow
from lorary.tasks.example import Example
from lorary.tasks.task import Tasks
from lorary.testing.pico import pico_base, random_library

IDS = torch.arange(2, 26).view(3, 8)


def logits(model, input_ids=IDS, **options):
    with torch.inference_mode():
        return model(input_ids, **options).logits


def alone(base, library, name, path):
    lone = Library.create(path / name, base=base.fingerprint)
    lone.add(library[name].directory, name)
    with route(base, lone, "uniform") as model:
        return logits(model)


# ---- the oracle ---------------------------------------------------------------------------------


def test_the_oracle_lets_each_row_s_own_expert_speak(base, toy_library, tmp_path):
    expected = {name: alone(base, toy_library, name, tmp_path) for name in toy_library}
    tasks = ["last", "copy", "first"]
    with route(base, toy_library, "oracle") as model:
        found = logits(model, tasks=tasks)
    for row, task in enumerate(tasks):
        torch.testing.assert_close(found[row], expected[task][row], atol=1e-5, rtol=1e-5)


def test_the_oracle_follows_a_beam_search(base, toy_library):
    tasks = ["last", "copy", "first"]
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False}
    with route(base, toy_library, "oracle") as model:
        together = model.generate(IDS, tasks=tasks, **options)
        for row, task in enumerate(tasks):
            found = model.generate(IDS[row : row + 1], tasks=[task], **options)[0]
            assert together[row].tolist()[: len(found)] == found.tolist()


def test_an_unknown_task_has_no_oracle(base, toy_library):
    with route(base, toy_library, "oracle") as model:
        with pytest.raises(TaskError) as caught:
            model.log_likelihood([Example("x", "y", "poems")])
        assert str(caught.value) == (
            "error[E-TASK] no expert was trained on task 'poems', so 'oracle' can't choose one. "
            "Use a router that doesn't need the task."
        )
        with pytest.raises(TaskError) as caught:
            model(IDS)
        assert str(caught.value) == (
            "error[E-TASK] the oracle needs the task of every row. Pass tasks=[...], or examples."
        )


# ---- refusals -----------------------------------------------------------------------------------


def test_an_empty_library_is_refused(base, tmp_path):
    with pytest.raises(LibraryError) as caught:
        route(base, Library.create(tmp_path / "lib"), "arrow")
    assert str(caught.value) == (
        f"error[E-EMPTY] library '{tmp_path / 'lib'}' holds no experts. Add or build some first."
    )


def test_a_library_of_another_base_is_refused(toy_library):
    with pytest.raises(ModelError) as caught:
        route(pico_base(seed=1), toy_library, "arrow")
    assert str(caught.value) == (
        f"error[E-BASE] library '{toy_library.path}' was made on another base: weights, embedding_signs differ. "
        "Load the base it was made on; `lorary show` names it."
    )


def test_unequal_ranks_are_refused_by_name_for_mixed_factors(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ants", "poems"], ranks=[4, 8])
    with pytest.raises(AdapterError) as caught:
        route(base, library, "arrow", mix="factors")
    assert str(caught.value) == (
        "error[E-RANK] expert 'poems': rank 8 at 'model.layers.0.self_attn.k_proj', but mix=\"factors\" needs one rank "
        "for all ('ants': 4). Use mix=\"outputs\" (--mix outputs), or bring all to one rank: "
        "`lorary build --method svd:rank=4 --from LIBRARY --into NEW`."
    )
    with route(base, library, "arrow", mix="outputs") as model:
        assert logits(model).isfinite().all()


def test_unknown_mixes_and_routers_are_refused(base, toy_library):
    with pytest.raises(OptionError) as caught:
        route(base, toy_library, "arrow", mix="output")
    assert str(caught.value) == (
        "error[E-OPTION] unknown mix 'output'. Did you mean 'outputs'? Known: factors, outputs."
    )
    with pytest.raises(
        OptionError, match=r"^error\[E-NAME\] unknown router 'arow'\. Did you mean 'arrow'\? Known: ariadne, arrow,"
    ):
        route(base, toy_library, "arow")


ARGUMENTS = {
    "expert is None, expected an expert or its name. Take one out of a library: library[name].": (
        lambda model: model.add(None), lambda model: model.replace(None),
    ),
    "name is None, expected the name of an expert.": (lambda model: model.remove(None),),
    'router is None, expected a router. Give one, such as Arrow(top_k=2) or "arrow:top_k=2".': (
        lambda model: model.set_router(None),
    ),
    'router is the class Arrow, expected a router. Give one, such as Arrow(top_k=2) or "arrow:top_k=2".': (
        lambda model: model.set_router(Arrow),
    ),
    "tasks is 'toy', expected Tasks. Read them: read_tasks(path).": (
        lambda model: model.set_router("uniform", tasks="toy"),
    ),
    "unknown mix None. Known: factors, outputs.": (lambda model: model.set_mix(None),),
    "input_ids is NoneType, expected whole numbers (B, T). Write tokenizer(text, return_tensors=\"pt\").input_ids.": (
        lambda model: model(None), lambda model: model.generate(None),
    ),
    "input_ids is a torch.int64 tensor (8,), expected whole numbers (B, T). "
    'Write tokenizer(text, return_tensors="pt").input_ids.': (lambda model: model(IDS[0]),),
    "tasks is 'copy', expected a list of task names.": (lambda model: model(IDS[:1], tasks="copy"),),
    "max_new_tokens=0, expected 1 or more.": (
        lambda model: model.generate_text([Example("a", "")], max_new_tokens=0),
        lambda model: model.base.generate_text([Example("a", "")], max_new_tokens=0),
    ),
    "max_new_tokens=1.5, expected a whole number.": (lambda model: model.explain("a", max_new_tokens=1.5),),
    "max_new_tokens=-1, expected 0 or more.": (lambda model: model.explain("a", max_new_tokens=-1),),
    "prompt is None, expected a text or an example.": (lambda model: model.explain(None),),
    "prompts is 'hello', expected a list of texts or examples. Write [prompt] for a single one.": (
        lambda model: model.choices("hello"),
    ),
    "prompts[1] is 3, expected a list of texts or examples. Write [prompt] for a single one.": (
        lambda model: model.choices(["a", 3]),
    ),
    "examples is 'hello', expected a list of examples. Write [Example(prompt, completion)].": (
        lambda model: model.log_likelihood("hello"), lambda model: model.generate_text("hello", max_new_tokens=1),
    ),
    "examples[0] is 'hello', expected a list of examples. Write [Example(prompt, completion)].": (
        lambda model: model.log_likelihood(["hello"]), lambda model: model.base.log_likelihood(["hello"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", ARGUMENTS)
def test_arguments_of_other_types_are_refused(message, base, toy_library):
    with route(base, toy_library, "oracle") as model:
        for call in ARGUMENTS[message]:
            with pytest.raises(OptionError) as caught:
                call(model)
            assert str(caught.value) == f"error[E-OPTION] {message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"library": "libs/mine"}, "library is 'libs/mine', expected a library. Open it: Library.open(path)."),
        ({"base": None}, "base is None, expected a base model. Load one: load_base()."),
        ({"tasks": ["copy"]}, "tasks is ['copy'], expected Tasks. Read them: read_tasks(path)."),
        ({"router": 3}, 'router is 3, expected a router. Give one, such as Arrow(top_k=2) or "arrow:top_k=2".'),
    ],
)
def test_what_can_t_be_routed_is_said(arguments, message, base, toy_library):
    with pytest.raises(OptionError) as caught:
        route(**{"base": base, "library": toy_library, **arguments})
    assert str(caught.value) == f"error[E-OPTION] {message}"


@pytest.mark.parametrize("router", ["centroid", "task_predictor"])
def test_routers_that_need_data_say_so(router, base, toy_library, toy):
    with pytest.raises(RoutingError) as caught:
        route(base, toy_library, router)
    assert str(caught.value) == (
        f"error[E-PROBE] router '{router}' needs the tasks that the library was built from. "
        "Pass tasks=..., or on the command line --tasks TASKS."
    )
    with pytest.raises(RoutingError) as caught:
        route(base, toy_library, router, tasks=toy.only(["upper", "copy"]))
    assert str(caught.value) == (
        "error[E-PROBE] expert 'double': no training examples of its tasks ['double'] were given. "
        "Pass the tasks that the library was built from."
    )


# ---- routers that read data ---------------------------------------------------------------------


@pytest.mark.parametrize("after_answer", [False, True])
def test_centroids_are_mean_last_inputs_with_the_expert_at_work(after_answer, base, toy_library, toy, tmp_path):
    """Of the prompt, or as in the paper's code of prompt, answer and its end."""
    name, site = "double", "model.layers.1.mlp.down_proj"
    library = random_library(tmp_path / "lib", base, ["copy", "double"], targets=["attention", "down_proj"])
    lone = Library.create(tmp_path / "one", base=base.fingerprint)
    lone.add(library[name].directory, name)
    seen = []
    with route(base, lone, "uniform") as model, torch.inference_mode():
        hook = base.hf.get_submodule(site).register_forward_pre_hook(lambda m, args: seen.append(args[0][0, -1]))
        for example in toy[name].train[:5]:
            ids = base.tokenizer(example.prompt.rstrip())["input_ids"]
            if after_answer:
                ids = [*base.tokenizer(example.prompt + example.completion)["input_ids"], base.tokenizer.eos_token_id]
            model(torch.tensor([ids]))
        hook.remove()
    with route(base, library, f"centroid:n_examples=5,after_answer={after_answer}", tasks=toy) as model:
        gate = base.hf.get_submodule(site).gate
        torch.testing.assert_close(gate.vectors[1], torch.nn.functional.normalize(sum(seen), dim=0))
        assert logits(model).isfinite().all()


def test_a_probe_reads_as_many_examples_of_an_expert_or_of_each_of_its_tasks(base, toy_library, toy):
    experts, owned = read_experts(toy_library), {"copy": ["copy", "double"]}
    sites = {site.name: site for site in base.target_sites(["attention"])}
    probe = DataProbe(base, experts, sites, owned, toy)
    alone = [DataProbe(base, experts, sites, {"copy": [task]}, toy).mean_inputs("copy", n_examples=3) for task in
             owned["copy"]]  # fmt: skip
    each, together = (probe.mean_inputs("copy", n_examples=3, per_task=per_task) for per_task in (True, False))
    for site in sites:
        torch.testing.assert_close(each[site], (alone[0][site] + alone[1][site]) / 2, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(each[site], together[site], atol=1e-4)


def test_the_task_predictor_knows_its_training_prompts(base, toy_library, toy):
    with route(base, toy_library, "task_predictor", tasks=toy) as model:
        found = [model.explain(toy[name].train[0], max_new_tokens=2).total() for name in toy_library]
    assert [max(shares, key=shares.get) for shares in found] == list(toy_library)


def test_the_task_predictor_reads_prompts_and_not_their_padding(base, toy_library, toy):
    prompts = [toy["copy"].test[0].prompt, toy["reverse"].test[0].prompt + " and something longer"]
    with route(base, toy_library, "task_predictor", tasks=toy) as model, torch.inference_mode():
        batch = base.tokenizer(prompts, return_tensors="pt", padding=True)
        together = model(**batch).logits[:, -1]
        alone = [model(base.tokenizer(p, return_tensors="pt")["input_ids"]).logits[0, -1] for p in prompts]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_the_task_predictor_doesn_t_read_what_the_mask_hides(base, toy_library, toy):
    ids = torch.tensor([[70, 71, 72, 5, 9, 17, 33]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    with route(base, toy_library, "task_predictor", tasks=toy) as model:
        read, encoder = [], model._prompts.encoder
        model._prompts.encoder = lambda texts: read.append(texts) or encoder(texts)
        padded = logits(model, input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        alone = logits(model, input_ids=ids[:, 3:])
        model.generate(ids, attention_mask=mask, max_new_tokens=1, do_sample=False)
    assert read[0] == read[1] == read[2]
    torch.testing.assert_close(padded[:, 3:], alone, atol=1e-4, rtol=1e-4)


# ---- what is kept -------------------------------------------------------------------------------


def test_the_state_is_kept_under_its_origins_and_used_again(base, toy_library, tmp_path, monkeypatch):
    library = Library.open(shutil.copytree(toy_library.path, tmp_path / "lib"))
    shutil.rmtree(library.path / "derived", ignore_errors=True)
    with route(base, library, "arrow") as model:
        first = logits(model)
    (kept,) = (library.path / "derived").iterdir()
    assert kept.name.startswith("arrow-") and kept.suffix == ".safetensors"
    with route(base, library, "arrow:top_k=2"):
        assert len(list((library.path / "derived").iterdir())) == 2
    monkeypatch.setattr(Arrow, "fit", lambda *_: pytest.fail("fitted again"))
    with route(base, library, "arrow") as model:
        assert torch.equal(logits(model), first)


def _turned(data):
    return data[:-1] + bytes([data[-1] ^ 64])


DAMAGES = {
    "empty": lambda kept, other: kept.write_bytes(b""),
    "cut": lambda kept, other: kept.write_bytes(kept.read_bytes()[:-7]),
    "a bit turned": lambda kept, other: kept.write_bytes(_turned(kept.read_bytes())),
    "a NaN": lambda kept, other: save_file({k: t * float("nan") for k, t in load_file(kept).items()}, kept),
    "no seal": lambda kept, other: save_file(load_file(kept), kept),
    "other tensors": lambda kept, other: save_file({"x": torch.zeros(1)}, kept),
    "another router's": lambda kept, other: shutil.copy(other, kept),
}


@pytest.fixture(scope="module", params=["arrow", "compass:n_texts=2,n_tokens=4"])
def fitted(request, _pico, toy_library, tmp_path_factory):
    """A router, a library with its state and another one's, the names of both, and what the model answers."""
    router = request.param
    library = Library.open(shutil.copytree(toy_library.path, tmp_path_factory.mktemp("fitted") / "lib"))
    shutil.rmtree(library.path / "derived", ignore_errors=True)
    with route(_pico, library, router) as model:
        first = logits(model)
    (kept,) = (library.path / "derived").iterdir()
    with route(_pico, library, "arrow:top_k=2" if router == "arrow" else "compass:n_texts=3,n_tokens=4"):
        (other,) = (path for path in (library.path / "derived").iterdir() if path != kept)
    return router, library.path, kept.name, other.name, first


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_fitted_again(fitted, damage, base, tmp_path):
    router, path, kept_name, other_name, first = fitted
    library = Library.open(shutil.copytree(path, tmp_path / "lib"))
    kept, other = library.path / "derived" / kept_name, library.path / "derived" / other_name
    good = kept.read_bytes()
    DAMAGES[damage](kept, other)
    told = f"library 'lib': derived/{kept.name} is damaged, the router is fitted again."
    with pytest.warns(RuntimeWarning, match=re.escape(told)), route(base, library, router) as model:
        assert torch.equal(logits(model), first)
    assert kept.read_bytes() == good
    with route(base, library, router) as model:
        assert torch.equal(logits(model), first)


@pytest.mark.slow
def test_a_state_that_the_base_has_a_part_in_is_of_one_dtype(base, tmp_path):
    """What a bfloat16 base reads of its own texts is other than what a float32 one does; prototypes are the same."""
    half = pico_base(dtype=torch.bfloat16)
    shared, own = (random_library(tmp_path / name, base, 4) for name in ("shared", "own"))
    more = random_library(tmp_path / "more", base, ["z"], seed=5)
    for router, n_states in (("compass:n_texts=2,n_tokens=8", 2), ("arrow", 3)):
        with route(base, shared, router):
            pass
        with route(half, own, router) as model:
            expected = logits(model)
        with route(half, shared, router) as model:
            assert torch.equal(logits(model), expected)
            assert len(list((shared.path / "derived").iterdir())) == n_states
            model.add(more["z"])
            edited = logits(model)
        added = Library.create(tmp_path / f"added-{n_states}", base=base.fingerprint)
        for name, expert in (*shared.items(), ("z", more["z"])):
            added.add(expert.directory, name)
        with route(base, added, router):
            pass
        with route(half, added, router) as model:
            assert torch.equal(logits(model), edited)


def test_a_full_disk_only_costs_the_next_one_a_fit(base, toy_library, tmp_path, full_disk):
    library = Library.open(shutil.copytree(toy_library.path, tmp_path / "lib"))
    shutil.rmtree(library.path / "derived", ignore_errors=True)
    with full_disk(100), route(base, library, "arrow") as model:
        first = logits(model)
    assert not list((library.path / "derived").iterdir())
    with route(base, library, "arrow") as model:
        assert torch.equal(logits(model), first)


def test_routing_changes_no_expert(base, toy_library, toy):
    before = {name: toy_library[name].weights_path.read_bytes() for name in toy_library}
    for router in ("arrow", "centroid", "task_predictor", "uniform", "oracle"):
        with route(base, toy_library, router, tasks=toy) as model:
            model.log_likelihood(toy["copy"].test)
    assert {name: Library.open(toy_library.path)[name].weights_path.read_bytes() for name in toy_library} == before


def test_the_identity_names_base_library_router_state_and_mix(base, toy_library):
    with route(base, toy_library, "arrow:top_k=2") as model:
        assert model.identity == {
            **base.identity, "library": toy_library.hash, "router": "arrow:top_k=2",
            "state": model.identity["state"], "mix": "factors",
        }  # fmt: skip
        assert model.names == tuple(sorted(toy_library))


def with_other_prompts(tasks):
    return Tasks(replace(t, train=tuple(replace(e, prompt=f"z{e.prompt}") for e in t.train)) for t in tasks.values())


@pytest.mark.parametrize("router", ["centroid", "task_predictor"])
def test_the_identity_knows_the_data_that_a_router_was_fitted_to(router, base, toy_library, toy):
    found = []
    for tasks in (toy, with_other_prompts(toy), toy):
        with route(base, toy_library, router, tasks=tasks) as model:
            found.append(model.identity)
            model.set_router(router, tasks=toy)
            assert model.identity == found[0]
    assert found[0] == found[2] != found[1]


def test_a_finished_run_is_not_handed_back_for_a_router_that_was_fitted_to_other_data(base, toy_library, toy, tmp_path):
    def run(tasks):
        with route(base, toy_library, "centroid", tasks=tasks) as model:
            return evaluate(Perplexity(), model, toy.only(["copy"]), into=tmp_path / "run.jsonl")

    assert run(toy) == run(toy)
    with pytest.raises(EvaluationError, match=r"^error\[E-RUN\] .* model\.state was "):
        run(with_other_prompts(toy))


# ---- explain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["arrow:top_k=2", "uniform", "oracle"])
def test_a_trace_tells_every_share_of_every_token(router, base, toy_library):
    with route(base, toy_library, router) as model:
        trace = model.explain(Example("copy: a b", "", "copy"), max_new_tokens=4)
        new = model.generate_text([Example("copy: a b", "", "copy")], max_new_tokens=4)
    text = "".join(trace.tokens)
    assert text.startswith("copy: a b")
    assert text.removeprefix("copy: a b").removesuffix("<eos>").strip() == new[0]
    assert trace.sites == tuple(s.name for s in base.target_sites(["attention"]))
    assert trace.weights.shape == (len(trace.sites), len(trace.tokens), len(toy_library))
    torch.testing.assert_close(trace.weights.sum(-1), torch.ones(trace.weights.shape[:2]))
    torch.testing.assert_close(trace.shares, trace.weights.mean(0))
    assert sum(trace.total().values()) == pytest.approx(1)
    assert list(trace.total().values()) == sorted(trace.total().values(), reverse=True)
    if router == "oracle":
        assert set(trace.loudest) == {"copy"}
        assert str(trace).splitlines()[0].split() == ["'c'", "copy", "1.00"]
    if router.startswith("arrow"):
        assert ((trace.weights > 0).sum(-1) == 2).all()


def test_a_trace_is_told_and_shown_with_its_prompt_apart(base, toy_library):
    with route(base, toy_library, "arrow:top_k=2") as model:
        trace = model.explain("copy: a b", max_new_tokens=2)
    assert "".join(trace.tokens[: trace.n_prompt]) == "copy: a b"
    told = trace.told()
    assert (tuple(told["sites"]), tuple(told["experts"]), tuple(told["tokens"])) == (
        trace.sites,
        trace.names,
        trace.tokens,
    )
    for t, by_site in enumerate(told["weights"]):
        for site, pairs in enumerate(by_site):
            found = torch.zeros(len(trace.names)).index_put(
                (torch.tensor([i for i, _ in pairs]),), torch.tensor([w for _, w in pairs])
            )
            torch.testing.assert_close(found, trace.weights[site, t], atol=1e-6, rtol=0)
    few = trace.told(room=2 * len(trace.sites) * 3)
    assert (few["weights"], few["left_out"]) == (told["weights"][:3], len(trace.tokens) - 3)
    assert "&#34;n_prompt&#34;:9" in trace._repr_html_()


def test_nothing_is_recorded_unasked(base, toy_library):
    with route(base, toy_library, "arrow") as model:
        model.explain("copy: a b", max_new_tokens=1)
        logits(model)
        assert model._attachment.slot.records is None
        assert "".join(model.explain("", max_new_tokens=1).tokens).startswith("<eos>")


def test_opening_tells_how_far_it_is(base, toy_library):
    heard = []
    with route(base, toy_library, "arrow", progress=lambda done, total: heard.append((done, total))):
        n = len(toy_library) + 8  # q, k, v and o of two layers
    assert heard == [(done, n) for done in range(1, n + 1)]
