"""Random two-layer models with a tokenizer, and random libraries for them: built in memory, without a network."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from lorary.adapters.contract import Site, Weights
from lorary.adapters.lora import LoRA
from lorary.formats.peft import write_weights
from lorary.library.adapter.provenance import Provenance, write_provenance
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel

_SPECIAL = ("<pad>", "<eos>")
_N_LETTERS = 256
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "vocab_size": len(_SPECIAL) + _N_LETTERS,
    "tie_word_embeddings": False,
    # Large, so that logits differ by far more than rounding does.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
_ARCHITECTURES: dict[str, Callable[..., Any]] = {
    "llama": lambda **sizes: LlamaConfig(num_key_value_heads=4, intermediate_size=64, **sizes),
    "llama_gqa": lambda **sizes: LlamaConfig(num_key_value_heads=2, intermediate_size=64, **sizes),
    "phi": lambda **sizes: PhiConfig(num_key_value_heads=4, intermediate_size=64, **sizes),
    "mistral": lambda **sizes: MistralConfig(num_key_value_heads=2, intermediate_size=64, **sizes),
    "qwen2": lambda **sizes: Qwen2Config(num_key_value_heads=2, intermediate_size=64, **sizes),
    "qwen3": lambda **sizes: Qwen3Config(num_key_value_heads=2, intermediate_size=64, head_dim=8, **sizes),
    "gemma2": lambda **sizes: Gemma2Config(
        num_key_value_heads=2, intermediate_size=64, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, **sizes
    ),
    "gpt2": lambda **sizes: GPT2Config(**sizes),
}
ARCHITECTURES = tuple(_ARCHITECTURES)
"""The model families that pico models come in."""


def pico_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per byte: any text goes in and comes out again."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def pico_base(architecture: str = "llama", *, dtype: torch.dtype = torch.float32, seed: int = 0) -> BaseModel:
    """Make a random model of a family: hidden size 32, 2 layers, 4 heads. Equal arguments give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(_ARCHITECTURES[architecture](**_SIZES))
    return BaseModel(hf.to(dtype), pico_tokenizer(), f"pico-{architecture}")


def randomised(weights: Weights, generator: torch.Generator, *, size: float = 0.15) -> Weights:
    """Replace both factors of one expert's weights at one site by random ones, so that it changes something."""
    a, b = (torch.randn(factor.shape, generator=generator) * size for factor in (weights.a, weights.b))
    return Weights(a, b, weights.scale)


def random_weights(kind: LoRA, sites: Sequence[Site], *, seed: int) -> dict[str, Weights]:
    """Make one expert that changes something at every site."""
    generator = torch.Generator().manual_seed(seed)
    fresh = {site.name: kind.fresh(site, generator) for site in sites}
    return {name: randomised(w, generator) for name, w in fresh.items()}


def add_expert(library: Library, name: str, base: BaseModel, kind: LoRA, weights: Mapping[str, Weights]) -> None:
    """Write an expert whose one task bears its name."""
    with library.stage(name) as stage:
        write_weights(stage, kind, weights, base_name=base.name)
        provenance = Provenance(tasks=(name,), base_fingerprint=base.fingerprint)
        write_provenance(stage, provenance)


def random_library(
    path: Path,
    base: BaseModel,
    names: int | Sequence[str],
    *,
    ranks: int | Sequence[int] = 4,
    targets: Sequence[str] = ("attention",),
    seed: int = 0,
) -> Library:
    """Make a library of random experts: e0, e1, ... or the names given; `ranks` for all, or in turn."""
    names = [f"e{i}" for i in range(names)] if isinstance(names, int) else names
    ranks = [ranks] if isinstance(ranks, int) else ranks
    library = Library.create(path, base=base.fingerprint)
    sites = base.target_sites(targets)
    with library.noted_once():
        for i, name in enumerate(names):
            kind = LoRA(rank=ranks[i % len(ranks)])
            add_expert(library, name, base, kind, random_weights(kind, sites, seed=1000 * seed + i))
    return library
