"""A saved model comes back whole, to the bit, or the error says what is missing, changed or wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorary
from lorary.adapters.lora import LoRA
from lorary.errors import LoraryError
from lorary.formats.peft import write_weights
from lorary.hashing import hash_file
from lorary.library.base_names import shared_name
from lorary.library.library import Library
from lorary.model.attached.attachment import RoutedLinear
from lorary.model.routed.route import route
from lorary.testing.pico import pico_base, random_library, random_weights

IDS = torch.arange(2, 26).view(3, 8)
ROUTERS = [
    "arrow:top_k=2,temperature=0.5",
    "spectr:top_k=none",
    "uniform",
    "centroid:n_examples=3,score=dot",
    "task_predictor",
    "oracle",
]


def logits(model):
    tasks = ["copy", "join", "copy"] if "task" in model.router.needs else None
    with torch.inference_mode():
        return model(IDS, tasks=tasks).logits


@pytest.fixture
def library(toy_library, tmp_path):
    return Library.open(shutil.copytree(toy_library.path, tmp_path / "libs" / "lib"))


@pytest.fixture
def saved(base, library, tmp_path):
    """A saved Arrow model that refers to its experts."""
    with route(base, library, "arrow") as model:
        return model.save(tmp_path / "model", experts="refer")


# ---- to the bit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("keep", ["copy", "refer"])
def test_it_answers_to_the_bit(router, keep, base, library, toy, tmp_path):
    with route(base, library, router, mix="outputs", tasks=toy) as model:
        expected, identity = logits(model), model.identity
        model.save(tmp_path / "model", experts=keep)
    with lorary.load(tmp_path / "model", base=base) as again:
        assert torch.equal(logits(again), expected)
        assert (again.identity, again.router, again.mix) == (identity, model.router, "outputs")


def test_an_edited_model_in_bfloat16_comes_back(library, tmp_path):
    base = pico_base(dtype=torch.bfloat16)
    more = random_library(tmp_path / "more", base, ["zebra"], seed=9)
    with route(base, library, "arrow:top_k=2") as model:
        model.add(more["zebra"])
        model.remove("copy")
        expected = logits(model)
        for keep in ("copy", "refer"):
            model.save(tmp_path / keep, experts=keep)
    for keep in ("copy", "refer"):
        with lorary.load(tmp_path / keep, base=base) as again:
            assert torch.equal(logits(again), expected)
            again.add("copy") if keep == "refer" else again.set_router("uniform")


def test_copied_experts_need_no_library_and_are_one(base, library, tmp_path):
    with route(base, library, "arrow") as model:
        expected = logits(model)
        model.save(tmp_path / "model")
    shutil.rmtree(library.path)
    moved = shutil.move(tmp_path / "model", tmp_path / "moved")
    with lorary.load(moved, base=base) as again:
        assert torch.equal(logits(again), expected)
    assert sorted(Library.open(moved)) == sorted(library)


def test_references_move_together(base, library, saved, tmp_path):
    with lorary.load(saved, base=base) as model:
        expected = logits(model)
    (tmp_path / "elsewhere").mkdir()
    for name in ("libs", "model"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    with lorary.load(tmp_path / "elsewhere" / "model", base=base) as again:
        assert torch.equal(logits(again), expected)


def test_references_are_found_from_where_a_link_leads(base, library, tmp_path):
    (tmp_path / "a" / "deep" / "place").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "deep" / "place")
    with route(base, library, "arrow") as model:
        expected = logits(model)
        model.save(tmp_path / "link" / "model", experts="refer")
    for path in ("link", "a/deep/place"):
        with lorary.load(tmp_path / path / "model", base=base) as again:
            assert torch.equal(logits(again), expected)


def test_the_base_is_found_by_its_name(base, toy_library, tmp_path):
    base.hf.save_pretrained(tmp_path / "pico")
    base.tokenizer.save_pretrained(tmp_path / "pico")
    named = lorary.load_base(str(tmp_path / "pico"), dtype="float32")
    with route(named, toy_library, "arrow") as model:
        expected = logits(model)
        model.save(tmp_path / "model")
    with lorary.load(tmp_path / "model") as again:
        assert torch.equal(logits(again), expected)
    shutil.rmtree(tmp_path / "pico")
    refuse(
        lambda: lorary.load(tmp_path / "model"),
        f"error[E-BASE] saved model 'model' was made on base {named.name!r}, which was a directory where it was made. "
        "Load it yourself and pass base=...",
    )


# ---- trained through the model ------------------------------------------------------------------


def train(model, *, experts=(), gates=False):
    """Make one step; only these experts' rows learn."""
    learning = []
    for bank, gate in model._attachment.parts.values():
        learning += [bank.a.requires_grad_(), bank.b.requires_grad_()]
        learning += [gate.vectors.requires_grad_()] if gates else []
        rows = torch.tensor([model.names[i] in experts for i in bank.layout.owner.tolist()])
        for factor in (bank.a, bank.b):
            factor.register_hook(lambda grad, rows=rows: grad * rows.unsqueeze(1))
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    torch.optim.SGD(learning, lr=0.5).step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("experts", "gates"), [(["join"], False), (["copy", "join"], True), ([], True)])
def test_what_was_trained_comes_back(experts, gates, dtype, library, tmp_path):
    base = pico_base(dtype=dtype)
    with route(base, library, "arrow:top_k=2") as model:
        before = logits(model)
        train(model, experts=experts, gates=gates)
        expected = logits(model)
        model.save(tmp_path / "model")
    assert not torch.equal(expected, before)
    with lorary.load(tmp_path / "model", base=pico_base(dtype=dtype)) as again:
        assert torch.equal(logits(again), expected)
        changed = {name for name in library if again.experts[name].hash != library[name].hash}
        assert changed == set(experts)
        for name in changed:
            made = again.experts[name]
            assert {tensor.dtype for tensor in made.header.values()} == {"F32" if dtype is torch.float32 else "BF16"}
            assert made.provenance.parents == (f"{name}@{library[name].hash[:12]}",)
            assert (made.provenance.tasks, made.config) == (library[name].provenance.tasks, library[name].config)


def test_a_trained_expert_keeps_its_scales(base, tmp_path):
    kind = LoRA(rank=4, alpha=6.0, rslora=True)
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    with library.stage("ant") as stage:
        write_weights(stage, kind, random_weights(kind, base.target_sites(["attention"]), seed=1), base_name="b")
        config = json.loads((stage / "adapter_config.json").read_text())
        (stage / "adapter_config.json").write_text(json.dumps({**config, "alpha_pattern": {"q_proj": 3.0}}))
    with route(base, library, "uniform") as model:
        bank, _ = model._attachment.parts["model.layers.0.self_attn.q_proj"]
        bank.a.data[0] += 1  # no version counter sees that
        expected = logits(model)
        model.save(tmp_path / "model")
    with lorary.load(tmp_path / "model", base=base) as again:
        assert torch.equal(logits(again), expected)
        assert again.experts["ant"].scales == library["ant"].scales


@pytest.mark.parametrize("is_trained", [True, False])
def test_what_adding_leaves_out_saving_leaves_out_too(base, is_trained, tmp_path):
    """Of a folder that others made, whose adapters nobody added."""
    config = random_library(tmp_path / "lib", base, ["a"])["a"].directory / "adapter_config.json"
    theirs = {"auto_mapping": {"parent_library": "evil"}, "base_model_name_or_path": "/home/me/llama"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **theirs}))
    with route(base, Library.open(tmp_path / "lib" / "experts"), "uniform") as model:
        if is_trained:
            bank, _ = model._attachment.parts["model.layers.0.self_attn.q_proj"]
            bank.a.data[0] += 1
        model.save(tmp_path / "model")
    kept = json.loads((tmp_path / "model" / "experts" / "a" / "adapter_config.json").read_text())
    assert (kept["auto_mapping"], kept["base_model_name_or_path"]) == (None, shared_name("/home/me/llama"))


def test_no_file_can_be_referred_to_for_a_trained_expert(base, library, tmp_path):
    with route(base, library, "arrow") as model:
        train(model, experts=["copy", "join"])
        refuse(
            lambda: model.save(tmp_path / "model", experts="refer"),
            "error[E-OPTION] experts=\"refer\": 'copy', 'join' aren't as their files have them any more. "
            'Save with experts="copy", which writes them as they are now.',
        )
    assert not (tmp_path / "model").exists()


def test_training_that_diverged_is_not_saved(base, library, tmp_path):
    with route(base, library, "arrow") as model:
        bank, _ = model._attachment.parts["model.layers.0.self_attn.q_proj"]
        bank.b.data[0, 0] = torch.nan
        with pytest.raises(LoraryError, match=r"^error\[E-NONFINITE\] expert 'copy': tensor 'base_model\.model\.model"):
            model.save(tmp_path / "model")
    assert not any(tmp_path.glob("*model*"))


def test_a_trained_gate_that_no_state_holds_is_refused(base, library, tmp_path):
    with route(base, library, "compass:n_texts=2,n_tokens=8") as model:
        model.save(tmp_path / "before")
        train(model, gates=True)
        with pytest.raises(LoraryError) as caught:
            model.save(tmp_path / "model")
        assert str(caught.value) == (
            "error[E-STATE] the gate at 'model.layers.0.self_attn.q_proj' was trained, and its router's state can't "
            "hold that. Take the router back with model.set_router(model.router), then save."
        )
        model.set_router(model.router)
        model.save(tmp_path / "model")


# ---- whole or absent ----------------------------------------------------------------------------


def refuse(work, message):
    with pytest.raises(LoraryError) as caught:
        work()
    assert str(caught.value) == message


def test_nothing_is_written_over(base, library, saved):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with route(base, library, "uniform") as model:
        refuse(lambda: model.save(saved), f"error[E-EXISTS] {str(saved)!r} exists already. Choose another path.")
        refuse(
            lambda: model.save(saved, experts="link"),
            "error[E-OPTION] experts='link' is unknown. Known: copy, refer.",
        )
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/null/x/y", "no directory can be made at '/dev/null/x/y': a part of it is a file, or too long. "
         "Choose another path."),
        ("x" * 300, "no directory can be made at "),
        ("a\0b", "'a\\x00b' is no path. Give a text or a pathlib.Path."),
        (None, "None is no path. Give a text or a pathlib.Path."),
        (7, "7 is no path. Give a text or a pathlib.Path."),
    ],
)  # fmt: skip
def test_what_can_t_be_a_path_is_refused(path, message, base, toy_library):
    with route(base, toy_library, "uniform") as model, pytest.raises(LoraryError) as caught:
        model.save(path)
    assert str(caught.value).startswith(f"error[E-PATH] {message}")
    with pytest.raises(LoraryError, match="E-PATH|E-MODEL"):
        lorary.load(path, base=base)


def test_a_save_that_fails_leaves_nothing(base, library, tmp_path, monkeypatch):
    with route(base, library, "arrow") as model:
        shutil.rmtree(library.path / "experts" / "join")
        with pytest.raises(LoraryError, match="E-FILE"):
            model.save(tmp_path / "out" / "model")
        assert not list((tmp_path / "out").iterdir())


def test_an_expert_that_changed_before_saving_is_refused(base, library, tmp_path):
    other = random_library(tmp_path / "other", base, ["join"], seed=4)
    with route(base, library, "arrow") as model:
        library.replace(other["join"].directory, "join")
        for keep in ("copy", "refer"):
            with pytest.raises(LoraryError, match=r"^error\[E-FILE\] expert 'join' has changed since"):
                model.save(tmp_path / "model", experts=keep)
    assert not (tmp_path / "model").exists()


# ---- what is missing, changed or wrong is named -------------------------------------------------


def test_an_expert_that_left_before_saving_is_named(base, library, tmp_path):
    with route(base, library, "arrow") as model:
        library.remove("join")
        refuse(
            lambda: model.save(tmp_path / "model"),
            "error[E-FILE] expert 'join': adapter_config.json is missing. Restore it, or leave the expert out.",
        )


def test_a_missing_expert_is_named(base, library, saved):
    shutil.rmtree(library.path / "experts" / "join")
    refuse(
        lambda: lorary.load(saved, base=base),
        f"error[E-FILE] expert 'join' of saved model 'model' is missing: no "
        f"{str(saved / '../libs/lib/experts/join')!r}. Restore it there, or save the model again.",
    )


def test_a_changed_expert_is_named(base, library, saved, tmp_path):
    old, other = library["join"].hash, random_library(tmp_path / "other", base, ["join"], seed=4)
    library.replace(other["join"].directory, "join")
    refuse(
        lambda: lorary.load(saved, base=base),
        f"error[E-FILE] expert 'join' has changed since: hash {library['join'].hash[:12]}, expected {old[:12]}. "
        "Bring the old one back, or route the library anew.",
    )
    path = library.path / "experts" / "copy" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(LoraryError, match=r"^error\[E-FILE\] expert 'copy': adapter_model.safetensors has changed"):
        lorary.load(saved, base=base)


def test_a_wrong_base_is_refused(saved):
    refuse(
        lambda: lorary.load(saved, base=pico_base(seed=1)),
        "error[E-BASE] saved model 'model' was made on another base: weights, embedding_signs differ. "
        "Load the base it was made on; `lorary show` names it.",
    )


def test_a_damaged_state_is_refused(base, saved):
    path = saved / "state.safetensors"
    data = path.read_bytes()
    message = "error[E-FILE] state.safetensors is damaged: not the file that model.json names. Save the model again."
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        refuse(lambda: lorary.load(saved, base=base), message)
    path.unlink()
    refuse(lambda: lorary.load(saved, base=base), "error[E-FILE] state.safetensors is missing.")


def rewrite(saved, change):
    facts = json.loads((saved / "model.json").read_text())
    change(facts)
    (saved / "model.json").write_text(json.dumps(facts))


def reseal(saved, tensors):
    """Write another state and its true hash: no accident, but malice."""
    path = saved / "state.safetensors"
    save_file(tensors, path)
    rewrite(saved, lambda f: f.update(state={"sha256": hash_file(path), "size_bytes": path.stat().st_size}))


@pytest.mark.filterwarnings("ignore:.*W-ORIGIN")
def test_a_hostile_state_is_refused(base, saved):
    good = load_file(saved / "state.safetensors")
    vectors, members = (next(k for k in sorted(good) if k.endswith(end)) for end in ("vectors", "members"))
    site = vectors.removesuffix(".vectors")
    for hostile in (
        {vectors: good[vectors][:, :-1].contiguous()}, {vectors: good[vectors][:1]}, {members: good[members] + 1},
        {members: good[members] - 1},
    ):  # fmt: skip
        reseal(saved, {**good, **hostile})
        refuse(
            lambda: lorary.load(saved, base=base, outside=True),
            f"error[E-STATE] site {site!r}: the router's state is not of these experts. Fit anew.",
        )
    assert not any(isinstance(module, RoutedLinear) for module in base.hf.modules())


@pytest.mark.filterwarnings("ignore:.*W-ORIGIN")
def test_a_state_that_lacks_what_the_router_reads_is_refused(base, library, toy, tmp_path):
    with route(base, library, "task_predictor", tasks=toy) as model:
        saved = model.save(tmp_path / "predictor")
    reseal(saved, {"weight": torch.zeros(1)})
    refuse(
        lambda: lorary.load(saved, base=base),
        "error[E-STATE] state.safetensors doesn't fit the router: KeyError: 'bias'. Save the model again.",
    )


@pytest.mark.parametrize("router", ["arrow", "compass:n_texts=2,n_tokens=4", "uniform"])
def test_a_model_that_names_no_state_is_refused_if_its_router_has_one(router, base, library, tmp_path):
    with route(base, library, router) as model:
        saved = model.save(tmp_path / "model")
    rewrite(saved, lambda facts: facts.update(state=None))
    if router == "uniform":
        return lorary.load(saved, base=base).detach()
    message = f"error[E-STATE] there is no state for router '{router}', without which no expert would be used."
    return refuse(lambda: lorary.load(saved, base=base), f"{message} Save the model again.")


def test_a_giant_state_is_refused_before_it_is_read(base, saved):
    with (saved / "state.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(LoraryError, match=r"^error\[E-LIMIT\] state.safetensors has 1,099,511,627,776 bytes"):
        lorary.load(saved, base=base)


MODEL_FAULTS = {
    "error[E-MODEL] model.json: schema_version is None, expected 1.": lambda f: f.pop("schema_version"),
    "error[E-SCHEMA] model.json has schema 2; this lorary reads up to 1. Install a newer lorary.": (
        lambda f: f.update(schema_version=2)
    ),
    "error[E-MODEL] model.json: 'base' is [], expected an object.": lambda f: f.update(base=[]),
    "error[E-MODEL] model.json: 'dtype' in 'base' is 3, expected str.": lambda f: f["base"].update(dtype=3),
    "error[E-MODEL] model.json: mix is 'both', expected one of ('factors', 'outputs').": lambda f: f.update(mix="both"),
    "error[E-MODEL] model.json names no experts.": lambda f: f.update(experts={}),
    "error[E-MODEL] model.json: 'size_bytes' in 'state' is True, expected int.": (
        lambda f: f["state"].update(size_bytes=True)
    ),
    "error[E-MODEL] model.json: library is 7, expected a path or null.": lambda f: f.update(library=7),
    "error[E-OPTION] arrow: unknown option 'k'. Known: temperature, tie, top_k.": (
        lambda f: f["router"].update(options={"k": 1})
    ),
    "error[E-OPTION] arrow: top_k=0, expected 1 or more.": lambda f: f["router"]["options"].update(top_k=0),
    "error[E-MODEL] model.json: 'hash' in 'join' is None, expected str.": lambda f: f["experts"]["join"].pop("hash"),
    "error[E-MODEL] model.json: the directory of 'join' is no path.": (
        lambda f: f["experts"]["join"].update(directory="a\0b")
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", MODEL_FAULTS)
def test_a_wrong_field_is_named(message, base, saved):
    rewrite(saved, MODEL_FAULTS[message])
    refuse(lambda: lorary.load(saved, base=base), message)


def test_names_that_are_no_names_are_refused(base, saved):
    rewrite(saved, lambda f: f["experts"].update({"../../evil": f["experts"]["join"]}))
    with pytest.raises(LoraryError, match=r"^error\[E-NAME\] expert name '\.\./\.\./evil' is refused\."):
        lorary.load(saved, base=base)


def test_json_is_strict(base, saved):
    path = saved / "model.json"
    text = path.read_text()
    for broken, code in (
        (text[:-3], "E-MODEL"), ("[]", "E-MODEL"), (text.replace('"mix"', '"mix": "outputs", "mix"'), "E-MODEL"),
        ("{" + '"a":' * 9000, "E-MODEL"), (text.replace('"factors"', "NaN"), "E-MODEL"), ("\ufeff" + text, "E-MODEL"),
    ):  # fmt: skip
        path.write_text(broken)
        with pytest.raises(LoraryError) as caught:
            lorary.load(saved, base=base)
        assert caught.value.code == code
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(LoraryError, match="E-PATH"):
        lorary.load(saved, base=base)


def test_what_is_no_saved_model_is_said(base, library, tmp_path):
    for path in (library.path, tmp_path / "nowhere"):
        refuse(
            lambda path=path: lorary.load(path, base=base),
            f"error[E-MODEL] {str(path)!r} is no saved model: no model.json. Check the path.",
        )


def test_a_base_is_no_name(saved):
    refuse(
        lambda: lorary.load(saved, base="pico"),
        "error[E-OPTION] base is 'pico', expected a base model. Load one: load_base().",
    )
    refuse(
        lambda: lorary.load_base(None),
        "error[E-OPTION] name is None, expected a name, a directory, or a model of transformers.",
    )
