"""What may be asked over HTTP, and its bounds: OpenAI's fields, those that would be ignored refused by name."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Text = Annotated[str, Field(max_length=4_000_000)]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)]

_WITHOUT_EFFECT = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields of OpenAI's that change no answer."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "best_of": (None, 1),
    "suffix": (None, ""),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "function_call": (None,),
    "functions": (None, []),
    "modalities": (None, ["text"]),
}
"""Fields that aren't supported, and the values with which they ask for nothing."""


class StreamOptions(BaseModel):
    """include_usage: one more piece at the end, with the counts."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class Asked(BaseModel):
    """What both endpoints take. routing, which OpenAI doesn't have: whether an answer says which experts made it."""

    model_config = ConfigDict(extra="forbid")

    model: str
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    seed: int | None = None
    stop: Stop | Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    routing: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, values: Any) -> Any:
        """Take away the fields that change nothing; refuse those that would and can't."""
        if not isinstance(values, dict):
            return values
        for name, neutral in _NEUTRAL.items():
            if name in values and name not in cls.model_fields and values[name] not in neutral:
                raise ValueError(f"{name} isn't supported.")
        left_out = (_WITHOUT_EFFECT | _NEUTRAL.keys()) - cls.model_fields.keys()
        return {name: value for name, value in values.items() if name not in left_out}

    @property
    def stops(self) -> list[str]:
        """The texts before which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class Completion(Asked):
    """/v1/completions: prompts as text or as tokens, one or several."""

    prompt: Text | list[Text] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or tokens."""
        if isinstance(self.prompt, str) or (self.prompt and isinstance(self.prompt[0], int)):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]


class Load(BaseModel):
    """/v1/load_lora_adapter, as vLLM has it. load_inplace: in the place of the expert of that name, if there is one."""

    model_config = ConfigDict(extra="forbid")
    lora_name: Annotated[str, Field(max_length=300)]
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]
    load_inplace: bool = False


class Unload(BaseModel):
    """/v1/unload_lora_adapter; the number that vLLM also takes says nothing here."""

    model_config = ConfigDict(extra="forbid")
    lora_name: Annotated[str, Field(max_length=300)]
    lora_int_id: int | None = None


class Part(BaseModel):
    """A piece of a turn; only text is read."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Text


class Turn(BaseModel):
    """One turn of a chat; what else it holds goes to the chat template."""

    model_config = ConfigDict(extra="allow")
    role: Annotated[str, Field(max_length=64)]
    content: Text | list[Part] | None = None

    @property
    def text(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Chat(Asked):
    """/v1/chat/completions."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @field_validator("messages")
    @classmethod
    def _ends_with_a_question(cls, turns: list[Turn]) -> list[Turn]:
        if turns[-1].role == "assistant":
            raise ValueError("the last turn is the assistant's: there is nothing to answer.")
        return turns
