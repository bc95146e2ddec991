"""What is exported as GGUF, loaded by llama.cpp itself: it says what the mixture says, in each family."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig

import lorary as lo
from lorary.formats.gguf_lora import FAMILIES
from lorary.model.base.base_model import BaseModel
from lorary.model.base.packaged import SMOLLM2, find_packaged
from lorary.testing.pico import pico_base, pico_tokenizer, random_library

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
from golden_gguf import write_base
from golden_llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow
PROMPT = [5, 9, 77, 101, 200, 33, 150, 90]
TARGETS = ["attention", "gate_proj", "up_proj", "down_proj"]
SHARES = {"e0": 0.5, "e1": 2}


def make_base(family):
    if family == "gemma":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        sizes |= {"head_dim": 8, "intermediate_size": 64, "vocab_size": 258, "initializer_range": 0.3}
        torch.manual_seed(0)
        hf = AutoModelForCausalLM.from_config(GemmaConfig(**sizes, pad_token_id=0, bos_token_id=None, eos_token_id=1))
        return BaseModel(hf, pico_tokenizer(), "pico-gemma")
    base = pico_base({"llama": "llama_gqa"}.get(family, family))
    if family == "gemma2":
        base.hf.lm_head.weight.data.copy_(base.hf.model.embed_tokens.weight.data)  # llama.cpp knows no others
    return base


def log_probs(model, ids):
    """Give what a model says to each token after the prompt."""
    with torch.inference_mode():
        return model(torch.tensor([PROMPT + ids])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)


def assert_said(llama, model):
    ids, said = llama.go_on(PROMPT, 4)
    expected = log_probs(model, ids)
    found = torch.tensor([[step[token] for token in range(258)] for step in said])
    assert ids == found.argmax(-1).tolist() and len(ids) == 4
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_says_what_the_mixture_says(family, tmp_path):
    base = make_base(family)
    name, is_turned = FAMILIES[base.hf.config.model_type]
    write_base(tmp_path / "base.gguf", base, family=name, is_turned=is_turned)
    alone = assert_said(LlamaCpp(tmp_path / "base.gguf"), base.hf)  # so the file of the base is right
    library = random_library(tmp_path / "lib", base, 2, ranks=[2, 3], targets=TARGETS)
    lo.export_gguf(base, library, SHARES, into=tmp_path / "lora.gguf", mix="outputs")
    lo.export_merged(base, library, SHARES, into=tmp_path / "merged", mix="outputs")
    merged = lo.load_base(str(tmp_path / "merged"), device="cpu", dtype="float32")
    mixed = assert_said(LlamaCpp(tmp_path / "base.gguf", tmp_path / "lora.gguf"), merged.hf)
    assert (mixed[0] - alone[0]).abs().mean() > 0.5  # both of the same prompt


def test_the_embedded_base_in_llama_cpp_takes_an_export(tmp_path):
    model = find_packaged(SMOLLM2, code="E-EMBEDDED", what="this test", instead="")
    base = lo.load_base("smollm2-135m", device="cpu", dtype="float32")
    library = random_library(tmp_path / "lib", base, 1)
    lo.export_gguf(base, library, into=tmp_path / "lora.gguf")
    ids = base.tokenizer("The capital of France is")["input_ids"]
    with lo.route(base, library, "uniform") as routed, torch.inference_mode():
        expected = routed(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    far = {}
    for lora in (None, tmp_path / "lora.gguf"):
        _, (said,) = LlamaCpp(model, lora).go_on(ids, 1, n_probs=50)
        far[lora] = sum(abs(expected[token].item() - log_prob) for token, log_prob in said.items()) / len(said)
    # It multiplies by weights of 4 bits what it has rounded to 8.
    assert far[tmp_path / "lora.gguf"] < 0.3 and far[None] > 1
