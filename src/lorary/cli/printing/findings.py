"""What a study will cost, and what it found, as it is printed."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lorary.cli.printing.console import print_json, print_table
from lorary.cli.printing.pace import in_time

if TYPE_CHECKING:
    from lorary.studies.contract import Verdict
    from lorary.studies.cost import Cost
    from lorary.studies.run_study import Finished


def print_costs(costs: "list[Cost]", tokens_per_s: float | None, json: bool) -> None:
    """Print the parts of a study with their costs, and the sums. tokens_per_s: what training passed here, if known."""
    steps, tokens = sum(cost.steps for cost in costs), sum(cost.tokens for cost in costs)
    trained = sum(cost.tokens for cost in costs if cost.steps)
    seconds = trained / tokens_per_s if tokens_per_s else None
    if json:
        sums = {"steps": steps, "tokens": tokens, "tokens_to_train_on": trained, "training_seconds": seconds}
        return print_json({"parts": [asdict(cost) for cost in costs], **sums})
    rows = [(c.path, *("-" if n is None else n for n in (c.n_experts, c.n_examples, c.steps, c.tokens))) for c in costs]
    print_table([("path", "experts", "examples", "steps", "tokens"), *rows])
    print(f"{len(costs)} parts, {steps:,} steps, about {tokens:,} tokens, {trained:,} of them to train on.")
    if seconds is None:
        return print("How long that takes isn't known: nothing was trained on this base here.")
    return print(
        f"Training takes about {in_time(seconds)} for one worker, at {tokens_per_s:,.0f} tokens a second as was "
        "measured here; scoring comes on top."
    )


def print_findings(done: "Finished", json: bool) -> None:
    """Print tables, then what became of each claim."""
    if json:
        found = {"tables": [asdict(table) for table in done.tables], "verdicts": [*map(_plain, done.verdicts)]}
        return print_json({**found, "report": str(done.report)})
    tables = [f"### {table.title}\n\n{table.to_markdown()}" for table in done.tables]
    return print(*tables, *map(str, done.verdicts), f"report: {done.report}", sep="\n")


def _plain(verdict: "Verdict") -> dict[str, Any]:
    """Write a verdict for machines; an end that nobody knows is null."""
    ends = verdict.interval and [None if end != end else end for end in verdict.interval]
    return {**asdict(verdict), "outcome": verdict.outcome, "interval": ends}
