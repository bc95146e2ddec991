"""Adapters on the experts of a mixture of experts: refused for that, wherever they are met, and for nothing else."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, Qwen3MoeConfig

import lorary as lo
from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.testing.pico import pico_tokenizer

SIZES = {
    "vocab_size": 258, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip
CONFIGS = {
    "mixtral": lambda: MixtralConfig(**SIZES, num_local_experts=4),
    "qwen3_moe": lambda: Qwen3MoeConfig(**SIZES, num_experts=4, moe_intermediate_size=24, head_dim=8),
    "gpt_oss": lambda: GptOssConfig(**SIZES, num_local_experts=4, head_dim=8),
}
QUIET = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated",
    "ignore:Could not find a config",
    "ignore:The following (rank|alpha)_pattern keys did not match",
)


def model_of(family):
    return AutoModelForCausalLM.from_config(CONFIGS[family]())


def sizes_of(base):
    return {name: (site.d_in, site.d_out) for name, site in base.sites.items()}


def only_reason(caught, words):
    message = str(caught.value)
    assert message.startswith("error[E-FEATURE] expert 'poems'") and words in message
    assert "Also E-" not in message and "E-REGEX" not in message and "E-TARGET" not in message


@QUIET
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("targets", ["all-linear", "parameters"])
def test_what_peft_writes_is_refused_for_its_parameters(family, targets, tmp_path):
    where = {"target_modules": "all-linear"}
    if targets == "parameters":
        named = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        where = {"target_modules": ["q_proj"], "target_parameters": named, "rank_pattern": {r".*\.gate_up_proj": 8}}
    get_peft_model(model_of(family), LoraConfig(r=4, **where, task_type="CAUSAL_LM")).save_pretrained(tmp_path / "a")
    base = BaseModel(model_of(family), pico_tokenizer(), family)
    library = Library.create(tmp_path / "lib")
    if not json.loads((tmp_path / "a" / "adapter_config.json").read_text())["target_parameters"]:
        library.add(tmp_path / "a", "poems", base=sizes_of(base))  # PEFT leaves these experts alone
        return
    for facts in (None, sizes_of(base)):
        with pytest.raises(LoraryError) as caught:
            library.add(tmp_path / "a", "poems", base=facts)
        only_reason(caught, "factors on parameters that are no linear layers can't be routed")


@pytest.mark.parametrize("names", [("w1", "w2", "w3"), ("gate_proj", "down_proj", "up_proj")])
def test_those_of_older_versions_are_refused_where_the_base_is_known(names, tmp_path):
    tensors = {}
    for name, d_in, d_out in zip(names, (32, 64, 32), (64, 32, 64), strict=True):
        for part in range(4):
            path = f"base_model.model.model.layers.0.block_sparse_moe.experts.{part}.{name}"
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = (
                torch.ones(2, d_in),
                torch.ones(d_out, 2),
            )
    (tmp_path / "a").mkdir()
    save_file(tensors, tmp_path / "a" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": list(names)}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config))
    base, library = BaseModel(model_of("mixtral"), pico_tokenizer(), "mixtral"), Library.create(tmp_path / "lib")
    with pytest.raises(LoraryError) as caught:
        library.add(tmp_path / "a", "poems", base=sizes_of(base))
    only_reason(caught, "which this base keeps in one parameter, can't be routed")
    library.add(tmp_path / "a", "poems")
    with pytest.raises(LoraryError) as caught:
        lo.route(base, library)
    only_reason(caught, "of a mixture of experts, which this base keeps in one parameter: it can't be routed")
