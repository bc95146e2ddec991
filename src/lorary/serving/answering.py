"""From what was asked over HTTP to requests for the scheduler, and from their tokens to text that can be awaited."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from lorary.errors import LoraryError, ModelError
from lorary.evaluation.sampling import Sampling
from lorary.model.attached.told_weights import MOST_WEIGHTS
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import stops_of
from lorary.model.decoding.decoder import Request, Token
from lorary.model.decoding.text_stream import TextStream
from lorary.model.text.tokens import encode_prompts
from lorary.serving.scheduler import Ask
from lorary.serving.schema import Asked, Chat, Completion
from lorary.serving.shelf import Found
from lorary.serving.told_routing import Heard
from lorary.tasks.example import Example, Message

_ALL = 1 << 30
_PLAIN = ("role", "content")


@dataclass(frozen=True)
class Piece:
    """Some text of an answer, the tokens that brought it, and why it is the last, if it is: "stop" or "length"."""

    text: str
    tokens: tuple[Token, ...] = ()
    ending: str | None = None


@dataclass(eq=False)
class Answer:
    """One answer: its pieces as they come. `n_prompt` and `n_made`: tokens read and made so far.

    heard: who spoke, if that is asked for.
    """

    n_prompt: int
    heard: Heard | None = None
    ask: Ask = field(init=False)
    n_made: int = 0
    pieces: "asyncio.Queue[Piece | Exception]" = field(default_factory=asyncio.Queue)

    def cancel(self) -> None:
        """Want no more of it."""
        self.ask.is_gone = True

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Give the pieces up to the last one. Raises what kept the model from answering."""
        while True:
            piece = await self.pieces.get()
            if isinstance(piece, Exception):
                raise piece
            yield piece
            if piece.ending:
                return


def examples_of(asked: Chat | Completion, task: str) -> list[tuple[Example, list[int] | None]]:
    """Make the examples that are asked for, each with its prompt's tokens if they were given."""
    if isinstance(asked, Chat):
        turns = tuple(
            Message(turn.role, turn.text, {k: v for k, v in turn.model_dump().items() if k not in _PLAIN})
            for turn in asked.messages
        )
        template = {**(asked.chat_template_kwargs or {}), **({"tools": asked.tools} if asked.tools else {})}
        return [(Example(turns[-1].content, "", task, messages=turns, template=template), None)]
    return [
        (Example(prompt, "", task), None) if isinstance(prompt, str) else (Example("", "", task), prompt)
        for prompt in asked.prompts
    ]


def answers_to(
    asked: Chat | Completion, found: Found, base: BaseModel, most_new: int, *, in_full: bool = False
) -> list[Answer]:
    """Make the answers that are asked for, n of each prompt. Raises E-LENGTH, E-CHAT, E-TOKENS.

    in_full: whether they tell the routing of each token and site.
    """
    answers = []
    examples = examples_of(asked, found.task)
    room = MOST_WEIGHTS // (len(examples) * (asked.n or 1)) if in_full and examples else None
    for example, given in examples:
        prompt = given if given is not None else _encoded(base, example)
        _check_tokens(prompt, base)
        n_new = _n_new(asked, base.max_tokens - len(prompt), most_new)
        for i in range(asked.n or 1):
            heard = Heard(room) if asked.routing or in_full else None
            answers.append(_answer(asked, example, prompt, n_new, base, i, heard))
    return answers


def _encoded(base: BaseModel, example: Example) -> list[int]:
    (row,) = encode_prompts(base.tokenizer, [example], max_tokens=_ALL, options=base.template_options)
    return list(row.prompt)


def _check_tokens(prompt: Sequence[int], base: BaseModel) -> None:
    n_rows = base.hf.get_input_embeddings().num_embeddings
    if not prompt or not all(0 <= number < n_rows for number in prompt):
        raise ModelError("E-TOKENS", f"a prompt must be of tokens from 0 to {n_rows - 1}, at least one.")


def _n_new(asked: Chat | Completion, room: int, most_new: int) -> int:
    wanted = (asked.max_completion_tokens if isinstance(asked, Chat) else None) or asked.max_tokens
    if room < 1 or (wanted is not None and wanted > room):
        what = f"the prompt leaves room for {max(0, room):,} tokens, {wanted or 'at least 1'} were asked for."
        raise ModelError("E-LENGTH", what, "Ask for fewer, or shorten the prompt.")
    usual = most_new if isinstance(asked, Chat) else 16
    return min(wanted or usual, room, most_new)


def _answer(
    asked: Asked, example: Example, prompt: Sequence[int], n_new: int, base: BaseModel, i: int, heard: Heard | None
) -> Answer:
    answer, loop = Answer(len(prompt), heard), asyncio.get_running_loop()
    stream, held = TextStream(base.tokenizer, asked.stops), []

    def tell(piece: Piece | Exception) -> None:
        loop.call_soon_threadsafe(answer.pieces.put_nowait, piece)

    def hear(token: Token) -> bool:
        answer.n_made += 1
        text = "" if token.ending == "stop" else stream.add(token.number)
        if token.ending != "stop":
            if heard is not None and token.spoken is not None:
                heard.hear(token.number, token.spoken)
            held.append(replace(token, spoken=None))
        ending = token.ending or ("stop" if stream.is_over else None)
        text += stream.end() if ending else ""
        if stream.is_cut:
            ending = "stop"
        if text or ending or held:
            tell(Piece(text, tuple(held), ending))
            held.clear()
        return ending is None

    sampling = Sampling(
        1.0 if asked.temperature is None else asked.temperature, asked.top_p or 1.0, asked.top_k or 0,
        asked.seed,
    )  # fmt: skip
    if i:  # the first of many is the answer that a request for one gets
        sampling = sampling.of_row(i)
    stops = frozenset(stops_of(base, [example]))
    request = Request(example, prompt, n_new, hear, stops, sampling, _n_logprobs(asked), _is_echo(asked),
                      heard is not None)  # fmt: skip
    answer.ask = Ask(request, tell)
    return answer


def _n_logprobs(asked: Asked) -> int | None:
    if isinstance(asked, Chat):
        return (asked.top_logprobs or 0) if asked.logprobs else None
    return asked.logprobs if isinstance(asked, Completion) else None


def _is_echo(asked: Asked) -> bool:
    return isinstance(asked, Completion) and bool(asked.echo)


def error_body(error: Exception) -> dict[str, dict[str, object]]:
    """Say an error as OpenAI does."""
    code = error.code if isinstance(error, LoraryError) else "internal_error"
    message = f"{error.message} {error.hint}".strip() if isinstance(error, LoraryError) else "the model failed."
    kind = "invalid_request_error" if isinstance(error, LoraryError) else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
