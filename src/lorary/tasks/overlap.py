"""How much of an accepted answer a free text keeps."""

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from lorary.tasks.example import Example


def overlaps(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
    """Compute 100 times the Rouge-L F measure of stemmed words for each answer, the best over those accepted.

    Source: Google's `rouge-score`, whose tokenizer keeps a-z and 0-9 only.
    """
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return [
        100.0 * scorer.score_multi(example.answers, answer)["rougeL"].fmeasure
        for example, answer in zip(examples, answers, strict=True)
    ]
