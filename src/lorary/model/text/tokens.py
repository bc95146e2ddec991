"""Examples <-> tokens: the one place that joins prompt and completion, cuts what is too long, and pads.

The rules, with the reference that each follows, are in docs/text.md.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from lorary.adapters.sending import sent
from lorary.errors import ModelError, OptionError
from lorary.hashing import short_key
from lorary.model.text.chat_prompts import NO_OPTIONS, nothing_made, render_answer, render_prompt
from lorary.tasks.example import Example, Message

_BLANKS = " \t"
"""What moves from a prompt's end to the answer. Newlines stay: tokenizers rarely join them to what follows, and chat
templates end with them."""


@dataclass(frozen=True)
class Encoded:
    """One example as token ids; the completion ends with the token that ends an answer, unless its end is open.

    n_cut: tokens of the prompt, its first ones, that were left out because it was too long.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    n_cut: int = 0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class Batch:
    """Left-padded rows, so that all completions end in the last column and all prompts start generation there.

    ids, mask, positions: (B, T). labels: (2, n), row and column of every completion token, row by row. n_labels: (B,)
    how many.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor
    n_labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move to a device."""
        return Batch(*(sent(getattr(self, f.name), device) for f in fields(self)))


def encode(
    tokenizer: Tokenizer, examples: Sequence[Example], *, max_tokens: int, options: Mapping[str, object] = NO_OPTIONS,
    open_end: bool = False,
) -> list[Encoded]:  # fmt: skip
    """Turn examples into ids. Over max_tokens, the start of the prompt is cut; the completion stays whole.

    options: for the chat template. open_end: without the token that ends an answer. Raises E-LENGTH for a completion
    that alone is longer than max_tokens, or is empty and open; E-CHAT for turns that give no prompt or whose answer the
    template leaves out.
    """
    enders = _enders(tokenizer) if any(example.messages for example in examples) else frozenset[int]()
    return [_encode(tokenizer, example, max_tokens, options, enders, open_end) for example in examples]


def _encode(
    tokenizer: Tokenizer, example: Example, max_tokens: int, options: Mapping[str, Any], enders: frozenset[int],
    open_end: bool,
) -> Encoded:  # fmt: skip
    prompt = render_prompt(tokenizer, example, options)
    special = not example.messages  # a chat template writes its own special tokens
    prompt, blanks = split_blanks(prompt) if special else (prompt, "")
    before = _prompt_ids(tokenizer, example, prompt)
    answer = blanks + example.completion if special else render_answer(tokenizer, example, prompt, options)
    both = _ids(tokenizer, prompt + answer, special)
    # A token across the seam would hide the start of the completion, and no prompt ends within one: so apart.
    after = both[len(before) :] if both[: len(before)] == before else _ids_after(tokenizer, answer)
    after = _ended(tokenizer, example, after, enders, open_end)
    room = max_tokens - len(after)
    if room < 1:
        raise ModelError(
            "E-LENGTH", f"a completion of task {example.task!r} has {len(after)} tokens, limit {max_tokens}."
        )
    return _cut(tokenizer, before, tuple(after), room)


def _ended(
    tokenizer: Tokenizer, example: Example, after: list[int], enders: frozenset[int], open_end: bool
) -> list[int]:
    """Let a completion's tokens end with one that ends an answer, or with none that its text doesn't hold itself."""
    if not open_end:
        ends = bool(after) and after[-1] in (enders if example.messages else (tokenizer.eos_token_id,))
        return after if ends else [*after, tokenizer.eos_token_id]
    while example.messages and after and after[-1] in enders:  # the template's, not the answer's
        after = after[:-1]
    if not after:
        what = (
            f"a completion of task {example.task!r} has no tokens, so that without its end there is nothing to score."
        )
        raise ModelError("E-LENGTH", what, "Leave out what is empty, or score with the end of sequence.")
    return after


def encode_prompts(
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    options: Mapping[str, object] = NO_OPTIONS,
) -> list[Encoded]:
    """Turn prompts into ids, without completions. Over max_tokens (1 or more), their start is cut. Raises E-CHAT."""
    rows = []
    for example in examples:
        prompt = render_prompt(tokenizer, example, options)
        open_prompt = prompt if example.messages else split_blanks(prompt)[0]
        rows.append(_cut(tokenizer, _prompt_ids(tokenizer, example, open_prompt), (), max_tokens))
    return rows


def split_blanks(prompt: str) -> tuple[str, str]:
    """Split a plain prompt into its text and the spaces and tabs at its end, which belong to the answer's first token.

    As lm-evaluation-harness does in scoring, save for newlines.
    """
    text = prompt.rstrip(_BLANKS)
    return text, prompt[len(text) :]


def warn_of_cuts(cuts: Sequence[int], max_tokens: int) -> None:
    """Say how many prompts lost their start. cuts: `n_cut` of each row."""
    if lost := [n_cut for n_cut in cuts if n_cut]:
        what = (
            f"{len(lost)} of {len(cuts)} prompts were cut at their start, by up to {max(lost):,} tokens: "
            f"a prompt and its answer may have {max_tokens:,} tokens together (max_tokens)."
        )
        warnings.warn(what, RuntimeWarning, stacklevel=3)


def _cut(tokenizer: Tokenizer, prompt: Sequence[int], completion: tuple[int, ...], room: int) -> Encoded:
    """Leave out the first tokens of a prompt longer than `room`, but not the one that begins every text."""
    n_cut = max(0, len(prompt) - room)
    kept = tuple(prompt[n_cut:])
    if n_cut and room > 1 and prompt[0] == tokenizer.bos_token_id:
        kept = (prompt[0], *kept[1:])
    return Encoded(kept, completion, n_cut)


def _prompt_ids(tokenizer: Tokenizer, example: Example, prompt: str) -> list[int]:
    ids = _ids(tokenizer, prompt, not example.messages)
    if not ids:  # nothing would foresee the completion's first token
        raise nothing_made(example)
    return ids


def _ids(tokenizer: Tokenizer, text: str, special: bool) -> list[int]:
    ids = list(tokenizer(text, add_special_tokens=special)["input_ids"])
    if special and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and _closes_texts(tokenizer):
        ids.pop()  # a prompt is open
    if special and ids[:2] == [tokenizer.bos_token_id] * 2:
        del ids[0]  # the text brought its own
    if not ids and special:
        ids = [start_token(tokenizer)]
    return ids


def _ids_after(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode what doesn't begin a text: some tokenizers put a blank before a text's first word."""
    mark = _ids(tokenizer, "\n", False)
    marked = _ids(tokenizer, "\n" + text, False)
    return marked[len(mark) :] if marked[: len(mark)] == mark else _ids(tokenizer, text, False)


def _enders(tokenizer: Tokenizer) -> frozenset[int]:
    """List the tokens that no text holds by chance: what ends a turn is one of them."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset({tokenizer.eos_token_id, *(number for number, token in added.items() if token.special)})


def turn_end(tokenizer: Tokenizer, options: Mapping[str, object] = NO_OPTIONS) -> int | None:
    """Find the token that the chat template puts at an answer's end; None without a template or such a token."""
    if tokenizer.chat_template is None:
        return None
    try:
        (row,) = encode(tokenizer, [Example("", "a", messages=(Message("user", "a"),))], max_tokens=1 << 30,
                        options=options)  # fmt: skip
    except ModelError:
        return None  # it will be said of the data's own turns, if there are any
    return row.completion[-1]


def start_token(tokenizer: Tokenizer) -> int:
    """Give the token that stands where a text has no other before it."""
    return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)


def _closes_texts(tokenizer: Tokenizer) -> bool:
    """Tell whether the tokenizer itself puts an end of sequence after every text, or the text had one."""
    return bool(tokenizer("a", add_special_tokens=True)["input_ids"][-1] == tokenizer.eos_token_id)


def pad(rows: Sequence[Encoded], *, with_completion: bool = True) -> Batch:
    """Pad rows on the left with zeros; the mask hides them, so any id would do."""
    texts = [(*r.prompt, *r.completion) if with_completion else r.prompt for r in rows]
    width = max(len(t) for t in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros(len(texts), width, dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, width - len(text) :] = torch.tensor(text, dtype=torch.long)
        mask[i, width - len(text) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    n_labels = torch.tensor([len(r.completion) if with_completion else 0 for r in rows])
    is_label = torch.arange(width).unsqueeze(0) >= width - n_labels.unsqueeze(1)
    return Batch(ids, mask, positions, is_label.nonzero().T, n_labels)


def decode(tokenizer: Tokenizer, ids: Tensor, mask: object = None) -> list[str]:
    """Give the texts of ids (B, T), special tokens left out, and what an attention mask (B, past + T) hides."""
    rows: Any = ids
    if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) == len(ids) and mask.shape[1] >= ids.shape[1]:
        seen = mask[:, mask.shape[1] - ids.shape[1] :].bool()
        rows = [row[kept] for row, kept in zip(ids, seen, strict=True)]
    return list(tokenizer.batch_decode(rows, skip_special_tokens=True))


RULES = 2
"""Counts the changes of how texts become ids: what was made by other rules isn't taken for what these make."""


def reading_facts(tokenizer: Tokenizer, options: Mapping[str, object] = NO_OPTIONS) -> dict[str, object]:
    """Give what decides how texts become ids: our rules, hashes of the tokenizer's and of its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Before the tokens stands how the last call padded and cut, which is nobody's business.
    rules = backend.to_str().partition('"added_tokens"')[2] if backend is not None else tokenizer.get_vocab()
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    template = tokenizer.chat_template
    return {
        "rules": RULES,
        "tokenizer": short_key(type(tokenizer).__name__ if backend is None else "", rules, ends),
        "chat_template": None if template is None else short_key(template, *([dict(options)] if options else [])),
    }


def require_ids(ids: object) -> None:
    """Refuse what are no token ids (B, T). Raises E-OPTION."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        found = f"a {ids.dtype} tensor {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        hint = 'Write tokenizer(text, return_tensors="pt").input_ids.'
        raise OptionError("E-OPTION", f"input_ids is {found}, expected whole numbers (B, T).", hint)


def by_length(
    rows: Sequence[Encoded],
    *,
    max_tokens: int = 2048,
    max_rows: int = 64,
    n_new: int = 0,
    enough: int | None = None,
    equal: bool = False,
) -> Iterator[list[int]]:
    """Group row numbers of similar length, so that a padded batch stays under max_tokens (one row may exceed it).

    n_new: tokens that are to come behind each row. enough: tokens from which a batch is as fast as a larger one; from
    there on it takes no row that is over a quarter longer than its shortest, since that would be padding. equal: a
    group's rows have one length, so that nothing is padded.
    """
    group: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: (len(rows[i]), i)):
        width = len(rows[index])  # of the batch, if it takes the row: sorted upwards
        shortest = len(rows[group[0]]) if group else width
        if group and (
            len(group) == max_rows
            or (len(group) + 1) * (width + n_new) > max_tokens
            or (enough is not None and len(group) * width >= enough and 4 * width > 5 * shortest)
            or (equal and width != shortest)
        ):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
