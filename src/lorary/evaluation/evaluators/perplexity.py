"""How well the model predicts the right answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.contract import Evaluator, LanguageModel, Outcome
from lorary.tasks.example import Example


@dataclass(frozen=True)
class Perplexity(Evaluator):
    """How surprised the model is by the right answers, in nats per completion token; less is better.

    Value: -log p(completion, end of sequence | prompt) / number of tokens, one mean per example, so long answers
    weigh no more than short ones. `Scores.perplexity` is exp of the mean; `details` hold what a mean over tokens needs.
    Source: Ostapenko et al. 2024 (2405.11157) Fig. 4 prints the same with the other sign.
    """

    unit: ClassVar[str] = "nats per token"
    higher_is_better: ClassVar[bool] = False

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Ask the model for the likelihood of every completion."""
        likelihoods = model.log_likelihood(examples)
        return [
            Outcome(example.task, index, -nats / n_tokens, {"nats": nats, "n_tokens": n_tokens})
            for index, (example, (nats, n_tokens)) in enumerate(zip(examples, likelihoods, strict=True))
        ]
