"""What a builder learned beside its experts: fetched by routers that need "learned"."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from lorary.errors import LoraryError, RoutingError, quote
from lorary.library import derived
from lorary.library.adapter.expert import Expert
from lorary.library.layout import home_of
from lorary.model.ensemble.state_file import most_bytes, read_any, tell_origin, write_state
from lorary.routing.contract import Probe, Split, State


def seal_learned(path: Path, kind: str, key: str) -> None:
    """Write a file that a builder wrote just now anew, with this user's seal. Raises OSError."""
    written = {name: tensor.clone() for name, tensor in load_file(path).items()}  # the file is mapped
    write_state(written, path, *_about(kind, key))


def _about(kind: str, key: str) -> tuple[str, str, str]:
    return "learned", kind, key


@dataclass(frozen=True)
class LearnedProbe(Probe):
    """Answers what was learned, and questions about data if there is a probe for those.

    From the libraries where the experts stand: a model may hold some that came later, or from elsewhere.
    """

    members: Mapping[str, Expert]
    data: Probe | None = None

    def learned(self, kind: str, expert: str | None = None) -> State | None:
        """Load learned/<kind>-<key> of the job that made the expert, or all together; None if there is none."""
        made = [self.members[expert]] if expert else list(self.members.values())
        keys = {one.provenance.extra.get("job") for one in made}
        key = keys.pop() if len(keys) == 1 else None
        if not isinstance(key, str):
            return None
        homes = dict.fromkeys(home_of(one.directory) for one in made)
        paths = (derived.find(home, kind, key, "safetensors", learned=True) for home in homes)
        found = next((path for path in paths if path is not None), None)
        if found is None:
            return None
        try:
            state, is_own = read_any(found, most_bytes(made), *_about(kind, key))
        except LoraryError as error:
            what = f"{quote(str(found), 200)} can't be read: {error.message}"
            raise RoutingError("E-LEARNED", what, "Build the library again.") from error
        if not is_own:
            tell_origin(f"library {quote(found.parent.parent.name)}: what {kind} learned")
        return state

    def sample_texts(self, *, n_texts: int, n_tokens: int, opening: str, seed: int) -> Tensor:
        """Hand on. Raises E-PROBE."""
        return self._data.sample_texts(n_texts=n_texts, n_tokens=n_tokens, opening=opening, seed=seed)

    def over_inputs(
        self, texts: Tensor, sites: Collection[str], ask: Callable[[str, Tensor], Tensor]
    ) -> Mapping[str, Tensor]:
        """Hand on. Raises E-PROBE."""
        return self._data.over_inputs(texts, sites, ask)

    def mean_inputs(
        self, expert: str, *, n_examples: int, per_task: bool = False, after_answer: bool = False,
        every_token: bool = False,
    ) -> Mapping[str, Tensor]:  # fmt: skip
        """Hand on. Raises E-PROBE."""
        return self._data.mean_inputs(
            expert, n_examples=n_examples, per_task=per_task, after_answer=after_answer, every_token=every_token
        )

    def prompt_features(
        self, encoder: str, *, n_examples: int, split: Split = "train", every_task: bool = False
    ) -> tuple[Tensor, Sequence[str]]:
        """Hand on. Raises E-PROBE."""
        return self._data.prompt_features(encoder, n_examples=n_examples, split=split, every_task=every_task)

    def answer_losses(
        self, expert: str, tasks: Sequence[str], *, split: Split, start: int, stop: int
    ) -> Mapping[str, tuple[float, int]]:
        """Hand on. Raises E-PROBE."""
        return self._data.answer_losses(expert, tasks, split=split, start=start, stop=stop)

    @property
    def _data(self) -> Probe:
        if self.data is None:
            raise RoutingError("E-PROBE", 'this router needs data: its `needs` must have "examples".')
        return self.data

    def tasks_of(self, expert: str) -> Sequence[str]:
        """Name the tasks that an expert was trained on."""
        return self.members[expert].provenance.tasks
