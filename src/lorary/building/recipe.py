"""A recipe: all of a build in names and paths, so that a file can hold it and any process can work on it.

    tasks = "tasks/"              # a path, a glob or hf://datasets/USER/NAME, or a list of them
    only = ["race", "quail"]      # of these tasks; all by default
    ignore = ["url"]              # fields of rows to leave out; none by default
    answers = "last"              # of a conversation; or "all"
    train_share = 0.1             # of each task's training examples, drawn at random; all by default
    base = "smollm2-135m"
    source = "libs/private"       # the library that merges and adaptations start from
    into = "libs/mbc"
    device = "auto"
    dtype = "auto"
    attention = "eager"           # how it is computed; by default as the base says
    max_tokens = 2048             # longest text; by default what the base reads
    template_options = {enable_thinking = false}
    chat_template = "chat.jinja"  # a file; by default the base's own template
    vocab_size = 32000            # rows of the base's embedding, if others were added since

    [builder]                     # or in one line: builder = "private:rank=4"
    name = "private"
    rank = 4

Paths are as on the command line: relative to the directory where the command runs.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary.disk.reading import near_path, open_file
from lorary.errors import OptionError, known_names
from lorary.folder import BUILDERS
from lorary.library.library import Library
from lorary.options import make
from lorary.tasks.read import read_tasks
from lorary.tasks.rows.row import Answers
from lorary.tasks.task import Tasks

_NEEDED = ("builder", "into")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build, of what, on which base, and where; `base` None: the command line's default."""

    builder: Any
    into: Path
    tasks: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    answers: Answers = "last"
    train_share: float | None = None
    base: str | None = None
    source: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    attention: str | None = None
    max_tokens: int | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict, hash=False)  # recipes are hashed
    chat_template: str | None = None
    vocab_size: int | None = None

    @property
    def loading(self) -> dict[str, Any]:
        """How its base is loaded, as `load_base` takes it."""
        reading = {"max_tokens": self.max_tokens, "template_options": self.template_options}
        known = {"chat_template": self.chat_template, "vocab_size": self.vocab_size}
        return {"device": self.device, "dtype": self.dtype, "attention": self.attention, **reading, **known}

    def read_tasks(self) -> Tasks:
        """Read its tasks; none if it names none, as for a merge. Raises what `read_tasks` raises."""
        how: dict[str, Any] = {"ignore": self.ignore, "answers": self.answers}
        found = read_tasks(list(self.tasks), only=self.only or None, **how) if self.tasks else Tasks([])
        return found if self.train_share is None else found.with_share(self.train_share)

    def open_source(self) -> Library | None:
        """Open the library that it starts from, if it names one."""
        return Library.open(self.source) if self.source else None

    def absolute(self) -> "Recipe":
        """Make its paths hold in any directory; a base is a path if there is such a directory."""
        is_path = self.base is not None and Path(self.base).is_dir()
        return dataclasses.replace(
            self,
            into=self.into.absolute(),
            tasks=tuple(path if path.startswith("hf://") else str(Path(path).absolute()) for path in self.tasks),
            source=self.source.absolute() if self.source else None,
            base=str(Path(self.base).absolute()) if is_path and self.base else self.base,
            chat_template=str(Path(self.chat_template).absolute()) if self.chat_template else None,
        )


def read_recipe(path: Path, given: Mapping[str, object] | None = None) -> Recipe:
    """Read a recipe; what is `given` takes the place of what it says.

    Raises E-OPTION for what isn't TOML or has more than 1 MiB, for an unknown key, a wrong type or a missing one, and
    what the builder raises.
    """
    try:
        with open_file(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise OptionError("E-OPTION", f"recipe {path} has more than {_MOST_BYTES:,} bytes.", "Is this a recipe?")
        content = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        hint = near_path(path) or "Check the path."
        raise OptionError("E-OPTION", f"recipe {path} can't be read: {error.strerror}.", hint) from None
    except RecursionError:
        raise OptionError("E-OPTION", f"recipe {path} is nested too deeply.") from None
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise OptionError("E-OPTION", f"recipe {path} is not TOML: {error}.") from None
    return make_recipe({**content, **(given or {})}, f"recipe {path}")


def make_recipe(values: Mapping[str, object], where: str) -> Recipe:
    """Make a recipe of plain values. `where` is what errors call it. Raises E-OPTION."""
    known = sorted(field.name for field in dataclasses.fields(Recipe))
    for key in values:
        if key not in known:
            raise OptionError("E-OPTION", f"{where}: unknown key {key!r}.", known_names(key, known))
    for key in _NEEDED:
        if key not in values:
            raise OptionError("E-OPTION", f"{where}: {key} is missing.", f'Write {key} = "...".')
    texts = {key: values[key] for key in ("tasks", "only", "ignore") if isinstance(values.get(key), str)}
    lists = {key: (text,) for key, text in texts.items()}  # a path may hold commas
    return make(Recipe, {**values, **lists, "builder": _builder(values["builder"], where)}, called=where)


def _builder(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return BUILDERS.parse(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        expected = 'expected builder = "private:rank=4", or a table [builder] with a name.'
        raise OptionError("E-OPTION", f"{where}: builder={value!r}: {expected}")
    options = {key: option for key, option in value.items() if key != "name"}
    return make(BUILDERS.load(value["name"]), options, called=value["name"])
