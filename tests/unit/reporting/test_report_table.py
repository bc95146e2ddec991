import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from lorary.errors import EvaluationError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores
from lorary.reporting.table import make_table


def run(name, *values, metric="rouge_l", unit="0-100", up=True, task="t", data="0"):
    header = {
        "name": name,
        "metric": metric,
        "options": {},
        "unit": unit,
        "higher_is_better": up,
        "model": {},
        "tasks": {task: {"n_examples": len(values), "hash": data}},
    }
    return Scores(header, tuple(Outcome(task, i, float(v)) for i, v in enumerate(values)))


def small_table():
    loss = {"metric": "perplexity", "unit": "nats per token", "up": False}
    return make_table(
        {
            "seen": [run("base", 10, 10), run("arrow", 30, 30), run("arrow-oracle", 50, 50), run("base", 2, 2, **loss)],
            "new": [run("arrow", 1.5, 1.5, task="u", **loss), run("base", 2.5, 2.5, task="u", **loss)],
        },
        labels={"rouge_l": "Rouge-L"},
    )


def test_markdown_is_laid_out_as_found():
    assert small_table().to_markdown().splitlines() == [
        "|  | seen: Rouge-L ↑ (0-100) | seen: perplexity ↓ (nats per token) | new: perplexity ↓ (nats per token) |",
        "| :-- | --: | --: | --: |",
        "| base | 10.0 [10.0, 10.0] | **2.000** [2.000, 2.000] | 2.500 [2.500, 2.500] |",
        "| arrow | **30.0** [30.0, 30.0] | – | **1.500** [1.500, 1.500] |",
        "| arrow-oracle | 50.0 [50.0, 50.0] | – | – |",
        "",
        "Brackets: 95 % interval, bootstrap over examples. Bold: best of the column, oracles aside.",
    ]


def test_an_oracle_can_not_win_unless_told():
    runs = {"seen": [run("a", 1), run("a-oracle", 2)]}
    assert [row.cells[0].best for row in make_table(runs).rows] == [True, False]
    assert [row.cells[0].best for row in make_table(runs, oracles=()).rows] == [False, True]
    assert [row.is_oracle for row in make_table(runs, oracles=["a"]).rows] == [True, False]


def test_equals_are_both_best_unless_all_are_equal():
    def best(*means):
        return [row.cells[0].best for row in make_table({"g": [run(f"r{m}{i}", m) for i, m in enumerate(means)]}).rows]

    assert best(1, 1, 0) == [True, True, False]
    assert best(0, 0, 0) == best(1, 1, 1) == [False] * 3
    assert best(0) == [True]
    runs = {"g": [run("a", 0), run("b", 0), run("b-oracle", 5)]}
    assert not any(row.cells[0].best for row in make_table(runs).rows), "an oracle is no rival"


def test_json_holds_every_number(table):
    found = json.loads(table.to_json())
    assert [column["group"] for column in found["columns"]] == ["trained tasks"] * 2 + ["unseen tasks"] * 2
    assert found["columns"][0]["n_examples"] == 320
    assert found["rows"][6] == {
        "name": "private-oracle",
        "cells": [pytest.approx(cell) for cell in found["rows"][6]["cells"][:2]] + [None, None],
        "is_oracle": True,
    }


def test_rich_shows_names_as_they_are():
    console = Console(file=io.StringIO(), width=120)
    console.print(make_table({"[red]g": [run("[bold]a", 1)]}, title="a [/x] :smile:").to_rich())
    assert "a [/x] :smile:" in console.file.getvalue()
    assert "[bold]a" in console.file.getvalue()
    assert "[red]g" in console.file.getvalue()


def shown(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(table.to_rich())
    return console.file.getvalue()


def numbers_of(table):
    cells = [(cell, column) for row in table.rows for cell, column in zip(row.cells, table.columns) if cell]
    return [f"{value:.{column.decimals}f}" for cell, column in cells for value in (cell.mean, cell.low, cell.high)]


@pytest.mark.parametrize(("width", "n_tables"), [(120, 1), (100, 2), (80, 2), (50, 4)])
def test_no_name_and_no_number_is_cut(table, width, n_tables):
    text = shown(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert re.findall(r"^│ (\S+)", text, re.M) == [row.name for row in table.rows] * n_tables
    assert sorted(re.findall(r"-?\d+\.\d+", text)) == sorted(numbers_of(table))
    assert text.count("Brackets") == 1


def test_intervals_stand_on_their_means_line_from_80_columns_on(table):
    arrow = [line for line in shown(table, 80).splitlines() if line.startswith("│ private-arrow ")]
    assert [line.count("[") for line in arrow] == [2, 2]
    assert [line.count("[") for line in shown(table, 50).splitlines() if "private-arrow" in line] == [0] * 4


def test_names_are_folded_where_they_are_wider_than_the_terminal():
    text = shown(make_table({"g": [run("a-name-of-forty-letters-in-a-narrow-place", 1)]}, title="T"), 30)
    parts = re.findall(r"^│ (\S+)", text, re.M)
    assert len(parts) > 1 and "".join(parts) == "a-name-of-forty-letters-in-a-narrow-place"
    assert max(map(len, text.splitlines())) <= 30


def test_the_title_stands_above_the_first_table_and_the_note_below_the_last(table):
    lines = shown(dataclasses.replace(table, title="First results"), 80).splitlines()
    assert lines[0].strip() == "First results"
    assert lines[-1].strip().endswith("oracles aside.") and "First results" not in lines[1:]


def test_html_escapes_what_others_named():
    bad = "<img src=x onerror=alert(1)>"
    html = make_table({bad: [run(bad, 1, metric=bad, unit=bad)]}, title=bad).to_html()
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") == 5


def test_markdown_escapes_the_bars():
    assert "a\\|b" in make_table({"g": [run("a|b", 1)]}).to_markdown()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (
            [run("a", 1), run("a", 2)],
            "error[E-REPORT] column 'g', rouge_l: two runs are called 'a'. Give each its own name.",
        ),
        (
            [run("a", 1), run("b", 1, data="1")],
            "error[E-REPORT] column 'g', rouge_l: 'a' and 'b' were measured on different test examples. "
            "Evaluate both on the same tasks with the same limit.",
        ),
    ],
)
def test_what_can_not_be_compared_shares_no_column(runs, message):
    with pytest.raises(EvaluationError) as caught:
        make_table({"g": runs})
    assert str(caught.value) == message
