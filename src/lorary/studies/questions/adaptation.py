"""What a library is worth as a start for training on new tasks, with much data and with little."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorary.building.builders.from_expert import FromExpert
from lorary.building.builders.lib_mu import LibMu
from lorary.building.builders.lib_poly import LibPoly
from lorary.building.builders.lib_polyz import LibPolyZ
from lorary.building.builders.lorahub import LoraHub
from lorary.building.builders.mhr import MHR
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.builders.private import Private
from lorary.building.contract import Builder
from lorary.building.limits import check_positive
from lorary.errors import TaskError
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.options import refuse_value
from lorary.studies.comparing.paper_claims import Claim, judge_all
from lorary.studies.comparing.rows import require_known, require_subject
from lorary.studies.comparing.stock import StockStudy
from lorary.studies.contract import Build, Cell, Plan, Results, Subject, Verdict, file_name
from lorary.tasks.task import Tasks

_METHODS: Mapping[str, str] = {
    "no-library": "",
    "shared": "shared",
    "private-mu": "private",
    "mbc-mu": "mbc",
    "poly": "poly",
    "mhr": "mhr",
    "random-poly": "random",
    "mbc-poly": "mbc",
    "mbc-polyz": "mbc",
    "mbc-lorahub": "mbc",
    "private-pi": "private",
}
"""The paper's names of the methods, and the library that each starts from."""
_ONE_BY_ONE = (LibPoly, LibPolyZ)
"""Builders that would share the experts among tasks; the paper adapts to one task at a time."""


def _router_of(builder: object) -> str:
    """Name the router that reads what a builder learned: its mixture, or whose task it is."""
    if not isinstance(builder, _ONE_BY_ONE):
        return "oracle"
    return "mhr" if builder.n_heads else "poly"


def _group(share: float) -> str:
    return f"{100 * share:g} % of the data"


_ALL, _TENTH = _group(1.0), _group(0.1)
_CLAIMS = (
    Claim(
        "C14", "a library is a better start than nothing", "78.8 against 75.5",
        "Start new tasks from your library.", _ALL, "mbc-mu", "no-library",
    ),
    Claim(
        "C14 (10 %)", "so it is with a tenth of the data", "67.0 against 53.9",
        "The fewer examples there are, the more a library is worth.", _TENTH, "mbc-mu", "no-library",
    ),
    Claim(
        "C14 (Shared)", "with a tenth of the data it is a better start than one shared expert", "67.0 against 56.4",
        "Keep a library even where one expert of all tasks could be had.", _TENTH, "mbc-mu", "shared",
    ),
    Claim(
        "C15", "with all data the mean of the library is as good a start as all its experts", "78.8 and 78.8",
        "Start from the mean: it is one expert to train instead of ten.", _ALL, "mbc-mu", "mbc-poly", 1.0,
    ),
    Claim(
        "C15 (random)", "clusters by MBC are a better start than random ones", "78.9 against 76.7",
        "Cluster by the weights of short private experts.", _ALL, "mbc-poly", "random-poly",
    ),
    Claim(
        "C15 (Poly)", "clusters by MBC are a better start than skills found in joint training", "78.9 against 73.4",
        "Find clusters before training, not skills in it.", _ALL, "mbc-poly", "poly",
    ),
    Claim(
        "C15 (MHR)", "so they are than those found by heads", "78.9 against 74.8",
        "Find clusters before training, not skills in it.", _ALL, "mbc-poly", "mhr",
    ),
    Claim(
        "C16", "tuning experts is better than tuning their weights alone", "78.9 against 45.3",
        "Don't only tune how experts are mixed.", _ALL, "mbc-poly", "mbc-polyz",
    ),
    Claim(
        "C16 (LoraHub)", "tuning experts is better than searching for their weights", "78.9 against 45.3",
        "Don't only search how experts are mixed.", _ALL, "mbc-poly", "mbc-lorahub",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdaptationStudy(StockStudy):
    """Compare ways to adapt to new tasks: from nothing, from a shared expert, from libraries, with less and less data.

    Each method trains on each task held out alone, on a share of its training examples drawn at random, the smaller
    part of the larger: `new_steps` optimiser steps, or `epochs` over the share where that is None. LoraHub tries as
    many mixtures as cost as much, a backward pass counted as two forward ones. Scored by the answers' Rouge-L.
    Source: 2405.11157 section 4, Tables 3 and 6 to 8.
    """

    methods: tuple[str, ...] = tuple(_METHODS)
    """How to adapt."""
    shares: tuple[float, ...] = (1.0, 0.1, 0.01)
    """Shares of the training examples."""
    new_steps: int | None = 10
    """Optimiser steps for each held-out task; None: `epochs` over its share."""
    n_tries: int = 40
    """Mixtures that LoraHub tries where `new_steps` is None."""
    n_answer_new: int = 50
    """Test examples of each held-out task to answer."""
    max_new_tokens: int = 64
    """Longest answer."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "new_steps", "n_tries", "n_answer_new", "max_new_tokens")
        if not all(0 < share <= 1 for share in self.shares):
            refuse_value(self, "shares", "each above 0 and at most 1")

    def plan(self, subject: Subject) -> Plan:
        """List libraries, adaptations and scores. Raises E-TASK without held-out tasks to train on, E-OPTION."""
        require_known("adaptation", "methods", self.methods, _METHODS)
        if not self.shares:
            refuse_value(self, "shares", "one or more")
        require_subject("adaptation", subject, heldout=True)
        for task in subject.heldout.values():
            if not task.train:
                what = f"study adaptation: held-out task {task.name!r} has no training examples."
                raise TaskError("E-TASK", what, "Leave it out.")
        needed = {_METHODS[name] for name in self.methods} - {""}
        builds, cells = [], []
        for share in self.shares:
            new = subject.heldout.with_share(share, seed=self.seed)
            cells.append(self._cell("base", share, subject.heldout, None, "uniform"))
            for method in self.methods:
                for build, tasks in self._builds(method, share, new, subject.tasks):
                    builds.append(build)
                    cells.append(self._cell(method, share, tasks, build.path, _router_of(build.builder)))
        return Plan([*self.stock(subject.tasks, needed).values(), *builds], cells)

    def _cell(self, method: str, share: float, tasks: Tasks, library: str | None, router: str) -> Cell:
        file = (library or f"adapted/base/{share:g}").removeprefix("adapted/").replace("/", ".")
        answers = RougeL(max_new_tokens=self.max_new_tokens)
        path = f"runs/{file}.answers.jsonl"
        return Cell(path, method, _group(share), answers, tasks, self.n_answer_new, library, router)

    def _builds(self, method: str, share: float, new: Tasks, own: Tasks) -> Iterator[tuple[Build, Tasks]]:
        """List what a method builds for one share, with the tasks that each is scored on."""
        origin, builder = _METHODS[method], self.builder(method, tuple(new))
        source, path = f"libs/{origin}" if origin else None, f"adapted/{method}/{share:g}"
        alike = self.made(Private, self.new_steps)
        if isinstance(builder, _ONE_BY_ONE):
            for name, task in new.items():
                one = Tasks([task])
                yield Build(f"{path}/{file_name(name)}", builder, one, source, (alike, one)), one
            return
        like: Builder = alike
        if isinstance(builder, LoraHub):
            like = Private(steps=builder.steps, batch_size=builder.n_examples)
        data = Tasks([*new.values(), *own.values()]) if isinstance(builder, PiTuning) else new
        yield Build(path, builder, data, source, (like, new)), new

    def builder(self, method: str, new: tuple[str, ...]) -> Builder:
        """Give the options of a method."""
        start: dict[str, Any] = {"patience": None}
        steps = self.new_steps
        if method == "mbc-lorahub":
            tries = self.n_tries if steps is None else max(1, 3 * steps * self.batch_size // 5)
            return LoraHub(steps=tries, n_examples=5, seed=self.seed)
        made: dict[str, Builder] = {
            "no-library": self.made(Private, steps),
            "shared": self.made(FromExpert, steps, **start),
            "private-mu": self.made(LibMu, steps, **start),
            "mbc-mu": self.made(LibMu, steps, **start),
            "poly": self.made(LibPoly, steps, **start),
            "mhr": self.made(LibPoly, steps, **start, n_heads=MHR().n_heads),
            "random-poly": self.made(LibPoly, steps, **start),
            "mbc-poly": self.made(LibPoly, steps, **start),
            "mbc-polyz": self.made(LibPolyZ, steps, **start),
            "private-pi": self.made(PiTuning, steps, **start, adapt_to=new),
        }
        return made[method]

    def judge(self, results: Results) -> list[Verdict]:
        """Judge libraries as a start beside none, and tuning of experts beside tuning of their weights."""
        return judge_all(_CLAIMS, results)
