"""How a command loads its base and reads its data: options that all such commands have, in groups."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from lorary.cli.options.groups import Group
from lorary.cli.options.parameters import (
    Answers,
    Device,
    DeviceOrRecipe,
    Dtype,
    DtypeOrRecipe,
    Ignore,
    WhichAnswers,
    count_option,
)

MaxTokens = Annotated[
    int | None,
    count_option("Longest text, prompt and answer together, in tokens; by default the base's limit."),
]
TemplateOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        metavar="KEY=VALUE",
        help="Option of the chat template, e.g. enable_thinking=false; repeatable.",
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How attention is computed: eager, sdpa, ...; by default the base's choice."),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(metavar="MAP", help="Spread the base over several devices, as Accelerate does: auto, balanced, ..."),
]

ChatTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Chat template to use instead of the base's, e.g. one that came with an adapter."
    ),
]

VocabSize = Annotated[
    int | None,
    count_option("Rows of the base's embedding before more were added, so that what was made on it then still fits."),
]


@dataclass(frozen=True)
class Loading(Group):
    """Where and how a base is loaded, and how it reads."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    max_tokens: MaxTokens = None
    template_option: TemplateOptions = None
    attention: Attention = None
    device_map: DeviceMap = None
    batch_tokens: Annotated[
        int | None, count_option("Padded tokens scored or generated at once; by default as memory allows.")
    ] = None
    chat_template: ChatTemplate = None
    vocab_size: VocabSize = None

    @property
    def options(self) -> dict[str, Any]:
        """What `load_base` is given."""
        how = {"attention": self.attention, "device_map": self.device_map}
        return {
            "device": self.device, "dtype": self.dtype, "max_tokens": self.max_tokens,
            "template_options": template_options(self.template_option), "batch_tokens": self.batch_tokens,
            "chat_template": self.chat_template, "vocab_size": self.vocab_size,
            **{key: value for key, value in how.items() if value is not None},
        }  # fmt: skip


@dataclass(frozen=True)
class RecipeLoading(Group):
    """The same of a build, whose recipe may say it."""

    device: DeviceOrRecipe = None
    dtype: DtypeOrRecipe = None
    attention: Attention = None
    max_tokens: MaxTokens = None
    template_option: TemplateOptions = None
    chat_template: ChatTemplate = None
    vocab_size: VocabSize = None

    @property
    def options(self) -> dict[str, Any]:
        """What a recipe holds of it, as far as it is given."""
        given = {"device": self.device, "dtype": self.dtype, "max_tokens": self.max_tokens}
        known = {"attention": self.attention, "chat_template": self.chat_template, "vocab_size": self.vocab_size}
        return given | known | {"template_options": template_options(self.template_option)}


def template_options(texts: list[str] | None) -> dict[str, Any]:
    """Read key=value pairs; a value is JSON, or else a text. Raises a usage error for what is no pair."""
    found: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint="--template-option")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


@dataclass(frozen=True)
class Reading(Group):
    """How tasks are read."""

    ignore: Ignore = None
    answers: WhichAnswers = None

    @property
    def options(self) -> dict[str, Any]:
        """What `read_tasks` is given."""
        return {"ignore": tuple(self.ignore or ()), "answers": (self.answers or Answers.LAST).value}
