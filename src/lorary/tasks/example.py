"""One thing to learn or to be tested on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lorary.errors import TaskError
from lorary.hashing import SKIP_DEFAULT


def _empty() -> Any:
    return field(default_factory=dict, hash=False, metadata=SKIP_DEFAULT)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. Raises E-DATA for what isn't text.

    `extra`: what else the chat template is given of the turn (`tool_calls`, `name`, `reasoning_content`, ...), as JSON
    values.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = _empty()

    def __post_init__(self) -> None:
        """Look at both."""
        for name in ("role", "content"):
            require_text(f"message: {name!r}", getattr(self, name))

    def __str__(self) -> str:
        """Write it as one text."""
        return f"{self.role}: {self.content}" + (f" {_canonical(self.extra)}" if self.extra else "")


@dataclass(frozen=True)
class Example:
    """A prompt and its completion, as text, with the name of the task it belongs to. Raises E-DATA for what isn't text.

    `references`: all accepted completions, when there are several; `completion` is the one to train on.
    `choices`: the options of a multiple-choice question; `completion` is one of them.
    `contexts`: the options of a question whose options are prompts, one of them `prompt`, and share the completion.
    `messages`: the conversation before the completion, when the data has turns; the model renders it with the
    tokenizer's chat template, and `prompt` is then only the last user turn, for display.
    `extra`: with messages, what else the answer's turn has, as `Message.extra`.
    `template`: with messages, what else the chat template is given: `tools`, and options such as `enable_thinking`.
    `tests`: where the answer is code, the program that fails behind it if it is wrong; only a sandbox runs it.
    """

    prompt: str
    completion: str
    task: str = ""
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    extra: Mapping[str, Any] = _empty()
    template: Mapping[str, Any] = _empty()
    contexts: tuple[str, ...] = field(default=(), metadata=SKIP_DEFAULT)
    tests: str = field(default="", metadata=SKIP_DEFAULT)

    def __post_init__(self) -> None:
        """Look at every text."""
        for name in ("prompt", "completion", "task", "tests"):
            require_text(f"example: {name!r}", getattr(self, name))
        for name in ("references", "choices", "contexts"):
            for text in getattr(self, name):
                require_text(f"example: {name!r}", text)

    @property
    def answers(self) -> tuple[str, ...]:
        """All accepted completions, at least one."""
        return self.references or (self.completion,)

    @property
    def whole_prompt(self) -> str:
        """Everything before the completion, as one text, with what else the chat template is given."""
        if not self.messages:
            return self.prompt
        given = [f"template: {_canonical(self.template)}"] if self.template else []
        return "\n".join((*given, *map(str, self.messages)))

    @property
    def question(self) -> str:
        """The question, which identifies the example: blanks at the end of a prompt belong to the answer."""
        return self.whole_prompt if self.messages else self.prompt.rstrip(" \t")

    @property
    def answer(self) -> str:
        """The answer, as one text: the completion, with what else the answer's turn has."""
        return self.completion + (f" {_canonical(self.extra)}" if self.extra else "")


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def require_text(what: str, value: object) -> None:
    """Refuse what no tokenizer, hash or file can take: no text, or one with half a character. Raises E-DATA."""
    if not isinstance(value, str):
        raise TaskError("E-DATA", f"{what} must be a text, found {type(value).__name__} {short(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise TaskError("E-DATA", f"{what} holds half a character ({half}).", "Write the text as UTF-8.") from None


def short(value: object) -> str:
    """Show the beginning of a value."""
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
