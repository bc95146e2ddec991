"""The card of a library on the Hub: the library's own, with results, licence and base as the Hub's pages read them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from huggingface_hub import EvalResult, ModelCard

from lorary.errors import LibraryError, OptionError
from lorary.library.adapter.expert import Expert
from lorary.library.card import MARK, make_card, public_base_name
from lorary.library.hub.privacy import what_is_private

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_METRICS = {"exact_match": "exact_match", "rouge_l": "rouge", "choice": "accuracy", "perplexity": "loss"}
"""Our metrics under the names that the Hub has for them."""


class Results(Protocol):
    """Scores of one model, as `lorary.Scores` has them."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def metric(self) -> str: ...  # noqa: D102

    @property
    def unit(self) -> str: ...  # noqa: D102

    @property
    def header(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def mean(self) -> float: ...  # noqa: D102

    def per_task(self) -> dict[str, float]: ...  # noqa: D102


def is_written_by_us(text: str) -> bool:
    """Tell whether a card is one that lorary wrote, and may write anew."""
    return MARK in text


def hub_card(
    title: str,
    base: Mapping[str, object] | None,
    experts: Sequence[Expert],
    results: Sequence[Results] = (),
    own: str | None = None,
) -> str:
    """Make the card, or bring the user's `own` up to date: what its front matter says of base and licence stands.

    Raises E-PRIVATE for a card that holds a secret or a path of the user's, E-LIBRARY for one that can't be read.
    """
    try:
        card = ModelCard(own if own is not None else make_card(title, base, experts))
    except ValueError as error:
        raise LibraryError("E-LIBRARY", f"README.md: its front matter can't be read ({error}).", "Mend it.") from None
    data: Any = card.data
    data.library_name = data.library_name or "peft"
    data.base_model = data.base_model or public_base_name(base, experts)
    data.tags = list(dict.fromkeys([*(data.tags or []), "lora", "lorary", "lora-library"]))
    if not data.license:
        for field, value in _licence(experts).items():
            setattr(data, field, value)
    if results:
        data.model_name, data.eval_results = title, [row for one in results for row in _rows(one)]
    text = str(card)
    if found := what_is_private(text):
        raise LibraryError("E-PRIVATE", f"README.md holds {found}, and nothing was sent.", "Take it out of the file.")
    return text


def require_ours(results: Sequence[Results], library_hash: str) -> None:
    """Refuse results of another library, which would be a false claim. Raises E-OPTION."""
    for one in results:
        model = one.header["model"]
        of = model.get("library", library_hash)
        if of != library_hash and not model.get("max_share"):  # with which some are left out
            what = f"the scores {one.name!r} are of a library with other experts than this one."
            raise OptionError("E-OPTION", what, "Score this library, as it is now: lorary eval.")


def _licence(experts: Sequence[Expert]) -> dict[str, str]:
    """Say under what licence all of them are; of several the Hub is told that the card has them."""
    known = {expert.provenance.licence.strip() for expert in experts}
    if known <= {""}:
        return {}
    if len(known) == 1 and _LICENCE.fullmatch(only := known.pop()):
        return {"license": only}
    return {"license": "other", "license_name": "see-the-table-of-experts"}


def _rows(one: Results) -> list[EvalResult]:
    """Give a result for each task, and their mean, as tables have it, for several."""
    name, _, options = one.metric.partition(":")
    per_task, router = one.per_task(), one.header["model"].get("router", "")
    how = f"{one.metric}, {one.unit}{f', router {router}' if router else ''} ({one.name})"
    values = {**per_task, **({"mean over all tasks": one.mean} if len(per_task) > 1 else {})}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=re.sub(r"[^\w.-]+", "-", task),
            dataset_name=task,
            dataset_split="test",
            metric_type=_METRICS.get(name, name),
            metric_value=round(value, 6),
            metric_name=how,
            metric_args={"options": options} if options else None,
        )
        for task, value in values.items()
    ]
