"""A build as work/ knows it: of what is loaded already, or of a recipe that any process can load."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.building.contract import Builder, Job, plan_jobs
from lorary.building.recipe import Recipe
from lorary.building.runner import BuildRunner
from lorary.errors import LibraryError, OptionError, quote
from lorary.library.base_names import shared_name
from lorary.library.layout import Layout, check_name
from lorary.library.library import Library, standing
from lorary.model.base import base_model
from lorary.model.base.base_model import BaseModel
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.named_bases import remember_fit
from lorary.model.base.outline import bytes_of, outline
from lorary.options import require
from lorary.tasks.task import Tasks
from lorary.work.backend import Work
from lorary.work.jobs import Listener
from lorary.work.share import Needs


class _IntoLibrary(Work):
    """Work whose root is a library."""

    @property
    def called(self) -> str:
        """Name the library."""
        return f"library {quote(self.root.name)}"

    def require_root(self) -> None:
        """Raise E-LIBRARY if the library is gone."""
        if not Layout(self.root).manifest.is_file():
            what = f"library {str(self.root)!r} is gone: it was moved or deleted while it was built."
            raise LibraryError("E-LIBRARY", what, "If it was moved, go on there: the same command with that --into.")


@dataclass(frozen=True)
class Build(_IntoLibrary):
    """A build of what is loaded in this process. Arguments: see `build`."""

    builder: Builder
    tasks: Tasks
    base: BaseModel
    into: Path
    source: Library | None = None

    @property
    def root(self) -> Path:
        """The library, absolute."""
        return self.into.absolute()

    def load(self, listener: Listener) -> BuildRunner:
        """Plan; make the library, or open it. Raises as `build`."""
        jobs = plan_jobs(self.builder, self.tasks, self.source)
        _check_names(jobs)
        require("base", self.base, BaseModel, "a base model", "Load one: load_base().")
        self.builder.check_base(self.base)
        library = Library.create(self.root, base=self.base.fingerprint, exist_ok=True)
        library.layout.require_plain()
        remember_fit(self.base)
        _check_names(jobs, library)
        return BuildRunner(self.builder, jobs, self.base, library)


@dataclass(frozen=True)
class RecipeBuild(_IntoLibrary):
    """A build of a recipe whose paths are absolute. base_name: what adapters call the base; None: as the recipe."""

    recipe: Recipe
    base_name: str | None = None

    @property
    def root(self) -> Path:
        """The library."""
        return self.recipe.into

    @property
    def only_here(self) -> bool:
        """Whether the builder is defined where other processes wouldn't find it."""
        return type(self.recipe.builder).__module__ == "__main__"

    @property
    def device(self) -> str:
        """Where the recipe wants to compute."""
        return self.recipe.device

    def load(self, listener: Listener) -> BuildRunner:
        """Load what the recipe names. Raises as `build`, before a base is loaded what no base would make right."""
        recipe = self.recipe
        tasks, source = recipe.read_tasks(), recipe.open_source()
        jobs = plan_jobs(recipe.builder, tasks, source)
        _check_names(jobs)
        _check_names(jobs, standing(recipe.into) or ())
        name = recipe.base or EMBEDDED
        listener.tell(f"loading base {name} ...")
        base = base_model.load_base(name, **recipe.loading)
        base.name = shared_name(self.base_name or base.name)
        return Build(recipe.builder, tasks, base, recipe.into, source).load(listener)

    @property
    def needs(self) -> Needs:
        """Plan, and look which packs are missing. Raises what reading and planning a recipe raises."""
        name = self.recipe.base or EMBEDDED
        base = outline(name) or base_model.load_base(name, **{**self.recipe.loading, "device": "cpu"})
        jobs = self.recipe.builder.plan(self.recipe.read_tasks(), self.recipe.open_source())
        packs = [[name for job in pack for name in job.experts] for pack in self.recipe.builder.packs(jobs, base)]
        layout = Layout(self.recipe.into)
        missing = [names for names in packs if not all(layout.expert(name).is_dir() for name in names)]
        # Room to read it in float32 is more than it then takes, so a part of the margin too.
        return Needs(len(packs), len(missing), bytes_of(base))


def _check_names(jobs: Sequence[Job], taken: Iterable[str] = ()) -> None:
    """Refuse now what a library would refuse when all is trained; `taken` are the experts that it holds."""
    counts = Counter(name for job in jobs for name in job.experts)
    twins = {name.lower(): name for name in taken}
    for name, n in counts.items():
        if n > 1:
            raise OptionError("E-NAME", f"two jobs make an expert {name!r}.", "Rename the task of one.")
        check_name(name)
        twin = twins.setdefault(name.lower(), name)
        if twin != name:
            what = f"experts {twin!r} and {name!r} differ only by case, which some disks can't tell apart."
            raise OptionError("E-NAME", what, "Rename the task of one.")
