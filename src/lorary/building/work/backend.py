"""Where a build's workers run: in this process, in others, on other hosts. All do the same: claim, run, keep."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lorary.building.contract import Report
from lorary.building.recipe import Recipe
from lorary.building.work.claims import HANG_S
from lorary.building.work.enlist import enlist, look_ahead, see_through
from lorary.building.work.follower import OnPlan
from lorary.building.work.share import threads_for, torch_threads
from lorary.building.work.worker import Worker
from lorary.folder import BACKENDS
from lorary.library.base_names import shared_name
from lorary.library.library import Library
from lorary.model.base import base_model
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.named_bases import called
from lorary.options import Options


@dataclass(frozen=True)
class Order:
    """A recipe to be worked on, and who wants to hear of it. `run` names all its workers: see `build`.

    threads: of each worker; None = they follow from the packs. tell: hears a word on what is slow to begin. hang_s,
    on_hang: see `Worker`. base_name: what adapters call the base, None: as the recipe does.
    """

    recipe: Recipe
    run: str
    report: Report | None = None
    on_plan: OnPlan | None = None
    tell: Callable[[str], None] | None = None
    threads: int | None = None
    hang_s: float = HANG_S
    on_hang: Callable[[], None] | None = None
    base_name: str | None = None

    def say(self, what: str) -> None:
        """Tell who listens."""
        if self.tell:
            self.tell(what)

    def for_others(self) -> "Order":
        """Give what another process can be sent: who listens stays here."""
        return replace(self, report=None, on_plan=None, tell=None)


@dataclass(frozen=True)
class Backend(Options, ABC):
    """Options of one way to run workers."""

    @abstractmethod
    def work(self, order: Order) -> None:
        """Work until all jobs are done. Raises E-JOBS once all others are if some failed, and what stops them all."""


def build_recipe(
    recipe: Recipe,
    *,
    backend: Backend | str = "local",
    run: str | None = None,
    report: Report | None = None,
    on_plan: OnPlan | None = None,
    tell: Callable[[str], None] | None = None,
    base_name: str | None = None,
) -> Library:
    """Build what a recipe says, with workers where the backend has them.

    base_name: what the adapters call a base that is a directory; by default as the recipe does, so that a relative
    path stays one. Other arguments and errors: see `build`.
    """
    backend = BACKENDS.parse(backend) if isinstance(backend, str) else backend
    name = base_name or (called(recipe.base) if recipe.base else None)
    is_place = recipe.base not in (None, EMBEDDED) and Path(str(recipe.base)).is_dir()
    order = Order(
        recipe.absolute(), run or secrets.token_hex(4), report, on_plan, tell, base_name=name if is_place else None
    )
    backend.work(order)
    return Library.open(order.recipe.into)


def build_here(order: Order) -> None:
    """Be one of the workers, in this process, until all is done."""
    worker = enlist_here(order)
    if worker is not None:
        with torch_threads(order.threads or threads_for(len(worker.packs))):
            see_through(worker)


def enlist_here(order: Order) -> Worker | None:
    """Load what a recipe names and make a worker of it; None if all is done."""
    recipe = order.recipe
    tasks, source = recipe.read_tasks(), recipe.open_source()
    look_ahead(recipe.builder, tasks, into=recipe.into, source=source)
    order.say(f"loading base {recipe.base or EMBEDDED} ...")
    base = base_model.load_base(recipe.base or EMBEDDED, **recipe.loading)
    base.name = shared_name(order.base_name or base.name)
    return enlist(
        recipe.builder, tasks, base, into=recipe.into, source=source, report=order.report, on_plan=order.on_plan,
        run=order.run, hang_s=order.hang_s, on_hang=order.on_hang,
    )  # fmt: skip
