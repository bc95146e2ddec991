"""A model that is changed while it stands equals, to the bit, one built anew; and nobody is disturbed."""

import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorary.adapters.lora import LoRA
from lorary.errors import AdapterError, LibraryError, LoraryError, OptionError, RoutingError
from lorary.formats.peft import write_weights
from lorary.library.adapter.provenance import Provenance
from lorary.library.library import Library
from lorary.model.routed.route import route
from lorary.routing.routers.arrow import Arrow
from lorary.tasks.example import Example
from lorary.testing.pico import add_expert, pico_base, random_library, random_weights

IDS = torch.arange(2, 26).view(3, 8)
NAMES = ["bee", "cat", "dog", "eel"]
ROUTERS = ["arrow:top_k=2", "uniform", "centroid:n_examples=3", "task_predictor", "oracle"]


def logits(model):
    tasks = ["dog", "bee", "dog"] if "task" in model.router.needs else None
    with torch.inference_mode():
        return model(IDS, tasks=tasks).logits


def anew(library, router="arrow:top_k=2", *, base=None, **options):
    with route(base or pico_base(), library, router, **options) as model:
        return logits(model)


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, NAMES)


@pytest.fixture
def spare(base, tmp_path):
    """Other experts: ant sorts first, fox last, cow between; cat is another cat."""
    return random_library(
        tmp_path / "spare", base, ["ant", "fox", "cow", "cat"], seed=7, targets=["attention", "up_proj"]
    )


@pytest.fixture
def data(toy):
    """A task for each animal."""
    import dataclasses

    from lorary.tasks.task import Tasks

    animals = [*NAMES, "ant", "cow", "fox"]
    return Tasks(dataclasses.replace(task, name=name) for task, name in zip(toy.values(), animals, strict=False))


# ---- equal to the bit ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mix", "router"),
    [*(("factors", router) for router in ROUTERS), ("outputs", "arrow:top_k=2"), ("outputs", "uniform")],
)
def test_each_change_equals_a_model_built_anew(router, mix, base, library, spare, data):
    options = {"mix": mix, "tasks": data}
    with route(base, library, router, **options) as model:
        for name in ("fox", "ant", "cow"):
            model.add(spare[name])
            library.add(spare[name].directory, name)
            assert torch.equal(logits(model), anew(library, router, **options)), name
            assert model.identity["library"] == library.hash
        model.replace(spare["cat"])
        library.replace(spare["cat"].directory, "cat")
        assert torch.equal(logits(model), anew(library, router, **options))
        for name in ("ant", "fox", "cat"):
            model.remove(name)
            library.remove(name)
            assert torch.equal(logits(model), anew(library, router, **options)), name
        assert model.names == tuple(sorted(library))


@pytest.mark.parametrize("architecture", ["gpt2", "llama_gqa"])
def test_in_bfloat16_too(architecture, tmp_path):
    base = pico_base(architecture, dtype=torch.bfloat16)
    library = random_library(tmp_path / "lib", base, ["a", "c"])
    more = random_library(tmp_path / "more", base, ["b", "d"], seed=3)
    with route(base, library, "arrow:top_k=2") as model:
        for name in more:
            model.add(more[name])
            library.add(more[name].directory, name)
        found = logits(model)
    assert torch.equal(found, anew(library, base=base))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_of_several_dtypes_keep_their_own_numbers(dtype, base, tmp_path):
    base = pico_base(dtype=dtype)
    sources = random_library(tmp_path / "sources", base, NAMES)
    for name, a, b in (
        ("bee", torch.bfloat16, torch.bfloat16), ("dog", torch.float32, torch.float16),
        ("eel", torch.float16, torch.bfloat16),
    ):  # fmt: skip
        store_as(sources[name], a, b, tmp_path / name)
        sources.replace(tmp_path / name, name, provenance=Provenance(tasks=(name,)))
    alone = {}
    for name in NAMES:
        lone = Library.create(tmp_path / f"lone-{name}", base=base.fingerprint)
        lone.add(sources[name].directory, name)
        with route(base, lone, "oracle") as model, torch.inference_mode():
            alone[name] = model(IDS, tasks=[name] * 3).logits
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    library.add(sources["cat"].directory, "cat")
    with route(base, library, "uniform") as model:
        for name in ("eel", "bee", "dog"):
            library.add(sources[name].directory, name)
            model.add(library[name])
        edited = logits(model)
    assert torch.equal(edited, anew(library, "uniform", base=base))
    assert torch.equal(edited, anew(library, "uniform", base=base, memory="1MiB"))
    with route(base, library, "oracle") as model, torch.inference_mode():
        for name in NAMES:
            found = model(IDS, tasks=[name] * 3).logits
            torch.testing.assert_close(found, alone[name], atol=1e-5 if dtype == torch.float32 else 0.1, rtol=1e-5)


def store_as(expert, a, b, directory):
    """Copy an expert with its input side in one dtype and its output side in another."""
    expert.copy_to(directory)
    (directory / "expert.json").unlink()
    path = directory / "adapter_model.safetensors"
    save_file({key: t.to(a if "lora_A" in key else b) for key, t in load_file(path).items()}, path)


def test_a_name_is_looked_up_in_the_library_as_it_is_now(base, library, spare):
    with route(base, library, "arrow") as model:
        Library.open(library.path).add(spare["fox"].directory, "fox")
        model.add("fox")
        assert torch.equal(logits(model), anew(Library.open(library.path), "arrow"))
        with pytest.raises(OptionError, match=r"^error\[E-NAME\] unknown expert 'fix'\. Did you mean 'fox'\?"):
            model.add("fix")


def test_sites_come_and_go_with_their_experts(base, library, spare):
    site = "model.layers.0.mlp.up_proj"
    linear = base.hf.get_submodule(site)
    with route(base, library, "arrow") as model:
        model.add(spare["cow"])
        assert base.hf.get_submodule(site) is not linear
        model.remove("cow")
        assert base.hf.get_submodule(site) is linear
        assert torch.equal(logits(model), anew(library, "arrow"))


@pytest.mark.slow
def test_routers_and_mixes_are_exchanged(base, library, data):
    with route(base, library, "uniform") as model:
        for router in ROUTERS:
            model.set_router(router, tasks=data)
            for mix in ("outputs", "factors"):
                model.set_mix(mix)
                assert torch.equal(logits(model), anew(library, router, mix=mix, tasks=data)), (router, mix)
                assert (model.identity["router"], model.mix) == (router, mix)


def test_only_the_new_expert_s_prototypes_are_computed(base, library, spare, monkeypatch):
    seen = []
    fit = Arrow.fit
    monkeypatch.setattr(Arrow, "fit", lambda self, experts, *rest: seen.extend(experts) or fit(self, experts, *rest))
    with route(base, library, "arrow") as model:
        seen.clear()
        model.add(spare["fox"])
        assert seen == ["fox"]
        model.replace(spare["cat"])
        model.remove("bee")
        assert seen == ["fox", "cat"]


def test_experts_that_left_the_disk_are_still_there(base, library, spare):
    expected = anew(library, "uniform", mix="outputs")
    with route(base, library, "uniform", mix="outputs") as model:
        shutil.rmtree(library.path / "experts" / "dog")
        assert torch.equal(logits(model), expected)
        model.set_router("arrow")
        model.add(spare["fox"])
        model.remove("fox")
        model.set_router("uniform")
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("memory", [None, "1GiB"])
def test_an_expert_that_another_process_replaced_is_not_taken_for_the_one_opened(memory, base, library, tmp_path):
    others = random_library(tmp_path / "others", base, ["cat", "cow"], seed=9)
    library.hash  # noqa: B018 - known, and still not trusted below
    Library.open(library.path).replace(others["cat"].directory, "cat")
    for router in ("arrow", "oracle"):
        with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'cat': adapter_model.safetensors has changed"):
            route(base, library, router, memory=memory)
    with route(base, Library.open(library.path), "arrow", memory=memory) as model:
        expert = model.experts["cat"]
        Library.open(library.path).replace(others["cow"].directory, "cat")
        model.remove("cat")
        with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'cat': adapter_model.safetensors has changed"):
            model.add(expert)


# ---- refusals change nothing --------------------------------------------------------------------


def test_what_does_not_fit_is_refused_and_changes_nothing(base, library, spare, tmp_path):
    other = random_library(tmp_path / "other", pico_base(seed=5), ["fox"])
    wide = Library.create(tmp_path / "wide", base=base.fingerprint)
    add_expert(wide, "yak", base, LoRA(rank=8), random_weights(LoRA(rank=8), base.target_sites(["q_proj"]), seed=1))
    with route(base, library, "arrow") as model:
        before, names = logits(model), model.names
        refusals = {
            "error[E-EXISTS] expert 'cat' is routed already. Replace it, or add it under another name.": (
                model.add, spare["cat"],
            ),
            "error[E-NAME] no expert 'fox' is routed. Known: bee, cat, dog, eel.": (model.replace, spare["fox"]),
            "error[E-NAME] no expert 'dig' is routed. Did you mean 'dog'? Known: bee, cat, dog, eel.": (
                model.remove, "dig",
            ),
            "error[E-BASE] expert 'fox' was made on another base: weights, embedding_signs differ. "
            "Load the base it was made on; `lorary show` names it.": (model.add, other["fox"]),
            "error[E-RANK] expert 'yak': rank 8 at 'model.layers.0.self_attn.q_proj', but mix=\"factors\" needs one "
            "rank for all ('bee': 4). Use mix=\"outputs\" (--mix outputs), or bring all to one rank: "
            "`lorary build --method svd:rank=4 --from LIBRARY --into NEW`.": (model.add, wide["yak"]),
            "error[E-OPTION] unknown mix 'both'. Known: factors, outputs.": (model.set_mix, "both"),
            "error[E-PROBE] router 'centroid' needs the tasks that the library was built from. "
            "Pass tasks=..., or on the command line --tasks TASKS.": (model.set_router, "centroid"),
        }  # fmt: skip
        for message, (change, detail) in refusals.items():
            with pytest.raises(LoraryError) as caught:
                change(detail)
            assert str(caught.value) == message
            assert torch.equal(logits(model), before)
            assert model.names == names
        model.set_mix("outputs")
        model.add(wide["yak"])
        with pytest.raises(AdapterError, match="E-RANK"):
            model.set_mix("factors")
        assert model.mix == "outputs"


def test_a_name_that_some_disks_can_t_tell_from_another_is_refused(base, library, tmp_path):
    other = random_library(tmp_path / "other", base, ["Cat"])
    with route(base, library, "arrow") as model, pytest.raises(LibraryError) as caught:
        model.add(other["Cat"])
    assert str(caught.value) == (
        "error[E-EXISTS] expert 'Cat' differs from 'cat' only by case, which some disks can't tell apart. "
        "Choose another name."
    )


def test_the_last_expert_stays(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ant"])
    with route(base, library, "arrow") as model:
        with pytest.raises(LibraryError) as caught:
            model.remove("ant")
        assert str(caught.value) == "error[E-EMPTY] expert 'ant' is the last one. Detach the model instead."


def test_a_nan_never_gets_in(base, library, tmp_path):
    weights = random_weights(LoRA(), base.target_sites(["q_proj"]), seed=1)
    bad = Library.create(tmp_path / "bad", base=base.fingerprint)
    add_expert(bad, "nan", base, LoRA(), weights)
    next(iter(weights.values())).a[0, 0] = float("nan")
    write_weights(bad["nan"].directory, LoRA(), weights, base_name="b")  # past the library, which would refuse it
    (bad["nan"].directory / "expert.json").unlink()
    with route(base, library, "arrow") as model:
        with pytest.raises(AdapterError, match="E-NONFINITE"):
            model.add(Library.open(bad.path)["nan"])
        assert torch.equal(logits(model), anew(library, "arrow"))


def test_a_detached_model_neither_answers_nor_changes(base, library, spare, tmp_path):
    with route(base, library, "arrow") as model:
        pass
    for change in (
        lambda: logits(model), lambda: model.generate(IDS), lambda: model.add(spare["fox"]), model.twin,
        lambda: model.set_router("uniform"), lambda: model.set_mix("outputs"), lambda: model.remove("cat"),
        lambda: model.replace(spare["cat"]), lambda: model.save(tmp_path / "model"), lambda: model.explain("x"),
        lambda: model.choices(["x"]), lambda: model.log_likelihood([Example("x", "y")]),
        lambda: model.generate_text([Example("x", "y")], max_new_tokens=2),
    ):  # fmt: skip
        with pytest.raises(RoutingError) as caught:
            change()
        assert str(caught.value) == (
            "error[E-DETACHED] this routed model was detached from its base. Route the library anew."
        )


# ---- calls under way ----------------------------------------------------------------------------


def test_nothing_changes_during_a_call(base, library, spare):
    changes = []
    with route(base, library, "arrow") as model:
        for change in (
            lambda: model.add(spare["fox"]), lambda: model.remove("cat"), lambda: model.replace(spare["cat"]),
            lambda: model.set_router("uniform"), lambda: model.set_mix("outputs"),
        ):  # fmt: skip

            def attempt(*_, change=change):
                with pytest.raises(RoutingError) as caught:
                    change()
                changes.append(str(caught.value))
                return False

            expected = model.generate(IDS[:1], max_new_tokens=3, do_sample=False)
            found = model.generate(IDS[:1], max_new_tokens=3, do_sample=False, stopping_criteria=[attempt])
            assert torch.equal(found, expected)

            def elsewhere(*_, attempt=attempt):
                thread = threading.Thread(target=attempt)
                thread.start()
                thread.join()
                return False

            found = model.generate(IDS[:1], max_new_tokens=3, do_sample=False, stopping_criteria=[elsewhere])
            assert torch.equal(found, expected)
    assert set(changes) == {
        "error[E-BUSY] this routed model is in a call of its own. Change it when that has ended.",
        "error[E-BUSY] this routed model is busy in another thread. Give each thread a model of its own.",
    }


# ---- twins --------------------------------------------------------------------------------------


def test_a_twin_shares_all_memory_and_leaves_no_trace(base, library):
    modules = [id(m) for m in base.hf.modules()]
    with route(base, library, "arrow") as model:
        twin = model.twin()
        ours, theirs = ({p.data_ptr() for p in m.base.hf.parameters()} for m in (model, twin))
        assert ours == theirs
        assert torch.equal(logits(twin), logits(model))
        assert not {id(m) for m in base.hf.modules() if not list(m.children())} & {
            id(m) for m in twin.base.hf.modules() if not list(m.children()) and "Gate" not in type(m).__name__
            and "Bank" not in type(m).__name__
        }  # fmt: skip
        twin.detach()
        assert torch.equal(logits(model), anew(library, "arrow"))
    assert [id(m) for m in base.hf.modules()] == modules


def test_a_twin_goes_its_own_way(base, library, spare):
    with route(base, library, "arrow:top_k=2") as model:
        before = logits(model)
        with model.twin() as twin:
            twin.add(spare["fox"])
            with twin.twin() as third:
                # Both add behind what they share: neither may write into the other's rows.
                twin.set_router("uniform")
                third.remove("fox")
                third.add(spare["fox"])
            model.add(spare["fox"])
            model.remove("fox")
            assert torch.equal(logits(model), before)
            library.add(spare["fox"].directory, "fox")
            assert torch.equal(logits(twin), anew(library, "uniform"))


def test_rows_added_by_two_owners_do_not_mix(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["a"])
    more = random_library(tmp_path / "more", base, ["b", "c", "d"], seed=2)
    with route(base, library, "uniform", mix="outputs") as model:
        model.add(more["b"])
        with model.twin() as twin:
            model.add(more["c"])
            twin.add(more["d"])
            for routed, names in ((model, "bc"), (twin, "bd")):
                lone = random_library(tmp_path / names, base, ["a"])
                for name in names:
                    lone.add(more[name].directory, name)
                assert torch.equal(logits(routed), anew(lone, "uniform", mix="outputs"))


@pytest.mark.slow
def test_twins_answer_in_threads_while_one_is_changed(base, library, spare):
    with route(base, library, "arrow:top_k=2") as model:
        expected = model.generate(IDS[:1], max_new_tokens=12, do_sample=False)
        found, failures = [], []

        def work(twin):
            try:
                found.extend(twin.generate(IDS[:1], max_new_tokens=12, do_sample=False) for _ in range(4))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(model.twin(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            model.add(spare["fox"])
            model.remove("fox")
            model.twin()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(found) == 12
    assert all(torch.equal(ids, expected) for ids in found)


def test_twins_tell_tasks_apart_by_text(base, library, data):
    with route(base, library, "task_predictor", tasks=data) as model, model.twin() as twin:
        assert torch.equal(logits(twin), logits(model))
        assert twin._prompts.base is twin.base
        assert twin._prompts.encoder.base is twin.base


# ---- what a change costs ------------------------------------------------------------------------


def places(model):
    parts = model._attachment.parts.values()
    return [(bank.a.data_ptr(), bank.b.data_ptr(), gate.vectors.data_ptr()) for bank, gate in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_more_expert_is_written_behind_the_others_and_nothing_else_moves(dtype, tmp_path):
    base = pico_base(dtype=dtype)
    library = random_library(tmp_path / "lib", base, [f"e{i}" for i in range(8)])
    more = random_library(tmp_path / "more", base, ["f0", "f1", "f2"], seed=3)
    with route(base, library, "arrow") as model:
        before, said = places(model), logits(model)
        twin = model.twin()
        model.add(more["f0"])
        model.add(more["f1"])
        assert places(model) == before
        banks = [bank for bank, _ in model._attachment.parts.values()]
        assert all(bank.layout is banks[0].layout for bank in banks)
        assert torch.equal(logits(twin), said)
        model.add(more["f2"])  # for a third there is no room
        assert not set(places(model)) & set(before)
        for name in more:
            library.add(more[name].directory, name)
        found = logits(model)
    assert torch.equal(found, anew(library, "arrow", base=base))


def test_the_layers_stay_where_they_are(base, library, spare):
    with route(base, library, "arrow") as model:
        layers = dict(model._attachment.layers)
        model.add(spare["fox"])
        assert {site: model._attachment.layers[site] for site in layers} == layers


@pytest.mark.slow
def test_the_compass_s_texts_are_written_once(base, library, spare, monkeypatch):
    from lorary.model.probes.probe import DataProbe

    with route(base, library, "compass:n_texts=4,n_tokens=8") as model:
        monkeypatch.delattr(DataProbe, "sample_texts")
        model.add(spare["fox"])
        model.remove("bee")
        model.add(spare["cow"])
        found = logits(model)
    monkeypatch.undo()
    library.remove("bee")
    for name in ("fox", "cow"):
        library.add(spare[name].directory, name)
    assert torch.equal(found, anew(library, "compass:n_texts=4,n_tokens=8"))


def test_a_model_made_in_inference_mode_grows_outside_of_it(base, library, spare):
    with torch.inference_mode():
        model = route(base, library, "arrow:top_k=2")
    with model:
        model.add(spare["fox"])
        library.add(spare["fox"].directory, "fox")
        assert torch.equal(logits(model), anew(library))
