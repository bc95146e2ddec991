"""Adapters on the fused experts of a mixture of experts: routed as PEFT applies them, by token and by expert.

What has no slices in a base is refused for that, and for nothing else.
"""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, Qwen3MoeConfig

import lorary as lo
from lorary.adapters.products import thin_svd
from lorary.errors import LoraryError
from lorary.formats.peft import read_weights
from lorary.library.adapter.provenance import Provenance, write_provenance
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.base.outline import sizes
from lorary.model.sites import mixture_parameters
from lorary.testing.families import pico_family_hf
from lorary.testing.pico import pico_tokenizer

SIZES = {
    "vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
    "initializer_range": 0.2,
}  # fmt: skip
CONFIGS = {
    "mixtral": lambda: MixtralConfig(**SIZES, num_local_experts=4),
    "qwen3_moe": lambda: Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=24, head_dim=8),
    "gpt_oss": lambda: GptOssConfig(**SIZES, num_local_experts=4, head_dim=8),
}
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KINDS = {
    "both, and a layer": {
        "r": 4, "target_modules": ["q_proj"], "target_parameters": BOTH, "rank_pattern": {r".*\.gate_up_proj": 8},
    },
    "down alone": {"r": 2, "target_modules": [], "target_parameters": BOTH[1:], "use_rslora": True},
    "up in one layer": {
        "r": 3, "target_modules": [], "target_parameters": ["0.mlp.experts.gate_up_proj"],
        "alpha_pattern": {"gate_up_proj": 7},
    },
}  # fmt: skip
IDS = torch.randint(10, 250, (2, 9), generator=torch.Generator().manual_seed(3))
EXAMPLES = (lo.Example("copy: a b", "a b", "ant"), lo.Example("last: a longer prompt than that", "x", "bee"))
NEAR = 2e-5
"""How far apart logits of size 10 may be: other sums, other roundings."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated",
    "ignore:Could not find a config",
    "ignore:The following (rank|alpha)_pattern keys did not match",
)


def model_of(family):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()


def base_of(family):
    return BaseModel(model_of(family), pico_tokenizer(), family)


def trained(directory, family, seed, **where):
    """Let PEFT write an adapter of random numbers; its logits."""
    model = get_peft_model(model_of(family), LoraConfig(task_type="CAUSAL_LM", **where))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
    model.save_pretrained(directory)
    write_provenance(directory, Provenance(tasks=(directory.name,)))
    return logits_of(model.eval())


def logits_of(model, **options):
    with torch.inference_mode():
        return model(IDS, **options).logits


def near(one, other):
    return (one - other).abs().max() < NEAR


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A Mixtral, a library of three experts on it, two of which sit on a layer too, and what PEFT answers with each."""
    place, base = tmp_path_factory.mktemp("zoo"), base_of("mixtral")
    library, answers = Library.create(place / "lib", base=base.fingerprint), {}
    for seed, name in enumerate(["ant", "bee", "cat"]):
        layers = ["q_proj"] if seed else []
        answers[name] = trained(place / name, "mixtral", seed, r=4, target_modules=layers, target_parameters=BOTH)
        library.add(place / name, name, base=sizes(base))
    return base, library, answers


# ---- one expert -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "kind"), [*(("mixtral", kind) for kind in KINDS), *((one, next(iter(KINDS))) for one in CONFIGS)][1:]
)
def test_one_expert_answers_as_under_peft_and_is_exported_and_merged_as_it_is(family, kind, tmp_path):
    expected, base = trained(tmp_path / "a", family, 0, **KINDS[kind]), base_of(family)
    plain = logits_of(base.hf)
    assert (expected - plain).abs().max() > 0.1
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    library.add(tmp_path / "a", "a", base=sizes(base))
    for router in ("uniform", "arrow:top_k=1"):
        with lo.route(base, library, router) as model:
            assert near(logits_of(model), expected)
    assert torch.equal(logits_of(base.hf), plain)
    library["a"].copy_to(tmp_path / "copy")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "copy" / weights).read_bytes() == (tmp_path / "a" / weights).read_bytes()
    lo.export(library, into=tmp_path / "out")
    assert near(logits_of(PeftModel.from_pretrained(model_of(family), tmp_path / "out").eval()), expected)


@pytest.mark.slow
def test_the_experts_of_other_implementations_are_the_same(zoo, tmp_path):
    base, library, _ = zoo
    answers = []
    for implementation in ("eager", "grouped_mm", "batched_mm"):
        base.hf.set_experts_implementation(implementation)
        plain = logits_of(base.hf)
        with lo.route(base, library, "uniform") as model:
            answers.append((logits_of(model), plain))
    assert all(near(one, answers[0][0]) and near(plain, answers[0][1]) for one, plain in answers)


# ---- several --------------------------------------------------------------------------------------


def dense_arrow(base, experts, top_k):
    """Answer as Arrow does, with every product B A written out and every token on its own."""
    hf = model_of("mixtral")
    sites = {site: {name: w.delta() for name, w in of.items()} for site, of in by_site(experts).items()}

    def product(site, x, y):
        if site not in sites:
            return y
        deltas = [sites[site][name] for name in sorted(sites[site])]
        directions = torch.stack([torch.linalg.svd(delta)[2][0] for delta in deltas])
        for t in range(len(x)):
            scores, chosen = (directions @ x[t]).abs().topk(min(top_k, len(deltas)))
            for weight, i in zip(scores.softmax(0), chosen.tolist(), strict=True):
                y[t] = y[t] + weight * (deltas[i] @ x[t])
        return y

    def experts_of(path, module):
        def forward(hidden, index, weights):
            out = torch.zeros_like(hidden)
            for t in range(len(hidden)):
                for number, weight in zip(index[t].tolist(), weights[t], strict=True):
                    x = hidden[t : t + 1]
                    for parameter in mixture_parameters(module):
                        y = x @ getattr(module, parameter)[number].T
                        x = product(f"{path}.{parameter}.{number}", x, y)
                        x = module._apply_gate(x) if parameter == "gate_up_proj" else x
                    out[t] += weight * x[0]
            return out

        return forward

    for path, module in hf.named_modules():
        if path.endswith(".experts"):
            module.forward = experts_of(path, module)
        elif path in sites:
            module.register_forward_hook(
                lambda _, args, y, path=path: product(path, args[0].flatten(0, 1), y.flatten(0, 1)).view_as(y)
            )
    return logits_of(hf)


def by_site(experts):
    found = {}
    for name, weights in experts.items():
        for site, w in weights.items():
            found.setdefault(site, {})[name] = w
    return found


@pytest.mark.slow
def test_arrow_chooses_for_each_token_at_each_of_the_mixtures_own_experts(zoo):
    base, library, _ = zoo
    experts = {name: read_weights(library[name]) for name in library}
    with lo.route(base, library, "arrow:top_k=2", mix="outputs") as model:
        assert near(logits_of(model), dense_arrow(base, experts, 2))


def test_the_oracle_gives_each_row_its_own_expert(zoo):
    base, library, answers = zoo
    with lo.route(base, library, "oracle") as model:
        found = logits_of(model, tasks=["ant", "cat"])
    assert near(found[0], answers["ant"][0]) and near(found[1], answers["cat"][1])


@pytest.mark.parametrize("router", [pytest.param("uniform", marks=pytest.mark.slow), "arrow:top_k=2", "oracle"])
def test_rows_are_independent_and_a_cache_changes_nothing(router, zoo):
    base, library, _ = zoo
    with lo.route(base, library, router, mix="outputs") as model:
        together, alone = (model.log_likelihood(EXAMPLES), [model.log_likelihood([e])[0] for e in EXAMPLES])
        assert all(abs(one.nats - other.nats) < 1e-4 for one, other in zip(together, alone, strict=True))
        texts = model.generate_text(EXAMPLES, max_new_tokens=5)
        assert texts == [model.generate_text([e], max_new_tokens=5)[0] for e in EXAMPLES]
        tasks = {"tasks": ["ant", "cat"]} if router == "oracle" else {}
        wanted = {"max_new_tokens": 4, "do_sample": False, **tasks}
        assert torch.equal(model.generate(IDS, **wanted), model.generate(IDS, use_cache=False, **wanted))


def test_it_is_saved_edited_paged_and_doubled_like_any_other(zoo, tmp_path):
    base, library, _ = zoo
    with lo.route(base, library, "arrow:top_k=2") as model:
        answer = logits_of(model)
        assert torch.equal(logits_of(model.twin()), answer)
        model.save(tmp_path / "saved")
        model.remove("ant")
        assert not near(logits_of(model), answer)
        model.add(library["ant"])
        assert torch.equal(logits_of(model), answer)
    with lo.load(tmp_path / "saved", base=base) as model:
        assert torch.equal(logits_of(model), answer)
    with lo.route(base, library, "arrow:top_k=2", memory="16KB") as model:
        assert near(logits_of(model), answer)


def test_what_was_trained_through_it_is_saved(zoo, tmp_path):
    base, library, _ = zoo
    with lo.route(base, library, "uniform") as model:
        before = logits_of(model)
        site = "model.layers.0.mlp.experts.down_proj.3"
        model._attachment.layers[site].bank.b.data *= 3
        answer = logits_of(model)
        assert not near(answer, before)
        model.save(tmp_path / "saved")
    with lo.load(tmp_path / "saved", base=base) as model:
        assert torch.equal(logits_of(model), answer)


def test_it_tells_who_spoke_by_parameter_and_exports_what_was_told(zoo, tmp_path):
    base, library, _ = zoo
    with lo.route(base, library, "arrow:top_k=2") as model:
        trace = model.explain("hello", max_new_tokens=0)
        shares = model.choices(["hello", "and more"])
        assert sum(model.shares().values()) == pytest.approx(1, abs=1e-5)
    parameters = {f"model.layers.{n}.{name}" for n in range(2) for name in BOTH}
    assert parameters < set(trace.sites) and torch.allclose(trace.weights.sum(-1), torch.ones(()), atol=1e-5)
    lo.export(library, shares, into=tmp_path / "out", mix="outputs")
    assert Library.create(tmp_path / "again").add(tmp_path / "out", "out", base=sizes(base))
    some = {"model.layers.1.mlp.experts.down_proj.0": {"cat": 1.0}}  # how many there are is written all the same
    lo.export(library, some, into=tmp_path / "some")
    opened = PeftModel.from_pretrained(model_of("mixtral"), tmp_path / "some").eval()
    assert not near(logits_of(opened), logits_of(base.hf))


@pytest.mark.parametrize("method", ["uniform", pytest.param("svd:rank=2", marks=pytest.mark.slow)])
def test_merges_are_written_as_peft_has_them(method, zoo, tmp_path):
    base, library, _ = zoo
    merged = lo.build(method, lo.Tasks([]), base, source=library, into=tmp_path / "merged")
    name = sorted(merged)[0]
    lone = Library.create(tmp_path / "lone", base=base.fingerprint)
    lone.add(merged[name].directory, name, base=sizes(base))
    with lo.route(base, lone, "uniform") as model:
        expected = logits_of(model)
    assert near(logits_of(PeftModel.from_pretrained(model_of("mixtral"), str(lone[name].directory)).eval()), expected)
    if method.startswith("svd"):
        site = "model.layers.0.mlp.experts.gate_up_proj.2"
        mine, of_all = read_weights(lone[name])[site], read_weights(library[name])[site]
        best = thin_svd(of_all.a, of_all.scale * of_all.b).keep(2)[0]
        assert torch.allclose(mine.delta(), best.delta(), atol=1e-5)


# ---- what is refused ------------------------------------------------------------------------------


def refusal(code, words, run):
    with pytest.raises(LoraryError) as caught:
        run()
    assert caught.value.code == code and words in str(caught.value), str(caught.value)
    return str(caught.value)


def test_routers_that_need_all_tokens_are_refused_with_the_one_to_take(zoo):
    base, library, _ = zoo
    message = refusal("E-ROWS", "such as arrow", lambda: lo.route(base, library, "compass:n_texts=4,n_tokens=12"))
    assert "model.layers.0.mlp.experts.down_proj.0" in message
    assert not any(hasattr(module, "slot") for module in base.hf.modules())


def test_trainings_that_start_from_it_are_refused(zoo, tmp_path):
    base, library, _ = zoo
    tasks = lo.Tasks([lo.Task(name, train=EXAMPLES[:1]) for name in library])
    words = "of a mixture of experts, where experts are routed, but not trained"
    for method in ("lib_mu:steps=1", "phatgoose:steps=1"):
        run = lambda method=method: lo.build(method, tasks, base, source=library, into=tmp_path / method[:5])  # noqa: E731
        refusal("E-FEATURE", words, run)


def changed(zoo, tmp_path, *, tensors=None, **config):
    """An expert of the zoo with another config, or some of its tensors."""
    _, library, _ = zoo
    source, directory = library["ant"].directory, tmp_path / "odd"
    directory.mkdir()
    told = json.loads((source / "adapter_config.json").read_text()) | config
    (directory / "adapter_config.json").write_text(json.dumps(told))
    kept = {key: t for key, t in load_file(source / "adapter_model.safetensors").items() if not tensors or tensors(key)}
    save_file(kept, directory / "adapter_model.safetensors")
    return directory


FAULTS = {
    "r of more experts": ({"r": 2}, "E-SHAPE", "by its rank the adapter is for 8 experts, the base has 4"),
    "r of none": ({"r": 7}, "E-RANK", "config r=7, tensors have rank 16"),
    "another parameter": (
        {"target_parameters": [*BOTH, "mlp.gate.weight"]}, "E-FEATURE",
        "target_parameters ('mlp.gate.weight'): of parameters, only those of a mixture's experts can be routed",
    ),
    "no name": ({"target_parameters": "mlp.experts"}, "E-FEATURE", "target_parameters ("),
    "half of it": (
        {"tensors": lambda key: "base_layer" not in key}, "E-KEYS", "2 of 4 targeted parameters have no tensors"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_told(fault, zoo, tmp_path):
    change, code, words = FAULTS[fault]
    directory = changed(zoo, tmp_path, **change)
    refusal(code, words, lambda: Library.create(tmp_path / "lib").add(directory, "odd", base=sizes(zoo[0])))


def test_a_base_of_fewer_experts_is_told_when_it_is_routed(zoo, tmp_path):
    _, library, _ = zoo
    other = BaseModel(
        AutoModelForCausalLM.from_config(MixtralConfig(**SIZES, num_local_experts=6)), pico_tokenizer(), "six"
    )
    plain = Library.create(tmp_path / "lib")
    plain.add(library["ant"].directory, "ant")
    refusal("E-SHAPE", "is for 4 experts of a mixture", lambda: lo.route(other, plain, "uniform"))


def test_a_base_that_computes_them_in_its_own_way_is_told(zoo, tmp_path):
    base = BaseModel(pico_family_hf("llama4"), pico_tokenizer(), "llama4")
    assert not base.slices
    words = "none of which is a plain matrix of the base, can't be routed"
    library = Library.create(tmp_path / "lib")
    refusal("E-FEATURE", words, lambda: library.add(zoo[1]["ant"].directory, "ant", base=sizes(base)))


@pytest.mark.parametrize("names", [("w1", "w2", "w3"), ("gate_proj", "down_proj", "up_proj")])
def test_those_of_older_versions_are_refused_with_what_makes_them_new(names, tmp_path):
    tensors, generator = {}, torch.Generator().manual_seed(0)
    for name, d_in, d_out in zip(names, (32, 64, 32), (64, 32, 64), strict=True):
        for place in range(8):
            path = f"base_model.model.model.layers.{place // 4}.block_sparse_moe.experts.{place % 4}.{name}"
            tensors[f"{path}.lora_A.weight"] = torch.randn(2, d_in, generator=generator) * 0.2
            tensors[f"{path}.lora_B.weight"] = torch.randn(d_out, 2, generator=generator) * 0.2
    (tmp_path / "a").mkdir()
    save_file(tensors, tmp_path / "a" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": list(names)}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    base, library = base_of("mixtral"), Library.create(tmp_path / "lib")
    message = refusal(
        "E-FEATURE", "which this base keeps in one parameter, can't be routed",
        lambda: library.add(tmp_path / "a", "poems", base=sizes(base)),
    )  # fmt: skip
    assert "Also E-" not in message and "Open it on this base in PEFT and save it again" in message
    library.add(tmp_path / "a", "poems")
    refusal("E-FEATURE", "which this base keeps in another form: it can't be routed", lambda: lo.route(base, library))
    if names[0] != "w1":
        return  # of another family, which PEFT doesn't convert for this one
    theirs = PeftModel.from_pretrained(model_of("mixtral"), str(tmp_path / "a")).eval()  # the hint, followed
    theirs.save_pretrained(tmp_path / "again")
    again = Library.create(tmp_path / "lib2", base=base.fingerprint)
    again.add(tmp_path / "again", "poems", base=sizes(base))
    with lo.route(base, again, "uniform") as model:
        assert near(logits_of(model), logits_of(theirs)) and not near(logits_of(model), logits_of(model_of("mixtral")))
