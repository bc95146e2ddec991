"""Benchmarks whose answers are programs: their options, and the metric that these make."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from lorary.evaluation.benchmarking.contract import Benchmark
from lorary.evaluation.contract import Evaluator
from lorary.evaluation.evaluators.pass_at_k import PassAtK
from lorary.evaluation.sandbox.judge import Walls
from lorary.options import require_count


@dataclass(frozen=True)
class CodeBenchmark(Benchmark):
    """Options of a benchmark that runs answers, in a sandbox."""

    prompts: Literal["paper", "harness"] = "paper"
    """Whose prompts and decoding: those of the paper's code, or of lm-evaluation-harness."""
    n_samples: int = 1
    """Answers to each question."""
    k: int = 1
    """How many of them one may try."""
    temperature: float | None = None
    """How much chance there is in them; none: 0.05, and 0 for the harness."""
    seed: int = 0
    """What is drawn by it: the answers."""
    sandbox: Walls = "bubblewrap"
    """As `pass_at_k` has it: without walls nothing runs, unless that is said twice."""

    harness: ClassVar[PassAtK]
    """What of an answer is run, its length and its end in lm-evaluation-harness."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        for name in ("n_samples", "k"):
            require_count(f"{self.name}: {name}", getattr(self, name))
        assert isinstance(self.evaluator, PassAtK)  # which looks at them

    @property
    def evaluator(self) -> Evaluator:
        """Programs that pass their tests."""
        form, usual = (PassAtK(), 0.05) if self.prompts == "paper" else (self.harness, 0.0)
        heat = usual if self.temperature is None else self.temperature
        return replace(form, k=self.k, n_samples=self.n_samples, temperature=heat, seed=self.seed, sandbox=self.sandbox)
