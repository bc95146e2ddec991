"""How far work is, from what its workers leave on disk; asks none of them. Imports no torch."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorary.disk.processes import WORK
from lorary.work.claims import Lease, read_lease
from lorary.work.jobs import Pack
from lorary.work.worklist import Failure, plans, read_failure, read_packs

STATES = ("done", "running", "stale", "failed", "waiting")


@dataclass(frozen=True)
class JobState:
    """Where one job is. since: its owner's start, in seconds since 1970; silent_s: since it was last heard of.

    loss: at its last step, in nats per token; None before its owner's first, and if it isn't running.

    state: "stale" was claimed by a worker that is dead or silent for longer than its lease, "waiting" by nobody.
    """

    name: str
    state: str
    step: int = 0
    n_steps: int = 0
    owner: str = ""
    since: float | None = None
    silent_s: float | None = None
    error: str = ""
    log: str = ""
    loss: float | None = None


@dataclass(frozen=True)
class Survey:
    """Where all jobs are. planned: those in plans that aren't done, with what they make; the others just stand.

    seconds_left: at the speed of the workers that run now; None if that can't be said.
    """

    jobs: tuple[JobState, ...]
    seconds_left: float | None
    planned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs are in which state."""
        return {state: sum(job.state == state for job in self.jobs) for state in STATES}


def survey(root: Path, standing: Iterable[str] = ()) -> Survey:
    """Look at a directory: jobs of plans that aren't done, and the names of what stands there beside them."""
    now, packs = time.time(), _packs(root)
    leases = {key: read_lease(root / WORK / key) for key in packs}
    found = {name: JobState(name, "done") for name in standing}
    for key, pack in packs.items():
        found |= {job.name: job for job in _states(root, pack, leases[key], now)}
    jobs = tuple(found[name] for name in sorted(found))
    planned = {name: made for pack in packs.values() for name, made in zip(pack.names, pack.made, strict=True)}
    return Survey(jobs, _seconds_left(jobs, packs, leases, now), planned)


def _packs(root: Path) -> dict[str, Pack]:
    return {pack.key: pack for plan in plans(root) for pack in read_packs(plan)}


def _states(root: Path, pack: Pack, lease: Lease | None, now: float) -> Iterator[JobState]:
    missing, failure = pack.missing(root), read_failure(root, pack)
    for name in pack.names:
        if name not in missing:
            yield JobState(name, "done", pack.n_steps, pack.n_steps)
        else:
            yield _unfinished(name, pack, lease, failure, now)


def _unfinished(name: str, pack: Pack, lease: Lease | None, failure: Failure | None, now: float) -> JobState:
    step = lease.step if lease else 0
    if lease and not lease.is_free:
        state = "running" if _is_heard(lease, now) else "stale"
        silent_s, loss = max(0.0, now - lease.at), lease.losses.get(name)
        return JobState(name, state, step, pack.n_steps, lease.owner, lease.since, silent_s, loss=loss)
    if failure:
        return JobState(name, "failed", step, pack.n_steps, error=failure.error, log=failure.log)
    return JobState(name, "waiting", step, pack.n_steps)


def _is_heard(lease: Lease, now: float) -> bool:
    return not lease.is_dead and now - lease.at <= lease.lease_s


def _seconds_left(
    jobs: tuple[JobState, ...], packs: Mapping[str, Pack], leases: Mapping[str, Lease | None], now: float
) -> float | None:
    """Divide the steps that are missing, failed jobs left out, by those that all running workers do in a second."""
    missing = sum(job.n_steps - job.step for job in jobs if job.state in ("running", "stale", "waiting"))
    running = [(pack, lease) for key, pack in packs.items() if (lease := leases[key]) and not lease.is_free]
    speeds = [
        len(pack.names) * (lease.step - lease.first_step) / (lease.at - lease.since)
        for pack, lease in running
        if _is_heard(lease, now) and lease.at > lease.since
    ]
    return missing / sum(speeds) if missing and sum(speeds) > 0 else None
