"""The turns of a conversation, as OpenAI, TRL, ShareGPT and LLaMA-Factory write them, -> messages."""

import json
from collections.abc import Mapping
from typing import Any

from lorary.errors import known_names
from lorary.tasks.example import Message, short
from lorary.tasks.rows.fields import Row, json_value, optional_text, row_error, text, wrong_type

ROLES = ("assistant", "developer", "function", "system", "tool", "user")
_SAME_ROLE = {
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "gpt": "assistant",
    "human": "user",
    "model": "assistant",
    "observation": "tool",
}
"""Other names of a role, from ShareGPT and its like."""
EXTRAS = ("function_call", "name", "reasoning", "reasoning_content", "thinking", "tool_call_id", "tool_calls")
"""What a chat template is given of a turn besides role and content."""
TURN_FIELDS = frozenset(("role", "content", "from", "value", *EXTRAS))
_CALLS = ("function_call", "tool_calls")
_NOT_FROM_ROWS = frozenset(
    (
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    )
)
"""Arguments of `apply_chat_template` that a row can't set, least of all the template."""


def turns_of(row: Row, key: str, value: object) -> tuple[Message, ...]:
    """Read a list of turns, {role, content} or {from, value}. Raises E-DATA for what isn't text, and unknown roles."""
    if not isinstance(value, list) or not value:
        raise wrong_type(row, key, "a list of messages", value)
    return tuple(_turn(row, key, number, turn) for number, turn in enumerate(value, start=1))


def is_answer(turn: Message) -> bool:
    """Tell whether a turn is something to learn: the assistant says something, or calls a tool."""
    return turn.role == "assistant" and bool(turn.content.strip() or any(name in turn.extra for name in _CALLS))


def _turn(row: Row, key: str, number: int, turn: Any) -> Message:
    where = f"message {number} of {key!r}"
    who, what = ("from", "value") if isinstance(turn, Mapping) and "from" in turn else ("role", "content")
    if not isinstance(turn, Mapping) or not isinstance(turn.get(who), str) or (who == "from" and what not in turn):
        raise row_error(row, f"{where} isn't {{role, content}} or {{from, value}}.", "Rename its fields.")
    role = _SAME_ROLE.get(turn[who], turn[who])
    if role not in ROLES:
        hint = known_names(turn[who], ROLES if who == "role" else sorted((*ROLES, *_SAME_ROLE)))
        raise row_error(row, f"{where} has the unknown role {turn[who]!r}.", hint)
    extra = {name: turn[name] for name in EXTRAS if turn.get(name) not in (None, [], "")}
    if turn[who] == "function_call":
        return Message(role, "", {"tool_calls": _calls(row, where, turn.get(what))})
    calls = any(name in extra for name in _CALLS)
    content = _content(row, where, what, turn.get(what), may_be_missing=calls)
    return Message(role, content, json_value(row, f"{key}[{number}]", extra))


def _content(row: Row, where: str, name: str, value: Any, *, may_be_missing: bool) -> str:
    """Read the content: a text, or parts that are all text; a turn that only calls a tool may be empty."""
    if value is None and may_be_missing:
        return ""
    if not isinstance(value, list):
        return text(row, name, value, may_be_empty=True)
    parts = []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text":
            raise row_error(row, f"{where} holds a part of type {short(kind)}; only text is read.", "Leave it out.")
        said = part.get("text") if isinstance(part, Mapping) else part
        parts.append(text(row, name, said, may_be_empty=True))
    return "".join(parts)  # as chat templates do


def _calls(row: Row, where: str, value: Any) -> list[dict[str, Any]]:
    """Read ShareGPT's function_call: the JSON of one call or of several, {name, arguments}."""
    calls = _from_json(row, where, value)
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        raise row_error(row, f"{where} isn't a call {{name, arguments}}, found {short(value)}.", "Fix the row.")
    return [{"type": "function", "function": json_value(row, "function_call", call)} for call in calls]


def _from_json(row: Row, where: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise row_error(row, f"{where} must be JSON, found {short(value)}.", "Fix the row.") from None


def opening_of(row: Row) -> tuple[Message, ...]:
    """Read the turns that a row has before its own: `system` or `system_prompt`, and `history`."""
    found = [Message("system", said) for key in ("system", "system_prompt") if (said := optional_text(row, key))]
    if len(found) > 1:
        raise row_error(row, "'system' and 'system_prompt' are both filled.", "Keep one.")
    history = row.values.get("history") or []
    if not isinstance(history, list):
        raise wrong_type(row, "history", "a list of [question, answer]", history)
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2:
            raise wrong_type(row, "history", "a list of [question, answer]", pair)
        found.append(Message("user", text(row, "history", pair[0])))
        found.append(Message("assistant", text(row, "history", pair[1])))
    return tuple(found)


def template_of(row: Row) -> dict[str, object]:
    """Read what the chat template is given beside the turns: `tools`, and the options in `chat_template_kwargs`."""
    found: dict[str, Any] = {}
    if tools := _from_json(row, "'tools'", row.values.get("tools") or None):
        if not isinstance(tools, list):
            raise wrong_type(row, "tools", "a list of tools, or its JSON", tools)
        found["tools"] = json_value(row, "tools", tools)
    options = row.values.get("chat_template_kwargs") or {}
    if not isinstance(options, Mapping):
        raise wrong_type(row, "chat_template_kwargs", "a mapping", options)
    if taken := sorted(_NOT_FROM_ROWS & options.keys()):
        raise row_error(row, f"'chat_template_kwargs' can't hold {taken[0]!r}.", "Leave it out.")
    return {**found, **json_value(row, "chat_template_kwargs", options)}
