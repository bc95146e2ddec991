"""Bases in half precision, and quantised ones: wrapped by calling them, whatever their layers' class, never changed."""

import hashlib
import json
import warnings

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, OPTConfig

import lorary
from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.route import route
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.pico import pico_base, pico_tokenizer, random_library

IDS = torch.arange(2, 26).view(3, 8)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


class Int8Linear(nn.Module):
    """A linear layer of a stranger: no nn.Linear, no float weight, no parameter at all."""

    largest = 127

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / self.largest
        self.register_buffer("qweight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.inner = nn.Linear(1, 1, bias=False)  # what is inside of it is its own business
        nn.init.ones_(self.inner.weight)

    def forward(self, x):
        return nn.functional.linear(x, self.qweight.to(x.dtype) * self.scale.to(x.dtype))


class Int4Linear(Int8Linear):
    """One of sixteen values for each weight."""

    largest = 7


def by_hand(hf, linear=Int8Linear):
    for name, module in list(hf.named_modules()):
        if isinstance(module, nn.Linear) and module is not hf.get_output_embeddings():
            parent, _, leaf = name.rpartition(".")
            setattr(hf.get_submodule(parent), leaf, linear(module))


def by_torchao(hf, bits=8):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("torchao.quantization")
        config = quantization.Int8WeightOnlyConfig()
        if bits == 4:
            group = quantization.granularity.PerGroup(16)
            config = quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=group)
        head = hf.get_output_embeddings()
        quantization.quantize_(hf, config, lambda m, _: isinstance(m, nn.Linear) and m is not head)


QUANTISED = {
    "by_hand": by_hand,
    "by_hand in 4 bits": lambda hf: by_hand(hf, Int4Linear),
    "torchao": by_torchao,
    "torchao in 4 bits": lambda hf: by_torchao(hf, 4),
}


def quantised(how, dtype=torch.float32, *, seed=0):
    plain = pico_base(dtype=dtype, seed=seed)
    QUANTISED[how](plain.hf)
    return BaseModel(plain.hf, pico_tokenizer(), "pico-llama")


def bytes_of(tensor):
    if hasattr(tensor, "__tensor_flatten__"):
        return b"".join(bytes_of(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def hash_of(hf):
    """Everything that is stored in a model, by value."""
    named = [*hf.named_parameters(), *hf.named_buffers()]
    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0].replace(".base.", ".")):
        if ".bank." not in name and ".gate." not in name:
            digest.update(name.replace(".base.", ".").encode() + bytes_of(tensor))
    return digest.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("how", QUANTISED)
def test_a_quantised_base_is_routed_and_stays_as_it_is(how, dtype, base, toy_library):
    target = quantised(how, dtype)
    assert target.sites == base.sites
    assert target.dtype == dtype
    before, alone = hash_of(target.hf), logits(target.hf)
    with route(target, toy_library, "arrow:top_k=2", mix="outputs") as model:
        assert hash_of(target.hf) == before
        found = logits(model)
        assert found.dtype == dtype
        assert (found - alone).abs().max() > 0.1
        model.generate(IDS[:1], max_new_tokens=3, do_sample=False)
        with model.twin() as twin:
            assert torch.equal(logits(twin), found)
            assert sum(p.numel() for p in twin.base.hf.parameters()) > 0
        model.remove("join")
        assert hash_of(target.hf) == before
    assert hash_of(target.hf) == before
    assert torch.equal(logits(target.hf), alone)


@pytest.mark.parametrize("how", QUANTISED)
def test_experts_say_on_it_what_they_say_on_its_original(how, base, toy_library):
    target = quantised(how)
    site = "model.layers.1.self_attn.q_proj"
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    added = []
    for model in (base, target):
        alone = model.hf.get_submodule(site)(x)
        with route(model, toy_library, "arrow:top_k=2"):
            added.append(model.hf.get_submodule(site)(x) - alone)
    torch.testing.assert_close(added[0], added[1], atol=1e-5, rtol=1e-5)


ROUNDED = {
    "by_hand": lambda **options: quantised("by_hand", **options),
    "by_hand in bfloat16": lambda **options: quantised("by_hand", torch.bfloat16, **options),
    "by_hand in 4 bits": lambda **options: quantised("by_hand in 4 bits", **options),
    "torchao": lambda **options: quantised("torchao", **options),
    "torchao in 4 bits": lambda **options: quantised("torchao in 4 bits", **options),
    "float16": lambda **options: pico_base(dtype=torch.float16, **options),
}


@pytest.mark.parametrize("how", ROUNDED)
def test_a_rounded_base_passes_for_its_original_and_for_no_other(how, base, tmp_path):
    target, another = ROUNDED[how](), ROUNDED[how](seed=1)
    assert ROUNDED[how]().fingerprint == target.fingerprint
    shared = base.fingerprint.keys() & target.fingerprint.keys()
    assert shared == {"architecture", "hidden_size", "n_layers", "vocab_size", "embedding_signs"}
    assert all(base.fingerprint[key] == target.fingerprint[key] for key in shared)
    own = (target.fingerprint.keys() - shared).pop()
    assert own.startswith("weights_") and another.fingerprint[own] != target.fingerprint[own]
    built_on_it = random_library(tmp_path / "lib", target, ["ant"])
    with route(base, built_on_it, "uniform") as model:
        model.save(tmp_path / "saved")
    with lorary.load(tmp_path / "saved", base=target) as model:
        assert logits(model).isfinite().all()
    with route(target, built_on_it, "uniform") as model:
        model.save(tmp_path / "saved on it")
    wrong = r"^error\[E-BASE\] .* was made on another base: .*embedding_signs differ\."
    for other in (another, pico_base(seed=1), pico_base(seed=1, dtype=torch.bfloat16)):
        for attempt in (
            lambda other=other: route(other, built_on_it, "uniform"),
            lambda other=other: lorary.load(tmp_path / "saved on it", base=other),
        ):
            with pytest.raises(LoraryError, match=wrong):
                attempt()
    with pytest.raises(LoraryError, match=wrong):
        route(another, random_library(tmp_path / "original", base, ["ant"]), "uniform")
    with pytest.raises(LoraryError, match="E-BASE"):
        route(target, random_library(tmp_path / "phi", pico_base("phi"), ["ant"]), "uniform")


@pytest.mark.parametrize("how", ROUNDED)
def test_weights_are_noticed_where_the_embedding_is_the_same(how, toy, tmp_path):
    target, tuned = ROUNDED[how](), ROUNDED[how](seed=1)
    tuned.hf.get_input_embeddings().load_state_dict(target.hf.get_input_embeddings().state_dict())
    library = random_library(tmp_path / "lib", target, ["ant"])
    with pytest.raises(LoraryError, match=r"was made on another base: weights_\w+ differ\."):
        route(tuned, library, "uniform")
    with pytest.raises(LoraryError, match=r"^error\[E-BASE\] .*weights_"):
        lorary.build(lorary.Private(), toy, tuned, into=tmp_path / "lib")


@pytest.mark.parametrize("one", QUANTISED)
@pytest.mark.parametrize("other", ["original", *QUANTISED])
def test_a_library_is_one_for_all_roundings_of_a_base_and_results_are_not(one, other, base, toy, tmp_path):
    """Experts and whole libraries go from one to the other; states, runs and jobs are each one's own.

    But where the two store their weights alike, in tensors of the same names, types and sizes: then other numbers are
    another base, since nothing tells a coarser rounding from another training.
    """
    mine, theirs = quantised(one), base if other == "original" else quantised(other)
    library, guests = random_library(tmp_path / "lib", mine, 2), random_library(tmp_path / "guests", theirs, ["guest"])
    if one != other and {one, other} == {"by_hand", "by_hand in 4 bits"}:
        with pytest.raises(LoraryError, match=r"E-BASE.*weights_quantised_"):
            library.add(guests["guest"].directory, "guest")
        with pytest.raises(LoraryError, match=r"E-BASE.*weights_quantised_"):
            route(theirs, library, "uniform")
        return
    library.add(guests["guest"].directory, "guest")
    is_same = one == other
    assert (mine.fingerprint == theirs.fingerprint) == is_same
    router = "compass:n_texts=2,n_tokens=8"
    identities = []
    for model_base in (mine, theirs):
        with route(model_base, library, router) as model:
            identities.append(model.identity)
    assert (identities[0] == identities[1]) == is_same
    assert len(list((library.path / "derived").iterdir())) == (1 if is_same else 2), "each reads its own texts"
    lorary.build(lorary.Private(steps=2, rank=2), toy.only(["copy"]), mine, into=tmp_path / "built")
    again = lorary.Private(steps=2, rank=2)
    if is_same:
        assert list(lorary.build(again, toy.only(["copy"]), theirs, into=tmp_path / "built")) == ["copy"]
    else:
        with pytest.raises(LoraryError, match=r"E-(EXISTS|BASE)"):
            lorary.build(again, toy.only(["copy"]), theirs, into=tmp_path / "built")


def test_where_the_embedding_is_quantised_only_the_same_form_is_compared(base, tmp_path):
    """The signs of the embedding are what two roundings share: without them another base of these sizes passes."""

    def with_rounded_embedding(seed=0):
        made = quantised("by_hand", seed=seed)
        made.hf.get_input_embeddings().weight = nn.Parameter(
            made.hf.get_input_embeddings().weight.detach().mul(50).round().to(torch.int8), requires_grad=False
        )
        return BaseModel(made.hf, pico_tokenizer(), "pico-llama")

    rounded, another = with_rounded_embedding(), with_rounded_embedding(seed=1)
    assert "embedding_signs" not in rounded.fingerprint
    library = random_library(tmp_path / "lib", rounded, ["ant"])
    with pytest.raises(LoraryError, match=r"E-BASE.*weights_quantised_\w+ differ\."):
        route(another, library, "uniform")
    with route(base, library, "uniform"):
        pass


def test_a_library_from_before_signs_were_noted_still_opens(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ant"])
    print_of_old = {key: value for key, value in base.fingerprint.items() if key != "embedding_signs"}
    for path in (library.path / "library.json", library.path / "experts" / "ant" / "expert.json"):
        fields = json.loads(path.read_text())
        fields["base" if "base" in fields else "base_fingerprint"] = print_of_old
        path.write_text(json.dumps(fields))
    with route(pico_base(dtype=torch.bfloat16), Library.open(library.path), "uniform") as model:
        assert logits(model).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mix", ["outputs", "factors"])
def test_half_precision_computes_in_half_and_routes_in_full(mix, dtype, toy_library):
    base = pico_base(dtype=dtype)
    before = hash_of(base.hf)
    with route(base, toy_library, "arrow:top_k=2", mix=mix) as model:
        found = logits(model)
        assert found.dtype == dtype
        assert found.isfinite().all()
        for layer in model._attachment.layers.values():
            assert layer.bank.a.dtype == dtype
            assert layer.gate.vectors.dtype == torch.float32
            h = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
            routing = layer.gate(h, None)
            scores = (h.float() @ layer.gate.vectors.T).abs()
            assert routing.weights.dtype == torch.float32
            assert torch.equal(routing.experts, scores.topk(2)[1])
        assert hash_of(base.hf) == before
    full = pico_base()
    with route(full, toy_library, "arrow:top_k=2", mix=mix) as model:
        exact = logits(model)
    assert (found.float() - exact).norm() / exact.norm() < (0.2 if dtype == torch.bfloat16 else 0.03)


# ---- blocks that flatten their tokens -----------------------------------------------------------


@pytest.fixture
def flattening():
    """A base whose feed-forward blocks hand over (B * T, d)."""
    sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = OPTConfig(**sizes, vocab_size=258, word_embed_proj_dim=32, max_position_embeddings=256, init_std=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(config)
    return BaseModel(hf, pico_tokenizer(), "pico-opt")


@pytest.mark.parametrize("router", ["compass:n_texts=4,n_tokens=8", "arrow", "oracle", "task_predictor"])
@pytest.mark.parametrize("targets", [["fc1", "fc2"], ["q_proj", "fc1"]])
def test_rows_are_told_apart_where_a_block_flattens_them(router, targets, flattening, tmp_path):
    library = random_library(tmp_path / "lib", flattening, 3, targets=targets)
    names = ["e0", "e1", "e2"]
    tasks = Tasks(Task(name, train=(Example(f"{name} asks", "say", name),)) for name in names)
    with route(flattening, library, router, tasks=tasks) as model, torch.inference_mode():
        together = model(IDS, tasks=names).logits
        for i, name in enumerate(names):
            alone = model(IDS[i : i + 1], tasks=[name]).logits
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("router", ["compass:n_texts=4,n_tokens=8", "oracle"])
def test_some_tokens_without_their_rows_are_refused(router, flattening, tmp_path):
    library = random_library(tmp_path / "lib", flattening, 2, targets=["fc1"])
    with route(flattening, library, router) as model:
        flattening.hf.model.decoder.layers[0].fc1.register_forward_pre_hook(lambda _, args: (args[0][:5],))
        with pytest.raises(LoraryError) as caught:
            model(IDS, tasks=["e0", "e1", "e0"])
        assert str(caught.value) == (
            "error[E-ROWS] site 'model.decoder.layers.0.fc1' is given 5 tokens of (3, 8): this router must know whose "
            "they are. Use a router that looks at each token alone, such as arrow, or experts without this site."
        )
