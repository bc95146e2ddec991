"""What must hold of a base before anybody works with it: whole, causal, with a tokenizer that fits."""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lorary.disk.reading import read_capped
from lorary.disk.strict_json import parse_object
from lorary.errors import LoraryError, ModelError, OptionError, known_names, listed, quote
from lorary.library.layout import CONFIG
from lorary.model.base.config import MAX_BYTES, NO_CODE, asks_for_code, code_refused, read_config
from lorary.model.base.fingerprint import require_numbers
from lorary.model.sites import embedding_rows

_HINT = "Give a causal language model; docs/reference/families.md names families that were tried."
_INSTALL = "Install the package that this names, in the environment of lorary."
_SAVE_AGAIN = "Save the base again, whole: weights, config.json and tokenizer by the same program."
_FETCH = "Fetch it while the Hub can be reached, or give a directory that holds it."
_UPDATE = "Update transformers, or give a base whose architecture it has."
_TOKENIZER = (
    "Save its tokenizer beside it, tokenizer.save_pretrained(directory), or give one: load_base(..., tokenizer=...)."
)
_OFFLINE = ("couldn't connect", "offline mode", "cannot find the requested files", "outgoing traffic")


def open_base(
    source: str,
    name: str,
    dtype: torch.dtype,
    *,
    tokenizer: Any = None,
    device_map: object = None,
    attention: str | None = None,
) -> tuple[Any, Any]:
    """Open model and tokenizer, on the CPU or where device_map says; `name` is what messages call them.

    Transformers draws at random what a checkpoint lacks, leaves out what it doesn't know, and only logs it.
    Raises E-BASE, and E-OPTION for an attention that is none.
    """
    what = f"base {name!r}"
    _check_attention(attention, what)
    _check_directory(Path(source), what)
    chosen = {
        key: v for key, v in {"device_map": device_map, "attn_implementation": attention}.items() if v is not None
    }
    with _loading(what, _SAVE_AGAIN):
        config = read_config(source, what)
        opened: Any = AutoModelForCausalLM.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **chosen,
            **NO_CODE,
        )  # fmt: skip
    hf, told = opened
    _check_whole(name, hf, told)
    if device_map is not None:
        require_numbers(hf)
    _check_causal(name, hf)
    return hf, take_tokenizer(tokenizer or source, name, hf)


def check_model(hf: object) -> None:
    """Check a model that the user has loaded. Raises E-BASE for one that can't be a base, E-OPTION for what is none."""
    if hasattr(hf, "peft_config") or getattr(hf, "_hf_peft_config_loaded", False):
        what = f"the model given, a {type(hf).__name__}, carries an adapter of PEFT."
        hint = "Give the model alone: peft_model.unload(). Its adapter is added to a library: `lorary add`."
        raise ModelError("E-BASE", what, hint)
    if not isinstance(hf, PreTrainedModel):
        what = f"the base is a {type(hf).__name__}, no model of transformers."
        raise OptionError("E-OPTION", what, "Give a name, a directory, or a model of transformers.")
    require_numbers(hf)
    _check_causal(hf.config.name_or_path or type(hf).__name__, hf)


def take_tokenizer(tokenizer: Any, name: str, hf: Any) -> Any:
    """Open a tokenizer, if it isn't open yet, and see whether it fits. Raises E-BASE."""
    if isinstance(tokenizer, (str, Path)):
        with _loading(f"the tokenizer of base {name!r}", _TOKENIZER):
            tokenizer = AutoTokenizer.from_pretrained(str(tokenizer), **NO_CODE)
    _check_tokenizer(name, hf, tokenizer)
    return tokenizer


def _check_attention(attention: str | None, what: str) -> None:
    known = ["eager", *sorted({*ALL_ATTENTION_FUNCTIONS.valid_keys()} - {"eager"})]
    if attention is not None and "/" in attention:
        raise code_refused(f"{what} with attention={attention!r}")
    if attention is not None and attention not in known:
        raise OptionError("E-OPTION", f"attention={attention!r} is unknown.", known_names(attention, known))


def _check_directory(source: Path, what: str) -> None:
    """Refuse a directory that holds no model at all, by what it holds instead. Raises E-BASE."""
    if not source.is_dir() or (source / "config.json").is_file():
        return
    adapter = source / CONFIG
    if not adapter.is_file():
        raise ModelError("E-BASE", f"{what} is no model: its directory has no config.json.", _SAVE_AGAIN)
    fields: Mapping[str, Any] = parse_object(read_capped(adapter, MAX_BYTES, "E-LIMIT"), adapter.name, "E-CONFIG")
    base = fields.get("base_model_name_or_path")
    hint = f"Give the model it was trained on{f', {quote(base, 200)}' if isinstance(base, str) and base else ''}."
    raise ModelError("E-BASE", f"{what} is an adapter: it goes into a library (`lorary add`).", hint)


def _check_causal(name: str, hf: Any) -> None:
    with _loading(f"base {name!r}", _HINT):
        is_causal = not hf.config.is_encoder_decoder and hf.get_output_embeddings() is not None and _is_causal(hf)
    if not is_causal:
        what = f"base {name!r}: {type(hf).__name__} is no causal language model: what comes later changes what is said."
        raise ModelError("E-BASE", what, _HINT)


@contextmanager
def _loading(what: str, hint: str) -> Iterator[None]:
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
        raise ModelError("E-BASE", f"{what} can't be loaded: {reason}.", _way_out(error, hint)) from error


def _way_out(error: Exception, otherwise: str) -> str:
    """Say what helps against what transformers refused."""
    told = str(error).lower()
    if isinstance(error, ImportError):  # as for what quantised it, or a tokenizer
        return _INSTALL
    if any(words in told for words in _OFFLINE):
        return _FETCH
    if "unrecognized configuration class" in told:
        return _HINT
    if "attention" in told and "implementation" in told:
        return "Load it without attention=..."
    return _UPDATE if "transformers does not recognize this architecture" in told else otherwise


def _check_whole(name: str, hf: Any, told: dict[str, Any]) -> None:
    """Refuse a checkpoint that isn't that of its config. What it holds beside, as another head, is left out."""
    left_out, layers = sorted(told["unexpected_keys"]), {_of_any_layer(key) for key in hf.state_dict()}
    has_more = bool(told["missing_keys"]) or any(_of_any_layer(key) in layers for key in left_out)
    found = {
        "lacks {}, which would be random": sorted(told["missing_keys"]),
        "holds {}, for which its config.json has no place": left_out if has_more else [],
        "has other sizes than its config.json, at {}": sorted(key for key, *_ in told["mismatched_keys"]),
    }
    wrong = [text.format(listed(names)) for text, names in found.items() if names]
    if left_out and not wrong:
        what = f"base {name!r}: the checkpoint holds {listed(left_out)}, which {type(hf).__name__} has no use for."
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
    n_rows = embedding_rows(hf)
    if n_rows is not None and highest >= n_rows:
        what = f"base {name!r}: token {token!r} has number {highest}, the embedding has {n_rows} rows."
        raise ModelError("E-BASE", what, "Give it the tokenizer that it was trained with, or resize its embedding.")


def _is_causal(hf: Any) -> bool:
    """Ask the attention blocks; where none tells, look whether the last token changes what follows the first."""
    flags = {flag for module in hf.modules() if isinstance(flag := getattr(module, "is_causal", None), bool)}
    if flags:
        return True in flags
    with torch.inference_mode():
        one, other = hf.eval()(input_ids=_ids(hf, [[0, 1, 2], [0, 1, 3]])).logits[:, 0].float()
    return torch.allclose(one, other, rtol=0, atol=1e-3 * float(one.abs().max()), equal_nan=True)


def _ids(hf: Any, rows: list[list[int]]) -> Any:
    return torch.tensor(rows, device=hf.get_input_embeddings().weight.device)
