"""A conversation with a model: what was said goes with every question, through the base's chat template."""

import warnings
from collections.abc import Generator, Sequence

from lorary.asking.stream import Model, explain, require_model, stream
from lorary.errors import ModelError, OptionError
from lorary.evaluation.sampling import GREEDY, Sampling
from lorary.model.decoding.pieces import Stream
from lorary.model.routed.trace import Trace
from lorary.model.text.tokens import encode_prompts
from lorary.tasks.example import Example, Message


class Chat:
    """A conversation. turns: what was said so far. Raises E-CHAT for a base without a chat template."""

    def __init__(
        self, model: Model, *, max_new_tokens: int = 256, stop: Sequence[str] = (), sampling: Sampling = GREEDY,
        system: str = "",
    ) -> None:  # fmt: skip
        require_model(model)
        self.model, self.turns = model, list[Message]()
        self._base = model.base
        self._max_new_tokens, self._stop, self._sampling = max_new_tokens, stop, sampling
        self._before = (Message("system", system),) if system else ()
        self._last: Stream | None = None
        self._n_asked = 0
        if self._base.tokenizer.chat_template is None:
            name = str(self._base.directory or self._base.name)
            hint = (
                "Give one: --chat-template FILE, chat_template=FILE of load_base; or ask without a chat: `lorary ask`."
            )
            raise ModelError("E-CHAT", f"base {name!r} has no chat template.", hint)

    def say(self, text: str) -> Generator[str, None, None]:
        """Say something, and give the answer piece by piece. An answer that is left counts as far as it was given.

        What no longer fits is forgotten, the oldest first, with a warning. Raises as `stream` does.
        """
        asked = Message("user", text)
        answer = stream(
            self.model, self._fitting(asked), max_new_tokens=self._max_new_tokens, stop=self._stop,
            sampling=self._sampling.of_row(self._n_asked),
        )  # fmt: skip
        self._last = answer
        self._n_asked += 1
        said: list[str] = []
        try:
            for piece in answer:
                said.append(piece)
                yield piece
        finally:
            if said:
                self.turns += [asked, Message("assistant", "".join(said))]

    def explain(self) -> Trace:
        """Record which experts the last question and answer used. Raises E-OPTION if there is none, or a bare base."""
        if self._last is None:
            raise OptionError("E-OPTION", "nothing was answered yet.", "Ask something first.")
        return explain(self.model, self._last)

    def reset(self) -> None:
        """Forget all that was said."""
        self.turns.clear()
        self._last, self._n_asked = None, 0

    def _fitting(self, asked: Message) -> Example:
        """Make the example of a question, and forget as much as must be."""
        room, n_before = max(1, self._base.max_tokens - self._max_new_tokens), len(self.turns)
        options = self._base.template_options
        while True:
            example = Example(asked.content, "", messages=(*self._before, *self.turns, asked))
            (row,) = encode_prompts(self._base.tokenizer, [example], max_tokens=room, options=options)
            if not row.n_cut or not self.turns:
                break
            del self.turns[:2]
        if n := (n_before - len(self.turns)) // 2:
            what = f"the first {f'{n} questions and answers' if n > 1 else 'question and answer'} were forgotten"
            warnings.warn(f"{what}: all must fit into {self._base.max_tokens:,} tokens.", RuntimeWarning, stacklevel=3)
        return example
