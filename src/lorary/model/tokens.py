"""Examples <-> tokens: the one place that joins prompt and completion, renders chats and pads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lorary.errors import ModelError, OptionError
from lorary.hashing import short_key
from lorary.tasks.example import Example

_OTHER_TURNS = "Use turns that it knows, or {prompt, completion} data, or mend the template."


@dataclass(frozen=True)
class Encoded:
    """One example as token ids; the completion ends with the end-of-sequence token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class Batch:
    """Left-padded rows, so that all completions end in the last column and all prompts start generation there.

    ids, mask, positions: (B, T). is_label: (B, T), True at completion tokens. n_labels: (B,) how many.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    is_label: Tensor
    n_labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move to a device."""
        return Batch(*(getattr(self, f.name).to(device) for f in fields(self)))


def render_prompt(tokenizer: Any, example: Example) -> str:
    """Write the prompt as the model sees it: turns through the tokenizer's chat template, plain text as it is.

    Raises E-CHAT for turns where there is no template, or it is broken or refuses them.
    """
    if not example.messages:
        return example.prompt
    if tokenizer.chat_template is None:
        raise ModelError(
            "E-CHAT", "the data has messages, but this base has no chat template.", "Use {prompt, completion} data."
        )
    turns = [{"role": m.role, "content": m.content} for m in example.messages]
    return render_turns(tokenizer, turns, opens_answer=True)


def render_turns(tokenizer: Any, turns: list[dict[str, str]], *, opens_answer: bool = False) -> str:
    """Write turns through the chat template. Raises E-CHAT for a template that is broken or refuses them."""
    try:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=opens_answer, tokenize=False))
    except Exception as error:  # a template is a stranger's program
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        roles = ", ".join(turn["role"] for turn in turns)
        what = f"the chat template of this base can't render turns {roles}: {reason}."
        raise ModelError("E-CHAT", what, _OTHER_TURNS) from error


def join(prompt: str, completion: str) -> str:
    """Put one space before the completion when neither side of the seam is white."""
    seam = not prompt or prompt[-1].isspace() or not completion or completion[0].isspace()
    return completion if seam else " " + completion


def encode(tokenizer: Any, examples: Sequence[Example], *, max_tokens: int) -> list[Encoded]:
    """Turn examples into ids. Over max_tokens, the start of the prompt is cut; the completion stays whole.

    Raises E-LENGTH for a completion that alone is longer than max_tokens, E-CHAT for turns that give no prompt.
    """
    prompts = [render_prompt(tokenizer, e) for e in examples]
    seams = [e.completion if e.messages else join(p, e.completion) for e, p in zip(examples, prompts, strict=True)]
    encoded = []
    for example, prompt, seam in zip(examples, prompts, seams, strict=True):
        special = not example.messages  # a chat template writes its own special tokens
        before = _prompt_ids(tokenizer, example, prompt)
        both = _ids(tokenizer, prompt + seam, special)
        # A token across the seam would hide the start of the completion: then the sides are encoded apart.
        after = both[len(before) :] if both[: len(before)] == before else _ids(tokenizer, seam, False)
        completion = (*after, tokenizer.eos_token_id)
        room = max_tokens - len(completion)
        if room < 1:
            raise ModelError(
                "E-LENGTH", f"a completion of task {example.task!r} has {len(completion)} tokens, limit {max_tokens}."
            )
        encoded.append(Encoded(tuple(before[-room:]), completion))
    return encoded


def encode_prompts(tokenizer: Any, examples: Sequence[Example], *, max_tokens: int) -> list[Encoded]:
    """Turn prompts into ids, without completions. Over max_tokens (1 or more), their start is cut. Raises E-CHAT."""
    prompts = [_prompt_ids(tokenizer, e, render_prompt(tokenizer, e)) for e in examples]
    return [Encoded(tuple(ids[-max_tokens:]), ()) for ids in prompts]


def _prompt_ids(tokenizer: Any, example: Example, prompt: str) -> list[int]:
    ids = _ids(tokenizer, prompt, not example.messages)
    if not ids:  # nothing would foresee the completion's first token
        roles = ", ".join(m.role for m in example.messages)
        raise ModelError("E-CHAT", f"the chat template of this base makes nothing of turns {roles}.", _OTHER_TURNS)
    return ids


def _ids(tokenizer: Any, text: str, special: bool) -> list[int]:
    ids = list(tokenizer(text, add_special_tokens=special)["input_ids"])
    if special and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and _closes_texts(tokenizer):
        ids.pop()  # a prompt is open
    if not ids and special:
        ids = [start_token(tokenizer)]
    return ids


def start_token(tokenizer: Any) -> int:
    """Give the token that stands where a text has no other before it."""
    return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)


def _closes_texts(tokenizer: Any) -> bool:
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
    return Batch(ids, mask, positions, is_label, n_labels)


def decode(tokenizer: Any, ids: Tensor, mask: Any = None) -> list[str]:
    """Give the texts of ids (B, T), special tokens left out, and what an attention mask (B, past + T) hides."""
    rows: Any = ids
    if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) == len(ids) and mask.shape[1] >= ids.shape[1]:
        seen = mask[:, mask.shape[1] - ids.shape[1] :].bool()
        rows = [row[kept] for row, kept in zip(ids, seen, strict=True)]
    return list(tokenizer.batch_decode(rows, skip_special_tokens=True))


def reading_facts(tokenizer: Any) -> dict[str, Any]:
    """Give hashes of what decides how texts become ids: the tokenizer's rules and its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Before the tokens stands how the last call padded and cut, which is nobody's business.
    rules = backend.to_str().partition('"added_tokens"')[2] if backend is not None else tokenizer.get_vocab()
    ends = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    template = tokenizer.chat_template
    return {
        "tokenizer": short_key(type(tokenizer).__name__ if backend is None else "", rules, ends),
        "chat_template": None if template is None else short_key(template),
    }


def require_ids(ids: object) -> None:
    """Refuse what are no token ids (B, T). Raises E-OPTION."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        found = f"a {ids.dtype} tensor {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        hint = 'Write tokenizer(text, return_tensors="pt").input_ids.'
        raise OptionError("E-OPTION", f"input_ids is {found}, expected whole numbers (B, T).", hint)


def by_length(rows: Sequence[Encoded], *, max_tokens: int = 2048, max_rows: int = 64) -> Iterator[list[int]]:
    """Group row numbers of similar length, so that a padded batch stays under max_tokens (one row may exceed it)."""
    group: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: (len(rows[i]), i)):
        # Sorted upwards, so the new row sets the width.
        if group and (len(group) == max_rows or (len(group) + 1) * len(rows[index]) > max_tokens):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
