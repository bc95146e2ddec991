"""Programs that pass their tests."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

from lorary.errors import EvaluationError
from lorary.evaluation.contract import Evaluator, LanguageModel, Outcome, Wanted, generate
from lorary.evaluation.sampling import Sampling
from lorary.evaluation.sandbox.judge import Walls, judge, require
from lorary.evaluation.sandbox.limits import Limits, Program, Verdict
from lorary.hashing import short_key
from lorary.options import refuse_value, require_count
from lorary.tasks.example import Example


@dataclass(frozen=True)
class PassAtK(Evaluator):
    """Chance that one of k programs passes its example's tests, run in a sandbox.

    Value 0-100 per example: 100 (1 - C(n - c, k) / C(n, k)), where c of n_samples = n programs pass; with one program,
    100 or 0. Answers are sampled, each with a seed of its own that follows from `seed` and its prompt, or greedy with
    temperature 0. Examples need `tests`. What runs is the prompt, the answer and the tests, in one process behind
    bubblewrap's walls, without network, files of this machine or rights (docs/how_to/code.md). Without bubblewrap
    nothing runs (E-SANDBOX). `answer` says what of an answer is run:

    "block": behind its prompt, what comes before the first empty line, odd indents made even.
    "rest": behind its prompt, all of it.
    "whole": it alone. "fenced": what stands in its first fence alone, or all if there is none.
    Source: Chen et al. 2021 (2107.03374) for the estimator; Ostapenko et al. 2024 (2405.11157) and microsoft/mttl for
    the defaults: temperature 0.05, top_p 0.95, 300 tokens, the stops, the first block, one sample.
    Differs: mttl runs code with all rights of its user and all packages, for 3 seconds by the clock; here it has the
    standard library, 1 GiB and `timeout_s` seconds of computing, three times as long by the clock.
    """

    k: int = 1
    """How many programs one may try."""
    n_samples: int = 1
    """Programs per example, at least k."""
    temperature: float = 0.05
    """How much chance there is in the answers; 0 is greedy."""
    top_p: float = 0.95
    """Tokens are drawn from the likeliest that have so much of the probability."""
    max_new_tokens: int = 300
    """Longest answer, in tokens."""
    stop: tuple[str, ...] = ("\n\n", "\ndef")
    """Texts at the first of which an answer ends."""
    answer: Literal["block", "rest", "whole", "fenced"] = "block"
    """What is run of an answer; see above."""
    seed: int = 0
    """What the answers' seeds follow from."""
    timeout_s: int = 10
    """Seconds of computing for one program."""
    sandbox: Walls = "bubblewrap"
    """With none, programs have all your rights, but only if LORARY_RUN_CODE_UNSANDBOXED=yes is set as well."""

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        for name in ("k", "n_samples", "max_new_tokens", "timeout_s"):
            require_count(f"pass_at_k: {name}", getattr(self, name))
        Sampling(self.temperature, self.top_p)

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse an example without tests, a machine without a sandbox, and samples that don't fit the other options.

        Raises E-EVAL, E-SANDBOX, E-OPTION.
        """
        if self.k > self.n_samples:
            refuse_value(self, "k", f"at most n_samples, {self.n_samples}")
        if self.temperature == 0 and self.n_samples > 1:
            refuse_value(self, "n_samples", "1 with temperature=0, which gives the same answer every time")
        for example in examples:
            if not example.tests.strip():
                what = f"task {example.task!r}: metric 'pass_at_k' needs tests, found none at {example.prompt[:40]!r}."
                raise EvaluationError(
                    "E-EVAL", what, "Give the rows a field `tests`: Python that fails if the answer does."
                )
        require(self.sandbox)

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Generate n_samples answers per example and run each as a program."""
        self.check(examples)
        asked = [(example, number) for example in examples for number in range(self.n_samples)]
        how: Wanted = {"stop": self.stop, "strip": False}
        if self.temperature:
            how["sampling"] = [self._sampling(example, number) for example, number in asked]
        repeated = [example for example, _ in asked]
        answers = generate(model, repeated, self.max_new_tokens, **how)
        programs = [Program(self.code(e, answer), e.tests) for e, answer in zip(repeated, answers, strict=True)]
        verdicts = judge(programs, Limits(seconds=self.timeout_s), self.sandbox)
        n = self.n_samples
        return [
            self._outcome(index, example, answers[index * n : (index + 1) * n], verdicts[index * n : (index + 1) * n])
            for index, example in enumerate(examples)
        ]

    def code(self, example: Example, answer: str) -> str:
        """Make the code that is run of an answer."""
        # The blanks at a prompt's end belong to its answer, which may have them already.
        before = example.question if answer[:1] in (" ", "\t") else example.prompt
        if self.answer == "block":
            return before + _first_block(answer)
        if self.answer == "fenced":
            fence = _FENCE.search(answer)
            return fence["code"] if fence else answer
        return before + answer if self.answer == "rest" else answer

    def _sampling(self, example: Example, number: int) -> Sampling:
        """Draw as in any other batch and run: the seed follows from what is asked."""
        seed = int(short_key("pass_at_k", self.seed, example.question, number), 16)
        return Sampling(self.temperature, self.top_p, seed=seed)

    def _outcome(self, index: int, example: Example, answers: Sequence[str], verdicts: Sequence[Verdict]) -> Outcome:
        n_passed = sum(verdict.passed for verdict in verdicts)
        shown = [{"prediction": a, "verdict": v.why or "passed"} for a, v in zip(answers, verdicts, strict=True)]
        details: dict[str, Any] = dict(shown[0])
        if len(shown) > 1:
            details |= {"n_passed": n_passed, "samples": shown}
        return Outcome(example.task, index, 100.0 * pass_chance(self.n_samples, n_passed, self.k), details)


def pass_chance(n: int, n_passed: int, k: int) -> float:
    """Estimate the chance that one of k programs passes, without bias, from n of which n_passed did."""
    if n - n_passed < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - n_passed + 1, n + 1))


_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(?P<code>.*?)(?:```|\Z)", re.DOTALL)


def _first_block(answer: str) -> str:
    """Keep the code up to the first empty line: models go on with the next function."""
    return "\n".join(map(_even_indent, answer.split("\n"))).lstrip("\n").split("\n\n")[0]


def _even_indent(line: str) -> str:
    """Put back the blank that some tokenizers take off a text's start."""
    return " " * ((len(line) - len(line.lstrip(" "))) % 2) + line
