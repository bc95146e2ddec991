"""The card of the built-in tasks, one section a task."""

from .recipe import Recipe, Row

HEAD = """# Built-in tasks

Small tasks for the quickstart, the demo and the tests: {n_train} to train on and {n_heldout} to hold out,
{n_rows:,} examples in all. They are short (prompt and completion about 20 tokens), so that an adapter trains on a CPU
in under a minute.

In every task, no prompt is in two parts, and neither is what it asks about: a person, a country, a number, a
sentence. The held-out tasks are related to the others but different. They show how a library does on
something new; they are too small and too regular to measure how good a model is.

This project made them with `tools/make_builtin_tasks.py` from sentences, rules and facts written for it; no text is
copied from elsewhere. People, firms, teams and orders are invented. Licence: Apache-2.0, like the project. This page
and the data are generated: change the tool, not the files.

| task | kind | train | valid | test | example |
| --- | --- | --- | --- | --- | --- |
"""
TITLES = {"to_train": "Tasks to train on", "held_out": "Tasks to hold out"}


def card(made: dict[str, list[tuple[Recipe, list[Row]]]]) -> str:
    """Write the card: a table of all tasks, then a section for each."""
    everything = [pair for pairs in made.values() for pair in pairs]
    text = HEAD.format(
        n_train=len(made["to_train"]), n_heldout=len(made["held_out"]), n_rows=sum(len(rows) for _, rows in everything)
    )
    text += "".join(_table_row(recipe, rows) for recipe, rows in everything)
    for folder, pairs in made.items():
        text += f"\n## {TITLES[folder]}\n" + "".join(_section(recipe, rows) for recipe, rows in pairs)
    return text


def _table_row(recipe: Recipe, rows: list[Row]) -> str:
    counts = " | ".join(str(sum(row["split"] == part for row in rows)) for part in ("train", "valid", "test"))
    return f"| {recipe.name} | {recipe.kind} | {counts} | {rows[0]['prompt'].strip()} → {rows[0]['completion']} |\n"


def _section(recipe: Recipe, rows: list[Row]) -> str:
    shown = "\n".join(f"- {row['prompt'].strip()} → `{row['completion']}`" for row in rows[1:4])
    answers = sorted({row["completion"] for row in rows})
    labels = f" Answers: {', '.join(answers)}." if len(answers) <= 8 else f" Distinct answers: {len(answers)}."
    return f"\n### {recipe.name}\n\n{recipe.what}{labels}\n\nHow it's made: {recipe.how}\n\n{shown}\n"
