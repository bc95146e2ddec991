"""Tiny random models of forty model families: the bases that docs/reference/families.md tells of."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from lorary.model.base.base_model import BaseModel
from lorary.testing.pico import pico_tokenizer

_HF: Any = transformers
_COMMON: dict[str, Any] = {
    "vocab_size": 258, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "initializer_range": 0.2,
    "tie_word_embeddings": False,
}  # fmt: skip
_LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2}
_HEADS: dict[str, Any] = {**_LAYERS, "num_attention_heads": 4, "max_position_embeddings": 256}
_SIZES: dict[str, Any] = {**_HEADS, "intermediate_size": 64}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2}
_HEAD_8: dict[str, Any] = {**_GROUPED, "head_dim": 8}
_GEMMA: dict[str, Any] = {**_HEAD_8, "query_pre_attn_scalar": 8, "sliding_window": 16}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
_MLA: dict[str, Any] = {
    **_SIZES, "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_FALCON_H1: dict[str, Any] = {
    **_GROUPED, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}  # fmt: skip
_QWEN3_NEXT: dict[str, Any] = {
    **_HEAD_8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_BERT: dict[str, Any] = {**_LAYERS, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 258}


def _of(name: str, **sizes: Any) -> Callable[[], Any]:
    """Give the config of a family, by the name that its class has."""
    return lambda: getattr(_HF, f"{name}Config")(**{**_COMMON, **sizes})


def _gemma3_with_eyes() -> Any:
    text = _of("Gemma3Text", **_GEMMA)().to_dict()
    return _HF.Gemma3Config(
        text_config=text, vision_config=_VISION, mm_tokens_per_image=4, image_token_index=5, boi_token_index=6,
        eoi_token_index=7, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip


_CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": _of("Llama", **_GROUPED),
    "mistral": _of("Mistral", **_GROUPED),
    "qwen2": _of("Qwen2", **_GROUPED),
    "qwen3": _of("Qwen3", **_HEAD_8),
    "qwen3_moe": _of("Qwen3Moe", **_HEAD_8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "mixtral": _of("Mixtral", **_GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "olmoe": _of("Olmoe", **_GROUPED, num_experts=4, num_experts_per_tok=2),
    "gpt_oss": _of("GptOss", **_HEAD_8, num_local_experts=4, num_experts_per_tok=2, sliding_window=16),
    "llama4": _of(
        "Llama4Text", **_HEAD_8 | {"intermediate_size": 16}, intermediate_size_mlp=64, num_local_experts=2,
        num_experts_per_tok=1, layer_types=["full_attention", "full_attention"],
    ),
    "phimoe": _of("Phimoe", **_GROUPED, num_local_experts=4),
    "glm4_moe": _of(
        "Glm4Moe", **_HEAD_8, moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=1,
    ),
    "deepseek_v2": _of("DeepseekV2", **_MLA),
    "deepseek_v3": _of("DeepseekV3", **_MLA),
    "qwen3_next": _of("Qwen3Next", **_QWEN3_NEXT),
    "falcon_h1": _of("FalconH1", **_FALCON_H1),
    "mamba": _of("Mamba", **_LAYERS, state_size=8),
    "mamba2": _of("Mamba2", **_LAYERS, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=16),
    "rwkv": _of("Rwkv", **_LAYERS, attention_hidden_size=32, context_length=256, intermediate_size=64),
    "gemma2": _of("Gemma2", **_GEMMA),
    "gemma3_text": _of("Gemma3Text", **_GEMMA),
    "gemma3": _gemma3_with_eyes,
    "phi": _of("Phi", **_SIZES, num_key_value_heads=4),
    "phi3": _of("Phi3", **_GROUPED, original_max_position_embeddings=256),
    "stablelm": _of("StableLm", **_GROUPED),
    "olmo2": _of("Olmo2", **_GROUPED),
    "granite": _of("Granite", **_GROUPED),
    "cohere": _of("Cohere", **_GROUPED),
    "gpt2": _of("GPT2", **_GPT),
    "gpt_bigcode": _of("GPTBigCode", **_GPT),
    "gpt_neox": _of("GPTNeoX", **_SIZES),
    "gptj": _of("GPTJ", **_GPT, rotary_dim=4),
    "falcon": _of("Falcon", **_HEADS),
    "falcon_new": _of("Falcon", **_HEADS, new_decoder_architecture=True, num_kv_heads=2),
    "falcon_alibi": _of("Falcon", **_HEADS, alibi=True),
    "opt": _of("OPT", **_HEADS, ffn_dim=64, word_embed_proj_dim=32),
    "bloom": _of("Bloom", hidden_size=32, n_layer=2, n_head=4),
    "mpt": _of("Mpt", d_model=32, n_layers=2, n_heads=4, max_seq_len=256),
    "bert_lm_head": lambda: _HF.BertConfig(**_BERT, is_decoder=True, initializer_range=0.2),
    "bert": lambda: _HF.BertConfig(**_BERT, architectures=["BertForMaskedLM"]),
    "t5": lambda: _HF.T5Config(
        vocab_size=258, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0,
    ),
}  # fmt: skip
_CLASSES = {"bert_lm_head": "BertLMHeadModel", "bert": "BertForMaskedLM", "t5": "T5ForConditionalGeneration"}

FAMILIES = tuple(_CONFIGS)
"""Their names, as transformers calls them, save for variants."""


def pico_family_hf(name: str) -> Any:
    """Make a random model of a family, in float32: hidden size 32, 2 layers. Equal names give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = _CONFIGS[name]()
        own = _CLASSES.get(name)
        hf: Any = (getattr(_HF, own)(config) if own else _HF.AutoModelForCausalLM.from_config(config)).float()
        for weight in hf.parameters():  # large, so that logits differ by far more than rounding does
            if weight.dim() > 1 and weight.std() < 0.05:
                nn.init.normal_(weight, std=0.2)
    return hf


def pico_family(name: str) -> BaseModel:
    """Make a base of a family, with a tokenizer of one token per byte."""
    return BaseModel(pico_family_hf(name), pico_tokenizer(), f"pico-{name}")
