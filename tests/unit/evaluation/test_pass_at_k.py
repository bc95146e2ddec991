"""Answers become programs, programs verdicts, and verdicts an unbiased estimate."""

from collections.abc import Sequence
from itertools import combinations
from math import comb, isclose

import pytest

from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.evaluators import pass_at_k
from lorary.evaluation.evaluators.pass_at_k import PassAtK, pass_chance
from lorary.evaluation.sampling import Sampling
from lorary.evaluation.sandbox.limits import Limits, Program, Verdict
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks

PROMPT = 'def double(x):\n    """Double it."""\n'
ASKED = Example(PROMPT, "    return 2 * x\n", "code", tests="assert double(2) == 4")
OTHER = Example("def half(x):\n", "    return x / 2\n", "code", tests="assert half(2) == 1")


class Dice:
    """A model whose answers follow from how it is asked."""

    identity = {"base": "fake"}

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = answers, []

    def generate_text(self, examples, *, max_new_tokens, stop=(), sampling=(), strip=True) -> list[str]:
        self.asked.append((list(examples), max_new_tokens, stop, list(sampling), strip))
        seeds = [one.seed for one in sampling] or [0] * len(examples)
        return [self.answers[seed % len(self.answers)] for seed in seeds]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """The programs that were judged: those with "return" in their answer pass."""
    programs: list[Program] = []

    def judge(given: Sequence[Program], limits: Limits, walls: str) -> list[Verdict]:
        programs.extend(given)
        return [Verdict("return" in one.code, "" if "return" in one.code else "AssertionError:") for one in given]

    monkeypatch.setattr(pass_at_k, "judge", judge)
    monkeypatch.setattr(pass_at_k, "require", lambda walls: None)
    return programs


def test_the_estimate_is_the_share_of_draws_with_a_pass() -> None:
    for n in range(1, 7):
        for n_passed in range(n + 1):
            for k in range(1, n + 1):
                draws = [any(one < n_passed for one in draw) for draw in combinations(range(n), k)]
                assert isclose(pass_chance(n, n_passed, k), sum(draws) / comb(n, k), abs_tol=1e-12)


def test_what_runs_is_prompt_answer_and_tests(ran: list[Program]) -> None:
    (outcome,) = PassAtK().score(Dice("    return 2 * x\n    # so"), [ASKED])
    assert ran == [Program(PROMPT + "    return 2 * x\n    # so", ASKED.tests)]
    assert outcome.value == 100.0
    assert outcome.details == {"prediction": "    return 2 * x\n    # so", "verdict": "passed"}


@pytest.mark.parametrize(
    ("answer", "how", "code"),
    [
        ("   return x\n   y\n\ndef next(): pass", "block", PROMPT + "    return x\n    y"),
        ("\n    return x", "block", PROMPT + "    return x"),
        ("\treturn x\n", "block", PROMPT + "\treturn x\n"),
        ("    a = x\n\n    return a", "rest", PROMPT + "    a = x\n\n    return a"),
        ("def double(x):\n    return x", "whole", "def double(x):\n    return x"),
        ("Here:\n```python\nx = 1\n\ny = 2\n```\nand\n```\nz\n```", "fenced", "x = 1\n\ny = 2\n"),
        ("```\nx = 1\n", "fenced", "x = 1\n"),
        ("x = 1", "fenced", "x = 1"),
    ],
)
def test_what_of_an_answer_is_run(answer: str, how: str, code: str) -> None:
    assert PassAtK(answer=how).code(ASKED, answer) == code


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("def f():\n    ", "    return 1"),
        ("def f():\n    ", "return 1"),
        ("def f():\n    return ", "1"),
        ("def f():\n    return ", " 1"),
    ],
)
def test_blanks_at_a_prompts_end_stand_once(prompt: str, answer: str) -> None:
    assert PassAtK().code(Example(prompt, "", tests="f()"), answer).split() == ["def", "f():", "return", "1"]
    space: dict = {}
    exec(PassAtK().code(Example(prompt, "", tests="f()"), answer), space)
    assert space["f"]() == 1


def test_answers_are_asked_for_as_the_paper_does(ran: list[Program]) -> None:
    model = Dice("x")
    (outcome,) = PassAtK().score(model, [ASKED])
    ((_, most, stop, (sampling,), strip),) = model.asked
    assert (most, stop, strip) == (300, ("\n\n", "\ndef"), False)
    assert (sampling.temperature, sampling.top_p) == (0.05, 0.95)
    assert (outcome.value, outcome.details["verdict"]) == (0.0, "AssertionError:")
    greedy = Dice("x")
    PassAtK(temperature=0).score(greedy, [ASKED])
    assert greedy.asked[0][3] == []


def test_seeds_follow_from_the_question_alone(ran: list[Program]) -> None:
    def seeds(metric: PassAtK, *examples: Example) -> list[int | None]:
        model = Dice("x")
        metric.score(model, examples)
        return [one.seed for one in model.asked[0][3]]

    metric = PassAtK(n_samples=2)
    both = seeds(metric, ASKED, OTHER)
    assert len(set(both)) == 4
    assert seeds(metric, OTHER, ASKED) == both[2:] + both[:2]
    assert seeds(metric, OTHER) == both[2:]
    assert set(seeds(PassAtK(n_samples=2, seed=1), ASKED)).isdisjoint(both)


def test_many_samples_give_a_chance(ran: list[Program]) -> None:
    class Half(Dice):
        def generate_text(self, examples, **how) -> list[str]:
            return ["    return 1", "    x"] * (len(examples) // 2)

    once, twice = (PassAtK(n_samples=4, k=k).score(Half(), [ASKED, OTHER]) for k in (1, 2))
    assert [outcome.value for outcome in once] == pytest.approx([50.0, 50.0])
    assert twice[0].value == pytest.approx(100 * (1 - 1 / 6))
    assert once[0].details["n_passed"] == 2
    assert [one["verdict"] for one in once[1].details["samples"]] == ["passed", "AssertionError:"] * 2
    assert [outcome.index for outcome in once] == [0, 1]


def test_a_resumed_run_has_the_same_bytes(ran: list[Program], tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorary.evaluation.evaluate._EXAMPLES_AT_ONCE", 2)
    examples = tuple(Example(f"def f{n}():\n", "    return 1", "code", tests="f()") for n in range(5))
    tasks, model, metric = Tasks([Task("code", test=examples)]), Dice("    return 1", "    x"), PassAtK()
    evaluate(metric, model, tasks, into=tmp_path / "whole.jsonl", name="m")
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "again.jsonl.part").write_bytes(b"".join(lines[:3]))
    evaluate(metric, model, tasks, into=tmp_path / "again.jsonl", name="m")
    assert (tmp_path / "again.jsonl").read_bytes() == b"".join(lines)
    assert 0 < sum(b'"passed"' in line for line in lines) < 5


def test_examples_without_tests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EvaluationError, match=r"E-EVAL.*'pass_at_k' needs tests, found none at 'def half"):
        PassAtK().check([Example("def half(x):", "x", "code")])
    with pytest.raises(EvaluationError, match="E-SANDBOX"):
        PassAtK().check([ASKED])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 2}, r"k=2, expected at most n_samples, 1"),
        ({"k": 0}, "k=0, expected 1 or more"),
        ({"n_samples": 2, "temperature": 0.0}, "n_samples=2, expected 1 with temperature=0"),
        ({"temperature": -1.0}, "temperature=-1.0, expected 0 or more"),
        ({"top_p": 0.0}, "top_p=0.0, expected a number above 0"),
        ({"timeout_s": 0}, "timeout_s=0, expected 1 or more"),
        ({"sandbox": "docker"}, "sandbox='docker', expected bubblewrap or none"),
    ],
)
def test_options_without_meaning_are_refused(options, said: str) -> None:
    with pytest.raises(OptionError, match=f"E-OPTION.*{said}"):
        PassAtK(**options).check([ASKED])


def test_one_definition_of_sampling() -> None:
    from lorary.model.decoding import next_token

    assert next_token.Sampling is Sampling
