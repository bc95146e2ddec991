"""The shapes of rows that are recognised, by their fields; docs/how_to/data.md shows them.

A row is of the first shape whose needed fields it has. For its other fields see `unread.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lorary.tasks.example import Message
from lorary.tasks.rows.fields import Row, missing, needed, optional_text, row_error, text, texts, wrong_type
from lorary.tasks.rows.turns import is_answer, opening_of, template_of, turns_of

ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
"""Stanford Alpaca's prompts, with the line break at their end that its data has in `text` and alpaca-lora trains on."""


@dataclass(frozen=True)
class Content:
    """What a row asks and answers: a prompt and its accepted answers, or turns of which the last is the answer.

    `answers`: with turns, all accepted texts of the last. `template`: as in `Example`.
    """

    answers: tuple[str, ...]
    prompt: str = ""
    turns: tuple[Message, ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """A shape of rows: its name, the fields it needs, those it reads besides, and how it is read.

    `of_turns`: the first field must be a list, or else the row is of another shape with the same fields.
    """

    name: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    read: Callable[[Row], Content]
    of_turns: bool = False

    @property
    def turns_only(self) -> bool:
        """Tell whether its rows always are conversations."""
        return self.of_turns or "tools" in self.takes

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that it reads."""
        return (*self.needs, *self.takes)

    def gaps(self, keys: set[str]) -> tuple[str, ...]:
        """List what it needs and isn't there."""
        return tuple(key for key in self.needs if key not in keys)


def is_row(values: Mapping[str, object]) -> bool:
    """Tell whether an object has all fields of a shape."""
    keys = {key for key, value in values.items() if value is not None}
    return any(keys.issuperset(shape.needs) for shape in SHAPES)


def shape_of(row: Row) -> Shape:
    """Recognise a row. Raises E-DATA for one that is of no shape, or of half of one."""
    keys = row.keys
    for shape in SHAPES:
        if keys.issuperset(shape.needs) and (not shape.of_turns or isinstance(row.values[shape.needs[0]], list)):
            return shape
    halves = [shape for shape in SHAPES if keys.intersection(shape.needs)]
    if halves:
        gaps = min((shape.gaps(keys) for shape in halves), key=len)
        raise missing(row, gaps[0])
    found = ", ".join(map(str, row.values)) or "none"
    known = ", ".join(f"{{{', '.join(shape.needs)}}}" for shape in SHAPES if not shape.of_turns)
    raise row_error(row, f"expected the fields of a known shape, found {found}.", f"Rename the fields. Known: {known}.")


# ---- conversations --------------------------------------------------------------------------------


def _messages(row: Row, key: str) -> Content:
    return _conversation(row, _with_opening(row, turns_of(row, key, needed(row, key))))


def _prompt_and_completion(row: Row) -> Content:
    prompt = needed(row, "prompt")
    if not isinstance(prompt, str):
        raise wrong_type(row, "prompt", "a text or a list of messages", prompt)
    return Content(texts(row, "completion"), text(row, "prompt", prompt))


def _turns_and_completion(row: Row) -> Content:
    before = _with_opening(row, turns_of(row, "prompt", needed(row, "prompt")))
    completion = needed(row, "completion")
    if not isinstance(completion, list) or not any(isinstance(turn, Mapping) for turn in completion):
        return _conversation(row, before, texts(row, "completion"))
    after = turns_of(row, "completion", completion)
    if len(after) != 1:
        raise row_error(row, f"'completion' has {len(after)} messages, expected one.", "Move the others to 'prompt'.")
    return _conversation(row, before + after)


def _with_opening(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    before = opening_of(row)
    if before and before[0].role == "system" and any(turn.role in ("system", "developer") for turn in turns):
        if before[0].content in [turn.content for turn in turns]:
            before = before[1:]
        else:
            raise row_error(row, "there is a system turn both among the turns and beside them.", "Keep one.")
    return before + turns


def _conversation(row: Row, turns: tuple[Message, ...], answers: tuple[str, ...] = ()) -> Content:
    """Make the content of turns that end in the answer, or that are before these answers."""
    turns = (*turns, Message("assistant", answers[0])) if answers else turns
    last = turns[-1]
    if last.role != "assistant":
        raise row_error(row, f"the last message is of {last.role!r}, expected 'assistant'.", "End with the answer.")
    if not is_answer(last):
        raise row_error(row, "the last message is empty.", "Every row needs an answer.")
    if not any(turn.role == "user" and turn.content.strip() for turn in turns[:-1]):
        raise row_error(row, "no message of 'user' before the answer.", "Every row needs a question.")
    return Content(answers or (last.content,), turns=turns, template=template_of(row))


# ---- prompts that are composed of fields ----------------------------------------------------------


def _instruction(row: Row, given: str, answer: str) -> Content:
    """Read Alpaca's and Dolly's rows: in Alpaca's prompt, or as turns where the row has some before."""
    instruction, more = text(row, "instruction", needed(row, "instruction")), optional_text(row, given)
    answers = texts(row, answer)
    if before := opening_of(row):
        asked = Message("user", f"{instruction}\n{more}" if more else instruction)
        return _conversation(row, (*before, asked), answers)
    form = ALPACA_WITH_INPUT if more else ALPACA
    return Content(answers, form.format(instruction=instruction, input=more))


def _definition(row: Row, given: str, answer: str) -> Content:
    """Read Super-NaturalInstructions: definition, blank line, input, blank line, "Output:"."""
    definition = text(row, "definition", needed(row, "definition"), may_be_empty=True).strip()
    asked = text(row, given, needed(row, given), may_be_empty=bool(definition))
    answers = texts(row, answer)
    if definition:
        asked = "\n\n".join(part for part in (definition, asked.strip(), "Output:") if part)
    return Content(answers, _open(asked, answers))


def _pair(row: Row, question: str, answer: str) -> Content:
    """Read a question as it stands, and its answer; after a system prompt, both are turns."""
    asked, answers = text(row, question, needed(row, question)), texts(row, answer)
    if question in _ASKED_IN_TURNS and (before := opening_of(row)):
        return _conversation(row, (*before, Message("user", asked)), answers)
    return Content(answers, _open(asked, answers))


def _open(prompt: str, answers: tuple[str, ...]) -> str:
    """End a prompt with one space, unless there is white space on either side of the seam: as FLAN is read."""
    return prompt if prompt[-1].isspace() or answers[0][0].isspace() else f"{prompt} "


_OPENING = ("system", "system_prompt", "history")
_TEMPLATE = ("tools", "chat_template_kwargs")
_ASKED_IN_TURNS = ("question", "query")
_PAIRS = (
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("inputs_pretokenized", "targets_pretokenized"),
    ("inputs", "targets"),
    ("input", "target"),
    ("source", "target"),
)


def _pair_shape(question: str, answer: str) -> Shape:
    takes = _OPENING if question in _ASKED_IN_TURNS else ()
    return Shape(f"{question}, {answer}", (question, answer), takes, partial(_pair, question=question, answer=answer))


def _definition_shape(given: str, answer: str) -> Shape:
    needs = ("definition", given, answer)
    return Shape(", ".join(needs), needs, (), partial(_definition, given=given, answer=answer))


SHAPES = (
    *(
        Shape(key, (key,), (*_OPENING, *_TEMPLATE), partial(_messages, key=key))
        for key in ("messages", "conversations", "conversation")
    ),
    Shape(
        "prompt, completion as messages", ("prompt", "completion"), (*_OPENING, *_TEMPLATE), _turns_and_completion,
        of_turns=True,
    ),
    Shape("prompt, completion", ("prompt", "completion"), (), _prompt_and_completion),
    Shape(
        "instruction, input, output", ("instruction", "output"), ("input", *_OPENING),
        partial(_instruction, given="input", answer="output"),
    ),
    Shape(
        "instruction, context, response", ("instruction", "response"), ("context", *_OPENING),
        partial(_instruction, given="context", answer="response"),
    ),
    _definition_shape("input", "output"),
    _definition_shape("inputs", "targets"),
    _pair_shape("input", "output"),
    *(_pair_shape(question, answer) for question, answer in _PAIRS),
)  # fmt: skip
"""In the order in which they are tried."""
