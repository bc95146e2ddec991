"""What the choices are worth that the paper fixes: top-k, temperature, mixing, rank, size of the library."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lorary.adapters.contract import Mix
from lorary.building.limits import check_positive
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.options import refuse_value
from lorary.studies.comparing.paper_claims import Claim, judge_all
from lorary.studies.comparing.rows import require_subject
from lorary.studies.comparing.stock import StockStudy
from lorary.studies.contract import TRAINED, UNSEEN, Build, Cell, Plan, Results, Subject, Verdict, file_name
from lorary.tasks.task import Tasks

_OWN = "libs/private-own-start"
_SIZES = "tasks of the smallest library"
_CLAIMS = (
    Claim(
        "A (top-k)", "four experts at a time are better than one", "not reported; 4 is used throughout",
        "Let Arrow choose several experts for each token.", TRAINED, "arrow", "top_k=1",
    ),
    Claim(
        "A (temperature)", "a temperature of 1 is better than one of 4", "not reported; 1 is used throughout",
        "Keep the weights sharp.", TRAINED, "arrow", "temperature=4",
    ),
    Claim(
        "A (mix)", "mixing factors is better than mixing outputs", "not reported; factors are used throughout",
        "Choose how to mix by trying both on your tasks.", TRAINED, "arrow", "mix=outputs",
    ),
    Claim(
        "A (rank)", "a rank of 4 is enough: of 16 is not better", "not reported; 4 is used throughout",
        "Small experts are enough where there is little data.", TRAINED, "arrow", "rank=16", 0.02,
    ),
    Claim(
        "A (start)", "Arrow loses nothing where each expert has a start of its own", "not reported; one start for all",
        "Whether experts of others, which share no start, can be routed as well.", TRAINED, "own start", "arrow", 0.02,
    ),
    Claim(
        "A (start, mean)", "averaged experts need one start", "not reported; one start for all",
        "Average experts of one start only.", TRAINED, "uniform", "own start, uniform",
    ),
    Claim(
        "A (size)", "Arrow finds its way as well among all experts as among a quarter of them", "not reported",
        "Whether a library may grow without harm.", _SIZES, "size=1", "size=0.25", 0.02,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AblationStudy(StockStudy):
    """Vary what the paper fixes, one thing at a time: a private library under Arrow, by the loss of the right answer.

    Experts at a time, temperature, mixing of factors or outputs, rank of the experts, one start for all or none, and
    how many experts there are; libraries of other sizes are scored on the tasks of the smallest. Each row differs from
    the row `arrow` by what its name says.
    """

    top_k: tuple[int, ...] = (1, 2, 8)
    """Numbers of experts at a time, beside 4."""
    temperatures: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)
    """Temperatures of Arrow's softmax, beside 1."""
    ranks: tuple[int, ...] = (1, 16)
    """Ranks of the experts, beside `rank`."""
    sizes: tuple[float, ...] = (0.25, 0.5)
    """Shares of the tasks that have an expert, beside all of them."""
    n_score: int = 16
    """Test examples of each trained task to score."""
    n_score_new: int = 16
    """Test examples of each held-out task to score."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_score", "n_score_new")
        for name, most in (("top_k", None), ("temperatures", None), ("ranks", None), ("sizes", 1)):
            if not all(value > 0 and (most is None or value <= most) for value in getattr(self, name)):
                refuse_value(self, name, f"each above 0{' and at most 1' if most else ''}")

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK for fewer than two tasks."""
        require_subject("ablations", subject)
        private = self.stock(subject.tasks, ["private"])["private"]
        apart = replace(private, path=_OWN, builder=replace(self.private(), own_start=True))
        ranked = {rank: self._of_rank(private, rank) for rank in dict.fromkeys(self.ranks)}
        sized = {size: self._of_size(private, size) for size in sorted({*self.sizes} - {1.0})}
        cells = [
            cell
            for name, library, router, mix in self._rows(ranked)
            for cell in self._cells(name, library, router, mix, subject)
        ]
        if sized:
            smallest = next(iter(sized.values())).tasks
            for size, build in {**sized, 1.0: private}.items():
                cells.append(self._cell(f"size={size:g}", _SIZES, smallest, self.n_score, build.path, "arrow", None))
        return Plan([private, apart, *ranked.values(), *sized.values()], cells)

    def _of_rank(self, private: Build, rank: int) -> Build:
        return replace(private, path=f"libs/private-rank{rank}", builder=replace(self, rank=rank).private())

    def _of_size(self, private: Build, size: float) -> Build:
        names = list(private.tasks)[: max(1, round(size * len(private.tasks)))]
        return replace(private, path=f"libs/private-size{size:g}", tasks=private.tasks.only(names))

    def _rows(self, ranked: dict[int, Build]) -> Iterator[tuple[str, str | None, str, Mix | None]]:
        yield "base", None, "uniform", None
        yield "uniform", "libs/private", "uniform", None
        yield "arrow", "libs/private", "arrow", None
        for k in self.top_k:
            yield f"top_k={k}", "libs/private", f"arrow:top_k={k}", None
        for temperature in self.temperatures:
            yield f"temperature={temperature:g}", "libs/private", f"arrow:temperature={temperature:g}", None
        yield "mix=outputs", "libs/private", "arrow", "outputs"
        yield "own start", _OWN, "arrow", None
        yield "own start, uniform", _OWN, "uniform", None
        for rank, build in ranked.items():
            yield f"rank={rank}", build.path, "arrow", None

    def _cells(self, name: str, library: str | None, router: str, mix: Mix | None, subject: Subject) -> Iterator[Cell]:
        yield self._cell(name, TRAINED, subject.tasks, self.n_score, library, router, mix)
        if subject.heldout:
            yield self._cell(name, UNSEEN, subject.heldout, self.n_score_new, library, router, mix)

    def _cell(
        self, name: str, group: str, tasks: Tasks, limit: int, library: str | None, router: str, mix: Mix | None
    ) -> Cell:
        path = f"runs/{file_name(name)}.{file_name(group)}.jsonl"
        return Cell(path, name, group, Perplexity(), tasks, limit, library, router, mix)

    def judge(self, results: Results) -> list[Verdict]:
        """Judge what the paper chose beside what it could have chosen."""
        return judge_all(_CLAIMS, results)
