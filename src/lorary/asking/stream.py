"""One answer of any model, piece by piece, and which experts made it."""

from collections.abc import Sequence
from dataclasses import replace

from lorary.errors import OptionError
from lorary.evaluation.sampling import GREEDY, Sampling
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import Answering
from lorary.model.decoding.pieces import Stream
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.routed.trace import Trace
from lorary.options import require
from lorary.tasks.example import Example, Message

Model = BaseModel | RoutedModel


def stream(
    model: Model, prompt: str | Example, *, max_new_tokens: int = 64, stop: Sequence[str] = (),
    sampling: Sampling = GREEDY, strip: bool = True,
) -> Stream:  # fmt: skip
    """Answer a prompt piece by piece, as `generate_text` answers it whole.

    Change nothing of the model before the iteration ends: what was read stays as its experts left it.
    Raises, when it is iterated over, E-LENGTH, E-CHAT, E-MEMORY, and E-BASE as `generate_text` does; E-OPTION at once.
    """
    require_model(model)
    require("prompt", prompt, (str, Example), "a text or an example")
    example = prompt if isinstance(prompt, Example) else Example(prompt, "")
    return Stream(model.base, model.caller, example, Answering(max_new_tokens, stop, [sampling], strip))


def require_model(model: object) -> None:
    """Refuse what is no model. Raises E-OPTION."""
    require("model", model, (BaseModel, RoutedModel), "a base or a routed model")


def explain(model: Model, answer: Stream) -> Trace:
    """Record which experts a model uses at each token of a prompt and its answer. Raises E-OPTION for a bare base."""
    if isinstance(model, BaseModel):
        raise OptionError("E-OPTION", "the bare base has no experts to tell of.", "Ask a library.")
    return model.explain(answer.example, max_new_tokens=answer.how.max_new_tokens, answer=answer.tokens)


def as_turn(example: Example) -> Example:
    """Make a plain prompt a user's turn, to go through the chat template; a conversation stays as it is."""
    return example if example.messages else replace(example, messages=(Message("user", example.prompt),))
