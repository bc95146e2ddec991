"""One thing to learn or to be tested on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A prompt and its completion, as text, with the name of the task it belongs to.

    `references`: all accepted completions, when there are several; `completion` is the one to train on.
    `choices`: the options of a multiple-choice question; `completion` is one of them.
    `messages`: the conversation before the completion, when the data has turns; the model renders it with the
    tokenizer's chat template, and `prompt` is then only the last user turn, for display.
    """

    prompt: str
    completion: str
    task: str = ""
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """All accepted completions, at least one."""
        return self.references or (self.completion,)
