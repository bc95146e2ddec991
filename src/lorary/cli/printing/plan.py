"""What a build will cost, as --dry-run prints it. Trains nothing and writes nothing."""

from typing import TYPE_CHECKING, Any

from lorary.cli.printing.console import print_json, print_table, say
from lorary.cli.printing.pace import in_time
from lorary.cli.printing.samples import samples, show_samples

if TYPE_CHECKING:
    from lorary.building.estimate import Cost, Estimate
    from lorary.building.recipe import Recipe

_COLUMNS = ("expert", "steps", "train", "valid", "tasks", "tokens", "bytes", "pack")


def print_plan(recipe: "Recipe", json: bool) -> None:
    """Print a recipe's jobs with their costs and the sum; findings about the data and samples go to stderr."""
    from lorary.building.contract import plan_jobs
    from lorary.building.estimate import estimate
    from lorary.model.base.embedded_needs import EMBEDDED
    from lorary.model.base.outline import name_of, outline
    from lorary.tasks.look import look
    from lorary.tasks.rows.unread import in_words

    tasks = recipe.read_tasks()
    seen = look(tasks)
    for finding in seen.findings:
        say(finding)
    if seen.unread:
        say(f"not read: {in_words(seen.unread)}")
    name = recipe.base or EMBEDDED
    base = outline(name)
    shown = samples(tasks, base)
    jobs = plan_jobs(recipe.builder, tasks, recipe.open_source())
    found = estimate(recipe.builder, jobs, base, name_of(name))
    if json:
        return print_json({**_plain(found), "unread": seen.unread, "samples": shown})
    show_samples(shown)
    print_table([_COLUMNS, *map(_row, found.jobs)])
    return print(_in_words(found, name))


def _row(cost: "Cost") -> list[object]:
    examples = cost.facts.get("examples", {})
    counts = (examples.get("train"), examples.get("valid"), len(cost.facts.get("tasks", ())))
    numbers = (cost.tokens, cost.product_bytes, cost.pack)
    return [cost.job, cost.steps, *("-" if n is None else n for n in (*counts, *numbers))]


def _in_words(found: "Estimate", base: str) -> str:
    from lorary.disk.writing import megabytes

    steps, size = sum(cost.steps for cost in found.jobs), found.product_bytes
    parts = [f"{len(found.jobs)} jobs, {steps:,} steps", f"about {found.tokens:,} tokens to train on"]
    parts += [f"{megabytes(size)} of experts"] if size is not None else []
    sentences = [", ".join(parts) + "."]
    if not found.tokens_are_counted:
        missing = (
            f"Base {base!r} isn't on this machine: tokens are estimated from characters; bytes and packs are unknown."
        )
        sentences.append(missing)
    if found.seconds is not None:
        rate = f"{found.tokens_per_s:,.0f} tokens a second, which was measured here"
        sentences.append(f"About {in_time(found.seconds)} for one worker at {rate}.")
    return " ".join(sentences)


def _plain(found: "Estimate") -> dict[str, Any]:
    jobs = [
        {**cost.facts, "tokens": cost.tokens, "bytes": cost.product_bytes, "pack": cost.pack} for cost in found.jobs
    ]
    return {
        "jobs": jobs,
        "steps": sum(cost.steps for cost in found.jobs),
        "tokens": found.tokens,
        "tokens_are_counted": found.tokens_are_counted,
        "bytes": found.product_bytes,
        "seconds": found.seconds,
        "tokens_per_s": found.tokens_per_s,
    }
