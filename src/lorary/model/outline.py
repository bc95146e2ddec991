"""A base without its weights: what can be known of it when nothing is downloaded, converted or loaded."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorary.model.base_model import EMBEDDED_HUB_ID, BaseModel
from lorary.model.embedded import EMBEDDED, cache_directory


def name_of(base: str) -> str:
    """Say what a base that is asked for by this name calls itself once it is loaded."""
    return EMBEDDED_HUB_ID if base == EMBEDDED else base


def outline(base: str) -> BaseModel | None:
    """Make a base whose tensors have shapes and no numbers, with its tokenizer; None if it isn't on this machine.

    It lists sites and counts tokens as the real one; it has no fingerprint and computes nothing. Asks no network.
    """
    source = str(cache_directory() / EMBEDDED) if base == EMBEDDED else base
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError):
        return None
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config)
    return BaseModel(hf, tokenizer, name_of(base))
