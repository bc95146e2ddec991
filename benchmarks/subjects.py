"""What is measured: random experts, a routed layer, a whole routed model, and PEFT's Arrow over the same weights."""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
from peft import ArrowConfig, LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from lorary.adapters.contract import Experts, Mix, Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing import compiled
from lorary.model.attached.attachment import Attachment, RoutedLinear
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import State
from lorary.routing.routers.arrow import Arrow
from lorary.testing.pico import pico_tokenizer

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def smollm2_shape(n_layers: int = 30, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Make a random model of SmolLM2-135M's shape."""
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=n_layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(dtype).eval()


def without_operators() -> AbstractContextManager[Any]:
    """Leave the compiled operators out, built or not."""
    return patch.object(compiled, "_operators", lambda: None)


def twin(hf: nn.Module) -> Any:
    """Copy a model's modules, not its weights: what is measured reads the same memory."""
    return copy.deepcopy(hf, {id(p): p for p in hf.parameters()})


def random_experts(sites: Mapping[str, Site], n: int, rank: int = 4, *, seed: int = 0) -> Experts:
    """Make n experts that change something at every site; names sort as the numbers do."""
    g = torch.Generator().manual_seed(seed)
    return {
        f"e{i:05d}": {
            name: Weights(
                torch.randn(rank, s.d_in, generator=g) / s.d_in**0.5,
                torch.randn(s.d_out, rank, generator=g) * 0.05,
                2.0,
            )
            for name, s in sites.items()
        }
        for i in range(n)
    }


def routed_layer(
    linear: nn.Linear, n: int, *, rank: int = 4, k: int = 4, mix: Mix = "outputs", trainable: bool = False
) -> tuple[RoutedLinear, Tensor]:
    """Put n experts and Arrow over one linear layer; gives the layer and its prototypes (n, d_in)."""
    site = Site("layer", linear.in_features, linear.out_features)
    experts = random_experts({"layer": site}, n, rank)
    router = Arrow(top_k=k)
    state = router.fit(experts, {"layer": site}, None)
    bank = LowRankBank([experts[e]["layer"] for e in experts], site).cast(linear.weight.dtype)
    gate = router.gate(site, state, sorted(experts))
    bank.tune(gate.n_chosen)
    return RoutedLinear("layer", linear, bank.requires_grad_(trainable), gate, Slot(mix)), state["layer.vectors"]


def routed_model(
    hf: Any, n: int, *, k: int = 4, mix: Mix = "outputs", targets: tuple[str, ...] = ATTENTION
) -> tuple[Any, Experts, State]:
    """Route n random experts into a twin of a model."""
    base = BaseModel(twin(hf), pico_tokenizer(), "smollm2-shape")
    sites = {name: s for name, s in base.sites.items() if name.rpartition(".")[2] in targets}
    experts = random_experts(sites, n)
    router = Arrow(top_k=k)
    state = router.fit(experts, sites, None)
    parts = {
        name: (
            LowRankBank([experts[e][name] for e in experts], site).cast(base.dtype),
            router.gate(site, state, sorted(experts)),
        )
        for name, site in sites.items()
    }
    Attachment(base.hf, parts, Slot(mix))
    return base.hf, experts, state


def peft_arrow(module: nn.Module, experts: Experts, state: State, *, k: int = 4) -> nn.Module:
    """Let PEFT's Arrow run over the same experts and prototypes.

    They are put in place directly: its own loading is quadratic in the number of experts, and its own prototypes come
    from a random start.
    """
    names = [f"task_{i}" for i in range(len(experts))]
    first = next(iter(experts.values()))
    arrow_config = ArrowConfig(top_k=k)
    arrow_config.task_adapter_names, arrow_config.gks_adapter_names = names[:1], []
    config = LoraConfig(
        arrow_config=arrow_config,
        target_modules=sorted(first),
        r=4,
    )
    model = get_peft_model(module, config, adapter_name="arrow_router").eval()
    for site in first:
        layer: Any = model.get_submodule(f"base_model.model.{site}")
        for name, expert in zip(names, experts.values(), strict=True):
            w = expert[site]
            assert isinstance(w, Weights)
            layer.lora_A[name], layer.lora_B[name] = _linear(w.a), _linear(w.b)
            layer.scaling[name] = w.scale
        arrow = layer.lora_arrow["arrow_router"]
        arrow.task_adapter_names = names
        arrow.register_buffer("prototypes", state[f"{site}.vectors"], persistent=False)
        arrow._protos_ready = True
    return model


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
