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

    @property
    def whole_prompt(self) -> str:
        """All that stands before the completion, as one text: two examples with the same one ask the same thing."""
        if not self.messages:
            return self.prompt
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages)
