"""What must hold of a base before anybody works with it: whole, causal, with a tokenizer that fits."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorary.errors import LoraryError, ModelError
from lorary.library.findings import some
from lorary.model.base_config import NO_CODE, asks_for_code, code_refused, read_config

_HINT = "Give a causal language model."
_INSTALL = "Install the package that this names, in the environment of lorary."
_SAVE_AGAIN = "Save the base again, whole: weights, config.json and tokenizer by the same program."


def open_base(source: str, name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Open model and tokenizer, on the CPU; `name` is what messages call them. Raises E-BASE.

    Transformers draws at random what a checkpoint lacks, leaves out what it doesn't know, and only logs it.
    """
    with _loading(f"base {name!r}"):
        config = read_config(source, f"base {name!r}")
        opened: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **NO_CODE
        )
    hf, told = opened
    _check_whole(name, hf, told)
    with _loading(f"base {name!r}"):
        is_causal = _is_causal(hf)
    if not is_causal or hf.get_output_embeddings() is None:
        what = f"base {name!r}: {type(hf).__name__} is no causal language model: what comes later changes what is said."
        raise ModelError("E-BASE", what, _HINT)
    with _loading(f"the tokenizer of base {name!r}"):
        tokenizer = AutoTokenizer.from_pretrained(source, **NO_CODE)
    _check_tokenizer(name, hf, tokenizer)
    return hf, tokenizer


@contextmanager
def _loading(what: str) -> Iterator[None]:
    try:
        yield
    except LoraryError:
        raise
    except Exception as error:  # what stands in a stranger's directory can break any part of transformers
        if asks_for_code(error):
            raise code_refused(what) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]).rstrip(".")
        if isinstance(error, KeyError) or not reason:
            reason = f"{type(error).__name__} {reason}".strip()
        hint = _INSTALL if isinstance(error, ImportError) else _HINT  # as for what quantised it, or a tokenizer
        raise ModelError("E-BASE", f"{what} can't be loaded: {reason}.", hint) from error


def _check_whole(name: str, hf: Any, told: dict[str, Any]) -> None:
    """Refuse a checkpoint that isn't that of its config. What it holds beside, as another head, is left out."""
    left_out, layers = sorted(told["unexpected_keys"]), {_of_any_layer(key) for key in hf.state_dict()}
    has_more = bool(told["missing_keys"]) or any(_of_any_layer(key) in layers for key in left_out)
    found = {
        "lacks {}, which would be random": sorted(told["missing_keys"]),
        "holds {}, for which its config.json has no place": left_out if has_more else [],
        "has other sizes than its config.json, at {}": sorted(key for key, *_ in told["mismatched_keys"]),
    }
    wrong = [text.format(some(names)) for text, names in found.items() if names]
    if left_out and not wrong:
        what = f"base {name!r}: the checkpoint holds {some(left_out)}, which {type(hf).__name__} has no use for."
        warnings.warn(what, RuntimeWarning, stacklevel=2)
    if wrong:
        raise ModelError("E-BASE", f"base {name!r}: the checkpoint {'; it '.join(wrong)}.", _SAVE_AGAIN)


def _of_any_layer(key: str) -> str:
    return re.sub(r"\d+", "N", key)


def _check_tokenizer(name: str, hf: Any, tokenizer: Any) -> None:
    if tokenizer.eos_token_id is None:
        what = f"base {name!r}: its tokenizer has no end of sequence, with which every answer closes."
        raise ModelError("E-BASE", what, "Name its eos_token in tokenizer_config.json.")
    # Some tokenizers bring a token for padding that no embedding was made for; no text holds it.
    extra = set(tokenizer.all_special_tokens) - {tokenizer.eos_token, tokenizer.bos_token}
    ordinary = ((token, int(number)) for token, number in tokenizer.get_vocab().items() if token not in extra)
    token, highest = max(ordinary, key=lambda entry: entry[1])
    n_rows = getattr(hf.get_input_embeddings(), "num_embeddings", None)
    if n_rows is not None and highest >= n_rows:
        what = f"base {name!r}: token {token!r} has number {highest}, the embedding has {n_rows} rows."
        raise ModelError("E-BASE", what, "Give it the tokenizer that it was trained with, or resize its embedding.")


def _is_causal(hf: Any) -> bool:
    """Ask the attention blocks; where none tells, look whether the last token changes what follows the first."""
    flags = {flag for module in hf.modules() if isinstance(flag := getattr(module, "is_causal", None), bool)}
    if flags:
        return True in flags
    with torch.inference_mode():
        one, other = hf.eval()(input_ids=torch.tensor([[0, 1, 2], [0, 1, 3]])).logits[:, 0].float()
    return torch.allclose(one, other, rtol=0, atol=1e-3 * float(one.abs().max()), equal_nan=True)
