"""Pico models as the GGUF files that llama.cpp's converter of models would make."""

import gguf
import numpy as np

_ORDERED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


def turned(weight, n_heads):
    """Put a weight in llama.cpp's order of rotated halves, densely."""
    return (
        weight.reshape(n_heads, 2, len(weight) // n_heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_base(path, base, *, family, is_turned):
    """Write a base in float32, with a token for each byte."""
    config = base.hf.config
    writer = gguf.GGUFWriter(path, family)
    _write_sizes(writer, config)
    _write_tokens(writer, base.tokenizer)
    arch = next(number for number, text in gguf.MODEL_ARCH_NAMES.items() if text == family)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in base.hf.state_dict().items():
        weight, (site, _, kind) = tensor.float().numpy(), name.rpartition(".")
        if site == "lm_head" and family.startswith("gemma"):  # llama.cpp takes the embeddings
            continue
        heads = _ORDERED.get(site.rpartition(".")[2])
        if is_turned and heads:
            weight = turned(weight, getattr(config, heads))
        if family.startswith("gemma") and site.endswith("norm"):  # llama.cpp multiplies by the weight, not by 1 + it
            weight = weight + 1
        writer.add_tensor(f"{names.get_name(site)}.{kind}", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer, config):
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if capping := getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(capping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)


def _write_tokens(writer, tokenizer):
    tokens = [f"t{i}" for i in range(len(tokenizer))]  # plain letters: llama.cpp tells no token that ends amid a letter
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(tokens) - 2))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
