"""Builders that make experts of a library's experts, without data or training.

They work on what an expert adds, the product s B A, site by site: right for unequal ranks, for rsLoRA and for rank and
alpha patterns, and the same however the factors are written. One expert with weight 1 merges to itself.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from lorary.adapters.contract import Experts, Weights
from lorary.adapters.lora import LoRA
from lorary.adapters.products import ThinSVD, check_widths, padded
from lorary.adapters.static import check_factors
from lorary.building import limits
from lorary.building.contract import Job, Made, OneExpertJob, jobs_of
from lorary.building.trained_layers import warn_of_targets
from lorary.errors import AdapterError, LibraryError, OptionError
from lorary.formats.peft import open_experts, write_weights
from lorary.hashing import short_key
from lorary.library.adapter.config import MAX_RANK
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library, check_places, find_sites
from lorary.options import Options, as_dict

Parts = Mapping[str, Weights]
"""Expert name -> its weights at one site; an expert without any there adds zero."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """Options of what makes one expert of many.

    A `rank` truncates the SVD; the relative error stands in expert.json. None gives one rank for all sites.
    """

    experts: tuple[str, ...] = ()
    """Experts of the library to take; none given: all."""
    rank: int | None = None
    """Rank of the result, the nearest there is to the sum; None: what holds it exactly."""
    called: str = "merged"
    """Name of the merged expert."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        limits.check_rank(self)


class Combines(Protocol):
    """A builder that computes experts from the products s B A of a library's, site by site."""

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of those to take; none given = all."""

    @property
    def rank(self) -> int | None:
        """The rank of the result; None = what holds it exactly."""

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Compute what the result adds at one site; `names` are all experts that are merged, also those not there."""


def plan_merge(options: Combines, source: Library, called: str) -> list[Job]:
    """Plan the one job that makes one expert of many. Raises as `chosen_experts`."""
    return [MergeJob(called, source, tuple(chosen_experts(options, source)), options)]


def chosen_experts(options: Combines, source: Library) -> list[str]:
    """Name the experts to take. Raises E-NAME, and E-OPTION for a name twice."""
    twice = [name for name in options.experts if options.experts.count(name) > 1]
    if twice:
        raise OptionError("E-OPTION", f"experts: {twice[0]!r} is given twice.")
    for name in options.experts:
        source[name]
    return sorted(options.experts or source)


def run_merges(pack: Sequence[Job], base: BaseModel) -> Made:
    """Let experts be computed as they are written; no work is kept. Raises E-BASE, E-TARGET as `MergeJob.check`."""
    jobs = jobs_of(MergeJob, pack)
    for job in jobs:
        job.check(base)
    return Made({job.name: partial(job.write, base.name) for job in jobs})


def merged_size(job: Job, base: BaseModel, *, is_thin: bool = True) -> int:
    """Count the numbers of a merge, at most: the largest rank that a site needs, at all sites.

    is_thin: whether the result's rank is at most the sum of the experts'. Raises as `check_places`.
    """
    (merge,) = jobs_of(MergeJob, [job])
    sums = sums_of_ranks(merge.members.values(), base)
    full = {site: base.routable[site].d_out for site in sums}
    return plain_size(sums if is_thin else full, base, merge.options.rank)


def parents_of(source: Library, names: Sequence[str]) -> tuple[str, ...]:
    """Name what an expert was made of, as expert.json has it: name@hash."""
    return tuple(f"{name}@{source[name].hash[:12]}" for name in names)


def check_rank(rank: int, expert: str, site: str, hint: str) -> None:
    """Refuse a sum that no adapter may hold. Raises E-LIMIT."""
    if rank > MAX_RANK:
        message = f"expert {expert!r}: the sum at {site!r} has rank {rank}, the limit is {MAX_RANK}."
        raise LibraryError("E-LIMIT", message, hint)


def sums_of_ranks(experts: Iterable[Expert], base: BaseModel, n: int | None = None) -> dict[str, int]:
    """Add up the ranks at each site, of all experts or the n largest ranks there. Raises as `check_places`."""
    experts = list(experts)
    check_places(base, experts)
    ranks: dict[str, list[int]] = {}
    for expert in experts:
        for site, rank in expert.ranks.items():
            ranks.setdefault(site, []).append(rank)
    return {site: sum(sorted(found, reverse=True)[:n]) for site, found in ranks.items()}


def plain_size(ranks: Mapping[str, int], base: BaseModel, limit: int | None = None) -> int:
    """Count the numbers of what `write_plain` writes of such ranks (if a site's widths allow them), cut to a limit."""
    sites = [base.routable[name] for name in ranks]
    rank = max(min(site.d_in, site.d_out, ranks[site.name]) for site in sites)
    return min(rank, limit or rank) * sum(site.d_in + site.d_out for site in sites)


def write_plain(stage: Path, weights: Mapping[str, Weights], base_name: str) -> None:
    """Write weights of scale 1 as a PEFT adapter of one rank for all sites, which every server reads.

    Raises E-NONFINITE for numbers that no adapter may hold.
    """
    for site, w in weights.items():
        check_factors(w.a, w.b, site)
    rank = max(w.rank for w in weights.values())
    whole = {site: padded(w, rank) for site, w in weights.items()}
    write_weights(stage, LoRA(rank=rank, alpha=float(rank)), whole, base_name=base_name)


@dataclass(frozen=True)
class MergeJob(OneExpertJob):
    """Make one expert of `merged`, experts of `source`."""

    merged: tuple[str, ...]
    options: Combines

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks of the experts it is made of."""
        return tuple(sorted({task for name in self.merged for task in self.source[name].provenance.tasks}))

    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result: nothing passes through the base, so its settings don't."""
        origins = [(name, self.source[name].hash) for name in self.merged]
        return short_key(as_dict(self.options), origins, base_facts.get("base"))

    @property
    def members(self) -> dict[str, Expert]:
        """The experts it is made of."""
        return {name: self.source[name] for name in self.merged}

    def check(self, base: BaseModel) -> None:
        """Refuse experts of another base, and say where PEFT opens no adapter. Raises E-BASE, E-TARGET."""
        check_library(base, self.source)
        warn_of_targets(base, sorted(find_sites(base, self.members).keys() - base.slices.keys()))

    def _open(self) -> Experts:
        return open_experts(self.members)

    def n_tokens(self, base: object) -> int:
        """None of them: a merge looks at weights alone."""
        return 0

    def describe(self) -> dict[str, object]:
        """What --dry-run prints."""
        return {**super().describe(), "merges": list(self.merged)}

    def write(self, base_name: str, stage: Path) -> dict[str, object]:
        """Compute and write the PEFT files; give the provenance's fields."""
        weights, error = self._weights()
        write_plain(stage, weights, base_name)
        options = as_dict(self.options)
        return {
            "tasks": self.tasks,
            "builder": {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
            "seed": options.get("seed"),
            "steps": 0,
            "metrics": {"relative_error": error},
            "parents": parents_of(self.source, self.merged),
        }

    def _weights(self) -> tuple[dict[str, Weights], float]:
        """Combine site by site; also gives the share of the whole Frobenius norm that the rank leaves out."""
        experts = self._open()
        kept, lost, total = {}, 0.0, 0.0
        for site in sorted({site for expert in experts.values() for site in expert}):
            parts = {name: expert[site] for name, expert in experts.items() if site in expert}
            check_widths(list(parts.values()), site)
            found = self._combine(parts, site)
            kept[site], left = found.keep(self._rank(found, site))
            lost, total = lost + left, total + found.norm2
        return kept, math.sqrt(lost / total) if total else 0.0

    def _combine(self, parts: Parts, site: str) -> ThinSVD:
        try:
            return self.options.combine(parts, self.merged, site)
        except torch.linalg.LinAlgError:  # its message is of matrices that the reader never saw
            what = f"expert {self.name!r}: site {site!r}: the sum's numbers are too large to be decomposed."
            raise AdapterError("E-NONFINITE", what, "Give other shares.") from None

    def _rank(self, found: ThinSVD, site: str) -> int:
        rank = self.options.rank or max(1, found.rank)
        check_rank(rank, self.name, site, "Give a rank to truncate to, as in rank=16.")
        return rank
