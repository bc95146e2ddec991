"""A base without its weights: what can be known of it when nothing is downloaded, converted or loaded."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorary.library.base_names import shared_name
from lorary.model.base.base_model import BaseModel
from lorary.model.base.config import NO_CODE, asks_for_code, code_refused, read_config
from lorary.model.base.embedded_needs import EMBEDDED, EMBEDDED_HUB_ID, embedded_place
from lorary.model.base.named_bases import called


def name_of(base: str) -> str:
    """Say what a base that is asked for by this name calls itself once it is loaded."""
    return EMBEDDED_HUB_ID if base == EMBEDDED else shared_name(called(base))


def outline(base: str) -> BaseModel | None:
    """Make a base whose tensors have shapes and no numbers, with its tokenizer; None if it isn't on this machine.

    It lists sites and counts tokens as the real one; it has no fingerprint and computes nothing. Asks no network.
    Raises E-CODE for a base that would need code of its own, E-LIMIT for one that claims too many layers.
    """
    source, what = str(embedded_place()) if base == EMBEDDED else base, f"base {base!r}"
    try:
        config = read_config(source, what, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, **NO_CODE)
        with torch.device("meta"):
            hf = AutoModelForCausalLM.from_config(config, **NO_CODE)
    except (OSError, ValueError, KeyError) as error:
        if asks_for_code(error):
            raise code_refused(what) from error
        return None
    return BaseModel(hf, tokenizer, name_of(base))


def bytes_of(base: BaseModel | str) -> int:
    """Tell how much room it takes to read a base in float32, whatever it is turned to; 0 where it isn't at hand."""
    found = base if isinstance(base, BaseModel) else outline(base)
    return sum(4 * p.numel() for p in found.hf.parameters()) if found is not None else 0


def sizes(base: BaseModel) -> dict[str, tuple[int, int]]:
    """Give (d_in, d_out) wherever it takes experts, by which `lorary.check` tells whether an adapter fits."""
    return {name: (site.d_in, site.d_out) for name, site in base.routable.items()}
