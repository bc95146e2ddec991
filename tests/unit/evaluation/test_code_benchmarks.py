"""Benchmarks of code: prompts in the paper's form and the harness's, and reference programs that pass their tests."""

from typing import Any

import pytest

from benchmark_rows import HUB, OURS
from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.benchmarks.humaneval import HumanEval
from lorary.evaluation.benchmarks.mbpp import MBPP
from lorary.evaluation.sandbox.judge import judge, require
from lorary.evaluation.sandbox.limits import Limits, Program, Verdict
from lorary.tasks.rows.fields import Row

ODD = [
    "import math\r\ndef circle(r):\r\n  if r < 0:\r\n    return 0\r\n  return math.pi * r * r",
    "R = 3\ndef helper(x): return x + R\ndef main(x):\n\tif x:\n\t    return helper(x)\n\treturn 0",
    "class Pair(object):\n    def __init__(self, a):\n        self.a = a\ndef first(pair):\n    return pair.a",
    "def mixed(x):\n  if x:\n\t  return 1\n  else:\n        return 0",
    "def noted(x):\n# a note\n  return x",
]
"""Reference code as rows have it: carriage returns, helpers, classes, tabs among blanks, notes without indent."""
ASSERTS = ["assert circle(0) == 0", "assert main(1) == 4", "assert first(Pair(2)) == 2", "assert mixed(1) == 1",
           "assert noted(5) == 5"]  # fmt: skip


def rows(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}", "x", None) for number, row in enumerate(values, start=1)]


def test_humaneval_asks_for_the_rest_of_a_function() -> None:
    paper, harness = (HumanEval(prompts=whose).examples(rows(OURS["humaneval"])) for whose in ("paper", "harness"))
    assert paper[0].prompt == 'def double(x):\n    """Double it."""\n'
    assert harness[0].prompt == "\n\n" + paper[0].prompt
    assert paper[0].completion == "    return 2 * x\n"
    assert paper[0].tests == "def check(candidate):\n    assert candidate(2) == 4\n\ncheck(double)\n"


def test_mbpp_describes_a_function_by_its_tests() -> None:
    *_, last = MBPP().examples(rows(HUB["mbpp"]))
    assert last.prompt == (
        'def add_13(x):\n\t"""\n\tWrite a function to add 13.\n\tassert add_13(1) == 14\n'
        '\tassert add_13(0) == 13\n\tassert add_13(2) == 15\n\t"""\n'
    )
    assert last.completion == "\treturn x + 13"
    assert last.tests.startswith("import math\nassert add_13(1) == 14\n")


def test_only_the_test_part_of_mbpp_is_scored() -> None:
    every = [{**OURS["mbpp"][0], "task_id": n} for n in (1, 10, 11, 510, 511, 974)]
    assert len(MBPP().examples(rows(every))) == 2
    with pytest.raises(EvaluationError, match=r"E-EVAL.*rows.jsonl:1.*no row has a task_id from 11 to 510"):
        MBPP().examples(rows(every[:2]))


def test_the_harness_shows_solved_programs_and_never_scores_them() -> None:
    examples = MBPP(prompts="harness").examples(rows(OURS["mbpp"]))
    assert len(examples) == 3
    assert examples[0].prompt.startswith(
        "You are an expert Python programmer, and here is your task: Write a function to add 2. Your code should pass "
        "these tests:\n\nassert add_2(1) == 3\nassert add_2(0) == 2\nassert add_2(2) == 4\n[BEGIN]\n"
        "def add_2(x):\n    return x + 2\n[DONE]\n\nYou are"
    )
    assert examples[0].prompt.endswith("assert add_11(2) == 13\n[BEGIN]\n")
    assert examples[0].prompt.count("[DONE]") == 3
    alone = MBPP(prompts="harness", shots=1).examples(rows(OURS["mbpp"][4:]))
    assert [example.completion.split("(")[0] for example in alone] == ["def add_12", "def add_13"]


def test_decoding_is_whose_the_prompts_are() -> None:
    paper, harness = HumanEval().evaluator, HumanEval(prompts="harness").evaluator
    assert (paper.temperature, paper.top_p, paper.max_new_tokens, paper.answer) == (0.05, 0.95, 300, "block")
    assert (harness.temperature, harness.max_new_tokens, harness.answer) == (0.0, 1024, "rest")
    assert MBPP(prompts="harness").evaluator.stop == ("[DONE]",)
    many = MBPP(n_samples=5, k=2, temperature=0.8, seed=3, sandbox="none").evaluator
    assert (many.n_samples, many.k, many.temperature, many.seed, many.sandbox) == (5, 2, 0.8, 3, "none")
    with pytest.raises(OptionError, match="k=2, expected at most n_samples, 1"):
        HumanEval(k=2).evaluator.check([])
    with pytest.raises(OptionError, match="E-OPTION.*humaneval: n_samples=0, expected 1 or more"):
        HumanEval(n_samples=0)


@pytest.mark.slow
def test_reference_programs_pass() -> None:
    try:
        require("bubblewrap")
    except EvaluationError as error:
        pytest.skip(str(error))
    odd = [
        {"task_id": 20 + n, "text": "Write it.", "code": code, "test_list": [test]}
        for n, (code, test) in enumerate(zip(ODD, ASSERTS, strict=True))
    ]
    found = [*MBPP().examples(rows([*OURS["mbpp"], *odd])), *HumanEval().examples(rows(OURS["humaneval"]))]
    programs = [Program(example.prompt + example.completion, example.tests) for example in found]
    assert judge(programs, Limits()) == [Verdict(True)] * len(found)
