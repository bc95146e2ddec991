"""How often the router lets the right expert speak the loudest, where the answer begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.building.training.job import expert_name
from lorary.evaluation.contract import Evaluator, LanguageModel, Outcome
from lorary.model.routed.routed_model import RoutedModel
from lorary.tasks.example import Example


@dataclass(frozen=True)
class RoutingAccuracy(Evaluator):
    """Share of examples whose own expert has the largest weight at the prompt's last token, the mean over the sites.

    Value 100 or 0 per example; `details` hold its weight (0 to 1). Needs a routed model whose experts are named after
    the tasks: a private library.
    """

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Read each prompt with the routings recorded."""
        assert isinstance(model, RoutedModel)
        return [self._outcome(model, index, example) for index, example in enumerate(examples)]

    def _outcome(self, model: RoutedModel, index: int, example: Example) -> Outcome:
        last = model.explain(example, max_new_tokens=0).shares[-1]  # (E,)
        own = model.names.index(expert_name(example.task))
        return Outcome(example.task, index, 100.0 * (int(last.argmax()) == own), {"weight": float(last[own])})
