"""A library under a static routing -> one plain PEFT adapter, which opens wherever PEFT adapters do."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lorary.adapters.contract import Mix, Weights
from lorary.adapters.lora import LoRA
from lorary.adapters.products import padded
from lorary.adapters.static import StaticMix, mix_static
from lorary.disk.arrival import arriving
from lorary.errors import AdapterError, LibraryError, OptionError, known_names
from lorary.formats.peft import read_weights, write_weights
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.provenance import Provenance
from lorary.library.adapter.targets import parse_slice
from lorary.library.layout import PROVENANCE
from lorary.library.manifest import this_version
from lorary.model.base.peft_limits import model_type_of, warn_of_peft
from lorary.model.ensemble.ensemble import check_mix
from lorary.options import require, require_count

Shares = Mapping[str, float]
UNIFORM = "uniform"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's max_lora_rank may be: `MaxLoRARanks` in its vllm/config/lora.py.

It multiplies each site by the one lora_alpha / r of the config, and reads no patterns (vllm/lora/peft_helper.py).
"""


@dataclass(frozen=True)
class Exported:
    """What became of an export. Errors are relative, in the Frobenius norm of the updates: |kept - exact| / |exact|.

    ranks: site -> rank. error: over all sites. worst: the site with the largest error, and that error.
    """

    directory: Path
    ranks: Mapping[str, int]
    error: float
    worst: tuple[str, float]


def export(
    experts: Mapping[str, Expert],
    shares: str | Shares | Mapping[str, Shares] = UNIFORM,
    *,
    into: Path | str,
    mix: Mix = "factors",
    rank: int | None = None,
    pad_rank: bool = False,
) -> Exported:
    """Write one PEFT adapter that does what these experts do in fixed shares; they stay as they are.

    experts: a library, or what else maps names to experts. shares: "uniform" (1 / |L| each); {name: share}, with
    {"poems": 1} for one expert; or {site: {name: share}}, as `RoutedModel.choices` gives them.
    mix="factors" keeps the experts' rank. mix="outputs" has the sum of their ranks, which is exact, or at most `rank`:
    then it is the nearest adapter of that rank, with its error told.
    pad_rank: fill up all sites with zeros to one of the ranks that vLLM's max_lora_rank may be, so that there is one
    rank and one scale, without patterns, which not every program reads.
    Raises E-NAME, E-TARGET, E-OPTION, E-RANK, E-EMPTY for shares that are all zero, E-NONFINITE for shares beyond all
    sense, E-EXISTS, E-PATH, E-DISK, E-PERM.
    """
    mixed, members = mix_experts(experts, shares, mix, rank)
    if pad_rank:
        mixed = _padded(mixed)
    with arriving(into) as stage:
        _write(stage, mixed, members, {"mix": mix, "rank": rank and int(rank), "shares": plain_shares(shares)})
    return _told(Path(into), mixed)


def mix_experts(
    experts: Mapping[str, Expert], shares: str | Shares | Mapping[str, Shares], mix: Mix, rank: int | None = None
) -> tuple[dict[str, StaticMix], dict[str, Expert]]:
    """Mix experts in fixed shares: what stands at each site, and the experts that have a share. Raises as `export`."""
    require("experts", experts, Mapping, "a library, or experts by name", "Open one: Library.open(path).")
    if rank is not None:
        require_count("rank", rank)
    by_site = _by_site(experts, shares)
    speaking = sorted({name for named in by_site.values() for name, share in named.items() if share})
    members = {name: experts[name] for name in speaking}
    check_mix(members, mix)
    weights = {name: read_weights(expert) for name, expert in members.items()}
    mixed: dict[str, StaticMix] = {}
    for site, named in sorted(by_site.items()):
        present = [(weights[name][site], share) for name, share in sorted(named.items()) if share]
        if present:
            parts = [w for w, _ in present]
            mixed[site] = mix_static(parts, [share for _, share in present], mix, rank, site=site)
    if not mixed:
        raise LibraryError("E-EMPTY", "the shares leave nothing to export.", "Give at least one expert a share.")
    return mixed, members


def _padded(mixed: Mapping[str, StaticMix]) -> dict[str, StaticMix]:
    largest = max(one.weights.rank for one in mixed.values())
    if (rank := next((rank for rank in VLLM_RANKS if rank >= largest), None)) is None:
        what = f"rank {largest} is more than vLLM takes, {VLLM_RANKS[-1]}."
        raise AdapterError("E-RANK", what, f"Give a rank of at most {VLLM_RANKS[-1]}.")
    return {site: replace(one, weights=padded(one.weights, rank)) for site, one in mixed.items()}


def plain_shares(shares: Any) -> Any:
    """Write shares as JSON can hold them, whatever kind of mappings and numbers they are."""
    if isinstance(shares, Mapping):
        return {name: plain_shares(share) for name, share in shares.items()}
    return shares if isinstance(shares, str) else float(shares)


def _by_site(experts: Mapping[str, Expert], shares: str | Shares | Mapping[str, Shares]) -> dict[str, Shares]:
    """Give each site the shares of the experts that sit there."""
    if isinstance(shares, str):
        if shares != UNIFORM:
            raise OptionError("E-OPTION", f"unknown shares {shares!r}.", known_names(shares, [UNIFORM]))
        shares = dict.fromkeys(experts, 1 / len(experts)) if experts else {}
    require("shares", shares, Mapping, '"uniform", {name: share} or {site: {name: share}}')
    nested = {site: named for site, named in shares.items() if isinstance(named, Mapping)}
    flat: dict[str, float] = {name: share for name, share in shares.items() if not isinstance(share, Mapping)}
    if nested and flat:
        raise OptionError("E-OPTION", "shares mix experts and sites.", "Give {name: share} or {site: {name: share}}.")
    for name, share in [*flat.items(), *(pair for named in nested.values() for pair in named.items())]:
        if name not in experts:
            raise OptionError("E-NAME", f"unknown expert {name!r}.", known_names(name, sorted(experts)))
        if not isinstance(share, numbers.Real) or not math.isfinite(share):
            raise OptionError("E-OPTION", f"the share of {name!r} is {share!r}, expected a number.")
    sites = sorted({site for expert in experts.values() for site in expert.sites})
    slices: dict[str, list[str]] = {}  # what a mixture's parameter is told, is told of each of its slices
    for site in sites:
        if found := parse_slice(site):
            slices.setdefault(found.parameter, []).append(site)
    for site in nested:
        if site not in sites and site not in slices:
            raise AdapterError("E-TARGET", f"no expert sits at {site!r}.", known_names(site, sites))
    every = nested or dict.fromkeys(sites, flat)
    return {
        place: {name: share for name, share in named.items() if place in experts[name].sites}
        for site, named in every.items()
        for place in slices.get(site, [site])
    }


def _write(stage: Path, mixed: Mapping[str, StaticMix], members: Mapping[str, Expert], how: Mapping[str, Any]) -> None:
    weights = _with_last_slices({site: mix.weights for site, mix in mixed.items()}, members)
    common = max(w.rank for w in weights.values())
    names = {str(expert.config.get("base_model_name_or_path") or "") for expert in members.values()}
    write_weights(stage, LoRA(rank=common, alpha=float(common)), weights, base_name=min(names))
    fingerprints = [e.provenance.base_fingerprint for e in members.values() if e.provenance.base_fingerprint]
    warn_of_peft(model_type_of(str(fingerprints[0].get("architecture"))) if fingerprints else None, weights)
    provenance = Provenance(
        tasks=tuple(sorted({task for expert in members.values() for task in expert.provenance.tasks})),
        builder={"name": "export", **how},
        base_fingerprint=fingerprints[0] if fingerprints else None,
        parents=tuple(members),
        created_by=this_version(),
    )
    (stage / PROVENANCE).write_bytes(provenance.to_json())


def _with_last_slices(weights: Mapping[str, Weights], members: Mapping[str, Expert]) -> dict[str, Weights]:
    """Add the last slice, which changes nothing, where a mixture's parameter lacks it: it tells how many there are."""
    filled = dict(weights)
    adapted = {found.parameter for site in weights if (found := parse_slice(site))}
    for expert in members.values():
        for site, factors in expert.sites.items():
            if factors.number == factors.of - 1 and factors.pattern in adapted and site not in filled:
                (_, d_in), (d_out, _) = factors.shapes(expert.header)
                filled[site] = Weights(torch.zeros(1, d_in), torch.zeros(d_out, 1), 1.0)
    return filled


def _told(directory: Path, mixed: Mapping[str, StaticMix]) -> Exported:
    errors = {site: _relative(mix.missing2, mix.norm2) for site, mix in mixed.items()}
    worst = max(errors, key=lambda site: errors[site])
    total = _relative(sum(mix.missing2 for mix in mixed.values()), sum(mix.norm2 for mix in mixed.values()))
    return Exported(directory, {site: m.weights.rank for site, m in mixed.items()}, total, (worst, errors[worst]))


def _relative(missing2: float, norm2: float) -> float:
    return math.sqrt(missing2 / norm2) if norm2 > 0 else 0.0
