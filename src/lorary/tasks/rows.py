"""One row -> one example. The shapes that are recognised, by their keys; other keys are left alone.

    {prompt, completion}            texts; or messages before and after
    {messages}                      the last turn, the assistant's, is the completion
    {definition, input, output}     Super-NaturalInstructions; `definition` may be empty or missing
    {source, target}                FLAN

A completion, output or target may be a list of texts: all are accepted, the first is trained on.
Any shape may have `choices` (the completion is one of them), `task` or `task_name`, and `split`.
Super-NaturalInstructions are joined as "definition, blank line, input, blank line, Output:"; without a definition the
input is taken to hold the instruction itself, and stays as it is.
"""

from collections.abc import Mapping
from typing import Any

from lorary.errors import TaskError, known_names
from lorary.tasks.example import Example, Message, require_text, short
from lorary.tasks.files import PARTS, Row

ROLES = ("assistant", "system", "tool", "user")
SHAPES = "{prompt, completion}, {messages}, {definition, input, output} or {source, target}"


def example_of(row: Row) -> Example:
    """Make an example of one row. Raises E-DATA with the row's place for anything that isn't an example."""
    prompt, messages, answers = _content(row)
    choices = _choices(row, answers[0])
    references = answers if len(answers) > 1 else ()
    return Example(prompt, answers[0], task_of(row), references, choices, messages)


def task_of(row: Row) -> str:
    """Name the row's task: its `task` or `task_name`, else what the file's name says."""
    for key in ("task", "task_name"):
        if row.values.get(key) is not None:
            return _text(row, key, row.values[key])
    require_text(f"{row.place}: the name of the file", row.task)
    return row.task


def part_of(row: Row) -> str | None:
    """Say which part the row declares: its `split`, else what the file's name says, else None."""
    split = row.values.get("split")
    if split is None:
        return row.part
    if not isinstance(split, str) or split.lower() not in PARTS:
        raise _error(row, f"unknown split {split!r}.", known_names(str(split), list(PARTS)))
    return PARTS[split.lower()]


Content = tuple[str, tuple[Message, ...], tuple[str, ...]]  # prompt, messages before the completion, answers


def _content(row: Row) -> Content:
    keys = {key for key, value in row.values.items() if value is not None}  # Parquet fills missing columns with None
    if "messages" in keys:
        return _conversation(row, _turns(row, "messages", row.values["messages"]))
    if "prompt" in keys or "completion" in keys:
        return _prompt_and_completion(row)
    if "output" in keys or {"input", "definition"} <= keys:
        return _joined(row), (), _answers(row, "output")
    if "source" in keys or "target" in keys:
        return _text(row, "source", _needed(row, "source")), (), _answers(row, "target")
    found = ", ".join(map(str, row.values)) or "none"
    raise _error(row, f"expected the fields {SHAPES}, found {found}.", "Rename the fields.")


def _prompt_and_completion(row: Row) -> Content:
    prompt, completion = _needed(row, "prompt"), _needed(row, "completion")
    if isinstance(prompt, str):
        return _text(row, "prompt", prompt), (), _answers(row, "completion")
    if not isinstance(prompt, list):
        raise _wrong_type(row, "prompt", "a text or a list of messages", prompt)
    before = _turns(row, "prompt", prompt)
    if isinstance(completion, list) and any(isinstance(turn, Mapping) for turn in completion):
        after = _turns(row, "completion", completion)
        if len(after) != 1:
            raise _error(row, f"'completion' has {len(after)} messages, expected one.", "Move the others to 'prompt'.")
        return _conversation(row, before + after)
    return _last_user_turn(row, before), before, _answers(row, "completion")


def _conversation(row: Row, turns: tuple[Message, ...]) -> Content:
    *before, last = turns
    if last.role != "assistant":
        raise _error(row, f"the last message is of {last.role!r}, expected 'assistant'.", "End with the answer.")
    if not last.content.strip():
        raise _error(row, "the last message is empty.", "Every row needs an answer.")
    return _last_user_turn(row, tuple(before)), tuple(before), (last.content,)


def _last_user_turn(row: Row, turns: tuple[Message, ...]) -> str:
    for turn in reversed(turns):
        if turn.role == "user":
            return _text(row, "content", turn.content)
    raise _error(row, "no message of 'user' before the answer.", "Every row needs a question.")


def _turns(row: Row, key: str, value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong_type(row, key, "a list of messages", value)
    turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            raise _error(row, f"message {number} of {key!r} isn't {{role, content}}.", "Rename its fields.")
        if turn["role"] not in ROLES:
            hint = known_names(turn["role"], ROLES)
            raise _error(row, f"message {number} of {key!r} has the unknown role {turn['role']!r}.", hint)
        turns.append(Message(turn["role"], _text(row, "content", turn.get("content"), may_be_empty=True)))
    return tuple(turns)


def _joined(row: Row) -> str:
    definition = row.values.get("definition")
    definition = "" if definition is None else _text(row, "definition", definition, may_be_empty=True).strip()
    given = _text(row, "input", _needed(row, "input"), may_be_empty=bool(definition))
    return "\n\n".join(part for part in (definition, given.strip(), "Output:") if part) if definition else given


def _answers(row: Row, key: str) -> tuple[str, ...]:
    value = _needed(row, key)
    if isinstance(value, list) and value:
        return tuple(_text(row, key, answer) for answer in value)
    if not isinstance(value, str):
        raise _wrong_type(row, key, "a text or a list of texts", value)
    return (_text(row, key, value),)


def _choices(row: Row, completion: str) -> tuple[str, ...]:
    value = row.values.get("choices")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) < 2:
        raise _wrong_type(row, "choices", "a list of at least two texts", value)
    choices = tuple(_text(row, "choices", choice) for choice in value)
    if completion not in choices:
        raise _error(row, f"the completion {short(completion)} isn't one of its choices.", "Write it as in 'choices'.")
    return choices


def _needed(row: Row, key: str) -> Any:
    value = row.values.get(key)
    if value is None:
        found = ", ".join(map(str, row.values))
        raise _error(row, f"the field {key!r} is missing, found {found}.", "Add it to the row.")
    return value


def _text(row: Row, key: str, value: Any, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise _wrong_type(row, key, "a text", value)
    if not may_be_empty and not value.strip():
        raise _error(row, f"{key!r} is empty.", "Fill it, or leave the row out.")
    require_text(f"{row.place}: {key!r}", value)
    return value


def _wrong_type(row: Row, key: str, expected: str, value: Any) -> TaskError:
    return _error(row, f"{key!r} must be {expected}, found {type(value).__name__} {short(value)}.", "Mend the row.")


def _error(row: Row, what: str, hint: str) -> TaskError:
    return TaskError("E-DATA", f"{row.place}: {what}", hint)
