"""What a base says of itself as a reader and writer: how long a text it takes, and where an answer ends."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from lorary.errors import OptionError
from lorary.model.sites import embedding_rows, text_config
from lorary.options import require_count

_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
"""What configs call the longest text, the commonest name first."""

_ENDLESS = 1 << 20
"""Tokens. The limit of bases that name none, as those without attention, and whose tokenizer has none either."""


def longest_text(hf: PreTrainedModel, tokenizer: Tokenizer, wanted: int | None) -> int:
    """Give the most tokens that a base is given at once: what it reads, or the fewer that are wanted.

    Raises E-OPTION for more than it reads.
    """
    config = text_config(hf)
    named = [getattr(config, name, None) for name in _LENGTHS]
    known = [limit for limit in named if type(limit) is int and limit > 0]
    limit = known[0] if known else min(int(tokenizer.model_max_length), _ENDLESS)
    if wanted is None:
        return limit
    require_count("max_tokens", wanted)
    if wanted > limit:
        raise OptionError("E-OPTION", f"max_tokens={wanted}, but this base reads {limit:,} tokens.", "Ask for fewer.")
    return wanted


def stop_tokens(hf: PreTrainedModel, tokenizer: Tokenizer) -> list[int]:
    """List what ends an answer: the stop tokens of the base's generation_config.json, and the tokenizer's own."""
    named = getattr(hf.generation_config, "eos_token_id", None)
    listed: Iterable[Any] = named if isinstance(named, (list, tuple)) else [named]
    n_rows = embedding_rows(hf)
    known = (number for number in listed if type(number) is int and number >= 0 and (n_rows is None or number < n_rows))
    return list(dict.fromkeys([tokenizer.eos_token_id, *known]))
