"""What is ordered, and where it is done: in this process, in others, on other hosts. All claim, run and commit."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorary.errors import quote
from lorary.options import Options
from lorary.work.claims import HANG_S, LEASE_S
from lorary.work.jobs import NOBODY, Listener, Runner
from lorary.work.share import Needs


class Work(ABC):
    """Work in names, paths and options, so that any process can take part. Backends send it to others by pickle."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """The directory that all who take part share, absolute."""

    @property
    def called(self) -> str:
        """What errors of the disk call it, as `library 'lib'`: by default its directory."""
        return f"directory {quote(self.root.name)}"

    @abstractmethod
    def load(self, listener: Listener) -> Runner:
        """Load what running its jobs needs. Raises what can't be run here, and for results of other work."""

    def enter(self, order: "Order") -> Runner:
        """Load it for a worker of an order. Work in parts does here, with the others, all that its last part needs."""
        return self.load(order.listener)

    @property
    def roots(self) -> Sequence[Path]:
        """Where those who follow it look: its root, and those of its other parts."""
        return (self.root,)

    @abstractmethod
    def require_root(self) -> None:
        """Refuse to go on where the directory no longer is, which would make another there."""

    @property
    def needs(self) -> Needs:
        """What sharing a machine out has to know; may take a moment."""
        return Needs(1, 1, 0)

    @property
    def only_here(self) -> bool:
        """Whether other processes couldn't load it, as what is defined in __main__."""
        return False

    @property
    def device(self) -> str:
        """Where it computes."""
        return "cpu"


def new_run() -> str:
    """Name a run that has no name."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class Order:
    """Work to be done, how, and who follows it. `run` names all its workers: a pack that fails is tried once a run.

    threads: of each worker; None = they follow from the packs. lease_s: silence after which a worker counts as dead;
    hang_s: after which a job that makes no step counts as hung. ends_hung: then end the process, which is the worker's
    own.
    """

    work: Work
    run: str = field(default_factory=new_run)
    listener: Listener = NOBODY
    threads: int | None = None
    lease_s: float = LEASE_S
    hang_s: float = HANG_S
    ends_hung: bool = False

    def for_others(self) -> "Order":
        """Give what another process can be sent: who listens stays here."""
        return replace(self, listener=NOBODY)


@dataclass(frozen=True)
class Backend(Options, ABC):
    """Options of one way to run workers."""

    @abstractmethod
    def work(self, order: Order) -> None:
        """Work until all jobs are done. Raises E-JOBS once all others are if some failed, and what stops them all."""
