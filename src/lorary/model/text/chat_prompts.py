"""Turns -> text, through the base's chat template: the prompt that an answer follows, and the answer as it is written.

The rules, with the reference that each follows, are in docs/text.md.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase as Tokenizer

from lorary.disk.reading import as_path, read_capped
from lorary.errors import LoraryError, ModelError
from lorary.tasks.example import Example, Message

NO_OPTIONS: Mapping[str, Any] = {}
Turn = dict[str, Any]

_MAX_BYTES = 1_000_000
_TEMPLATE_FILE = "Give the file itself, as chat_template.jinja beside a tokenizer or an adapter."
_OTHER_TURNS = "Use turns that it knows, or {prompt, completion} data, or mend the template."
_OURS = frozenset(
    (
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "max_length", "padding",
        "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize", "tokenizer_kwargs", "truncation",
    )
)  # fmt: skip
"""What decides how a template is applied: no option of a template may be called so."""

_AS_WRITTEN = ("developer", "system", "user")
"""Roles whose content templates write as it is, outer blanks aside."""


def read_template(path: str | os.PathLike[str]) -> str:
    """Read a chat template from a file. Raises E-FILE, E-PATH, E-PERM, E-CHAT for what is none."""
    place = as_path(os.fspath(path))
    try:
        text = read_capped(place.resolve(), _MAX_BYTES, "E-CHAT").decode()
    except LoraryError as caught:
        raise caught.reworded(f"chat template {str(place)!r}: {caught.message}", _TEMPLATE_FILE) from None
    except UnicodeDecodeError:
        text = ""
    if not text.strip():
        what = f"{str(place)!r} is no chat template: it holds no text."
        raise ModelError("E-CHAT", what, _TEMPLATE_FILE)
    return text


def render_prompt(tokenizer: Tokenizer, example: Example, options: Mapping[str, object] = NO_OPTIONS) -> str:
    """Write the prompt as the model sees it: turns through the tokenizer's chat template, plain text as it is.

    options: what the template is given beside the turns, where the example doesn't say otherwise.
    Raises E-CHAT for turns where there is no template, or it is broken, refuses them, or leaves something of them out.
    """
    if not example.messages:
        return example.prompt
    if tokenizer.chat_template is None:
        raise ModelError(
            "E-CHAT", "the data has messages, but this base has no chat template.", "Use {prompt, completion} data."
        )
    turns, given = _turns(example.messages), {**options, **example.template}
    prompt = render_turns(tokenizer, turns, given, opens_answer=True)
    if prompt:
        _require_all(example, prompt)
        _require_calls(tokenizer, turns, given, prompt, opens_answer=True)
        if given.get("tools") and prompt == render_turns(tokenizer, turns, {**given, "tools": None}, opens_answer=True):
            raise _left_out("the tools")
    return prompt


def render_answer(
    tokenizer: Tokenizer, example: Example, prompt: str, options: Mapping[str, object] = NO_OPTIONS
) -> str:
    """Write the answer as the template does: what it makes of prompt and answer, less the prompt; white at the end cut.

    prompt: as `render_prompt` gave it. Where a template opens an answer otherwise than it writes one (with a thought
    to be had, say), the completion and what the template puts after it.
    Raises E-CHAT for a template that leaves the answer, or a part of it, out.
    """
    turns, given = _turns(example.messages), {**options, **example.template}
    turns.append({"role": "assistant", "content": example.completion, **example.extra})
    whole = render_turns(tokenizer, turns, given)
    if whole.startswith(prompt):
        answer = whole[len(prompt) :]
    else:
        start = whole.rfind(example.completion.strip())
        if start < 0 or not example.completion.strip():
            raise _left_out("the answer")
        answer = example.completion + whole[start + len(example.completion.strip()) :]
    if _letters(example.completion) not in _letters(answer):
        raise _left_out("the answer")
    _require_calls(tokenizer, turns[-1:], given, whole, before=turns[:-1])
    return answer.rstrip()


def render_turns(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    options: Mapping[str, object] = NO_OPTIONS,
    *,
    opens_answer: bool = False,
) -> str:
    """Write turns through the chat template. Raises E-CHAT for a template that is broken or refuses them."""
    if wrong := sorted(_OURS & options.keys()):
        raise ModelError("E-CHAT", f"{wrong[0]!r} is no option of a chat template.", "Leave it out.")
    try:
        given: dict[str, Any] = {**options, "add_generation_prompt": opens_answer, "tokenize": False}
        return str(tokenizer.apply_chat_template(list(turns), **given))
    except Exception as error:  # a template is a stranger's program
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        what = f"the chat template of this base can't render turns {_roles(turns)}: {reason}."
        raise ModelError("E-CHAT", what, _OTHER_TURNS) from error


def nothing_made(example: Example) -> ModelError:
    """Say that the template makes no prompt of an example's turns."""
    roles = _roles(_turns(example.messages))
    return ModelError("E-CHAT", f"the chat template of this base makes nothing of turns {roles}.", _OTHER_TURNS)


def _turns(messages: Sequence[Message]) -> list[Turn]:
    return [{"role": m.role, "content": m.content, **m.extra} for m in messages]


def _roles(turns: Sequence[Turn]) -> str:
    return ", ".join(turn["role"] for turn in turns)


def _letters(text: str) -> str:
    return "".join(text.split())


def _require_all(example: Example, prompt: str) -> None:
    """Refuse a prompt that lacks a turn: nothing of the data may be lost in silence."""
    letters = _letters(prompt)
    for message in example.messages:
        if message.role in _AS_WRITTEN and _letters(message.content) not in letters:
            raise _left_out(f"the turn of {message.role!r}")


def _require_calls(
    tokenizer: Tokenizer, turns: Sequence[Turn], given: Mapping[str, Any], text: str, *, before: Sequence[Turn] = (),
    opens_answer: bool = False,
) -> None:  # fmt: skip
    """Refuse a text in which calls of tools left no trace."""
    if not any(turn.get("tool_calls") for turn in turns):
        return
    without = [{key: value for key, value in turn.items() if key != "tool_calls"} for turn in turns]
    if text == render_turns(tokenizer, [*before, *without], given, opens_answer=opens_answer):
        raise _left_out("the tool calls")


def _left_out(what: str) -> ModelError:
    return ModelError("E-CHAT", f"the chat template of this base leaves out {what}.", _OTHER_TURNS)
