"""What a step's loss should be the mean of: all its tokens, or its examples' own means.

    python experiments/step_loss.py [--into runs/step_loss] [--seeds 1 2 3] [--methods shared poly] [--steps 48]

Trains on the built-in tasks together, with either loss, from the same start and in the same batches; scores 16 test
examples of each task by both measures. Its results are in docs/log.md. Resumes where it was.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import lorary as lo

LOSSES = ("tokens", "examples")
SHORT = 12  # letters of an answer, on average: tasks below it have one or a few tokens


def build(method: str, loss: str, seed: int, steps: int, base: Any, into: Path) -> dict[str, dict[str, float]]:
    """Train, and score each task: its loss by tokens and by examples, and the share of its tokens."""
    kind = {"shared": lo.Shared, "poly": lo.Poly}[method]
    # Validation is left out of the comparison: the last weights are kept, and measured once.
    how = {"keep": "last", "n_evaluations": 1, "max_valid": 12, "dropout": 0.0, "lr": 2e-3}
    builder = kind(steps=steps, batch_size=8, loss=loss, seed=seed, **how)
    library = lo.build(builder, lo.builtin_tasks(), base, into=into / f"{method}-{loss}-{seed}")
    with lo.route(base, library, "uniform" if method == "shared" else "poly") as model:
        return {task.name: score(model, task) for task in lo.builtin_tasks().values()}


def score(model: Any, task: Any) -> dict[str, float]:
    """Score a task's first test examples."""
    found = model.log_likelihood(task.test[:16])
    nats, tokens = [-one.nats for one in found], [one.n_tokens for one in found]
    by_example = statistics.mean(n / t for n, t in zip(nats, tokens, strict=True))
    letters = statistics.mean(len(example.answer) for example in task.train)
    return {"tokens": sum(nats) / sum(tokens), "examples": by_example, "letters": letters}


def rows(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Average over tasks: all, and those of short and of long answers."""
    short = [one for one in scores.values() if one["letters"] <= SHORT]
    long = [one for one in scores.values() if one["letters"] > SHORT]
    mean = statistics.mean
    return {
        "all, by examples": mean(one["examples"] for one in scores.values()),
        "all, by tokens": mean(one["tokens"] for one in scores.values()),
        "short answers": mean(one["examples"] for one in short),
        "long answers": mean(one["examples"] for one in long),
    }


def main() -> None:
    """Run what isn't there yet, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("runs/step_loss"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=["shared", "poly"])
    parser.add_argument("--steps", type=int, default=48)
    given = parser.parse_args()
    base = lo.load_base()
    for method in given.methods:
        for seed in given.seeds:
            for loss in LOSSES:
                path = given.into / f"{method}-{loss}-{seed}.{given.steps}.json"
                if not path.exists():
                    scores = build(method, loss, seed, given.steps, base, given.into / f"libs{given.steps}")
                    path.write_text(json.dumps(scores))
                told = rows(json.loads(path.read_text()))
                print(method, seed, loss, {name: round(value, 3) for name, value in told.items()}, flush=True)


if __name__ == "__main__":
    main()
