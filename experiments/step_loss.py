"""What a step's loss should be the mean of: all its tokens, or its examples' own means.

    python experiments/step_loss.py [--into runs/step_loss] [--seeds 1 2] [--methods shared poly] [--steps 16]

Trains on six built-in tasks together, three of short and three of long answers, with either loss, from the same start
and in the same batches; scores test examples of each task by both measures. Its results are in docs/log.md. Resumes
where it was.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import lorary as lo

LOSSES = ("tokens", "examples")
SHORT = ("answer_continent", "classify_sentiment", "convert_digits")
LONG = ("rewrite_negative", "rewrite_past", "rewrite_question")


def build(method: str, loss: str, seed: int, steps: int, n_score: int, base: Any, into: Path) -> dict[str, Any]:
    """Train, and score each task."""
    kind, tasks = {"shared": lo.Shared, "poly": lo.Poly}[method], lo.builtin_tasks().only([*SHORT, *LONG])
    # Validation is left out of the comparison: the last weights are kept, and measured once.
    how = {"keep": "last", "n_evaluations": 1, "max_valid": 6, "dropout": 0.0, "lr": 2e-3}
    builder = kind(steps=steps, batch_size=8, loss=loss, seed=seed, **how)
    library = lo.build(builder, tasks, base, into=into / f"{method}-{loss}-{seed}")
    with lo.route(base, library, "uniform" if method == "shared" else "poly") as model:
        return {name: score(model, tasks[name].test[:n_score]) for name in tasks}


def score(model: Any, examples: Any) -> dict[str, float]:
    """Score examples: the mean loss of their tokens, and the mean of their own means."""
    found = model.log_likelihood(examples)
    nats, tokens = [-one.nats for one in found], [one.n_tokens for one in found]
    by_example = statistics.mean(n / t for n, t in zip(nats, tokens, strict=True))
    return {"tokens": sum(nats) / sum(tokens), "examples": by_example}


def rows(scores: dict[str, Any]) -> dict[str, float]:
    """Average over tasks: all, and those of short and of long answers."""

    def mean(names: Any, measure: str = "examples") -> float:
        return statistics.mean(scores[name][measure] for name in names)

    both = (*SHORT, *LONG)
    return {"by examples": mean(both), "by tokens": mean(both, "tokens"), "short": mean(SHORT), "long": mean(LONG)}


def main() -> None:
    """Run what isn't there yet, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("runs/step_loss"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=["shared", "poly"])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--score", type=int, default=10, help="test examples of each task")
    given = parser.parse_args()
    base = lo.load_base()
    for method in given.methods:
        for seed in given.seeds:
            for loss in LOSSES:
                path = given.into / f"{method}-{loss}-{seed}.{given.steps}-{given.score}.json"
                if not path.exists():
                    scores = build(
                        method, loss, seed, given.steps, given.score, base, given.into / f"libs{given.steps}"
                    )
                    path.write_text(json.dumps(scores))
                told = rows(json.loads(path.read_text()))
                print(method, seed, loss, {name: round(value, 3) for name, value in told.items()}, flush=True)


if __name__ == "__main__":
    main()
