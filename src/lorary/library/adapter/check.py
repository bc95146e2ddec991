"""Findings about one adapter directory, before it is loaded.

`inspect` looks at headers, names, sizes and config, in milliseconds; `check` at every number, too.
Nothing from the directory is run, imported or followed.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorary.errors import LibraryError, listed, quote
from lorary.library.adapter import config as adapter_config
from lorary.library.adapter.findings import Finding, error, from_exception, raise_errors, warning
from lorary.library.adapter.header import Header
from lorary.library.adapter.numbers import check_numbers
from lorary.library.adapter.opened import OpenAdapter, open_adapter
from lorary.library.adapter.scale import ranks_of
from lorary.library.adapter.site_keys import PREFIX, endings
from lorary.library.adapter.targets import Factors, Names, Targets, find_factors, named_parameters, parse_slice
from lorary.library.adapter.tensor_keys import check_keys, check_places
from lorary.library.layout import WEIGHTS

BaseFacts = Mapping[str, tuple[int, int]]  # site name -> (d_in, d_out)
_CONFIG_UNUSABLE = ("E-CONFIG", "E-LIMIT", "E-REGEX")

__all__ = ["BaseFacts", "Finding", "Inspection", "check", "inspect", "judge", "raise_errors"]


@dataclass(frozen=True)
class Inspection:
    """All that was read while checking: the findings, and the config and header where they could be read."""

    findings: list[Finding]
    config: dict[str, Any] = field(default_factory=dict)
    header: Header = field(default_factory=dict)


def check(directory: Path, *, base: BaseFacts | None = None) -> list[Finding]:
    """Find what is wrong or doubtful in an adapter directory, errors first; with `base`, also whether it fits.

    Reads the whole file if nothing else is wrong: a NaN, an infinity or an absurd number is an error.
    """
    found = inspect(Path(directory), base=base)
    if any(finding.level == "error" for finding in found.findings):
        return found.findings
    return [*check_numbers(Path(directory) / WEIGHTS, found.header), *found.findings]


def inspect(directory: Path, *, base: BaseFacts | None = None) -> Inspection:
    """Check a directory except its numbers, and keep what was read, so that it isn't read twice.

    Reads adapter_config.json and the safetensors header only. Never raises LoraryError.
    """
    with open_adapter(directory) as adapter:
        return Inspection(judge(adapter, base=base), adapter.config or {}, adapter.header or {})


def judge(adapter: OpenAdapter, *, base: BaseFacts | None = None) -> list[Finding]:
    """Find what is wrong or doubtful in what was read of an adapter, errors first; reads nothing."""
    findings = _judge(adapter.config, adapter.header, base, adapter.unread)
    findings.sort(key=lambda finding: finding.level)  # stable: "error" before "warning"
    return [_with_hub_hint(finding, adapter.directory) for finding in findings]


def _judge(
    config: dict[str, Any] | None, header: Header | None, base: BaseFacts | None, unread: Sequence[Finding]
) -> list[Finding]:
    """Judge what could be read; if factors sit where none can be routed, only that is reported."""
    is_lora = config is not None and config.get("peft_type") == "LORA"
    if is_lora and (misplaced := check_places(config or {}, header or {}, base)):
        return [*unread, *misplaced]
    findings = [*(adapter_config.check_config(config) if config is not None else ()), *unread]
    if header is None:
        return findings
    findings += check_keys(header)
    if config and not any(finding.code in _CONFIG_UNUSABLE for finding in findings):
        try:
            findings += _check_sites(config, header, base)
        except LibraryError as caught:  # a pattern that takes too long
            findings.append(from_exception(caught))
    return findings


def _with_hub_hint(finding: Finding, directory: Path) -> Finding:
    """In the Hub's cache all files are links: say how they are reached."""
    parts = directory.absolute().parts
    places = [i for i, part in enumerate(parts[:-2]) if part.startswith("models--") and parts[i + 1] == "snapshots"]
    if finding.code != "E-PATH" or not places:
        return finding
    repo, revision, *folders = parts[places[-1]].removeprefix("models--"), *parts[places[-1] + 2 :]
    name = "/".join(["hf:/", repo.replace("--", "/", 1), *folders]) + f"@{revision}"
    hint = f"It is in the Hub's cache: give {name} instead, with HF_HUB_OFFLINE=1 where there is no network."
    return replace(finding, hint=hint)


# ---- sites --------------------------------------------------------------------------------------


Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]  # site -> ((r, d_in), (d_out, r))


def _check_sites(config: Mapping[str, Any], header: Header, base: BaseFacts | None) -> list[Finding]:
    factors = find_factors(config, header)
    sites = {site: found.shapes(header) for site, found in factors.items()}
    if not sites:
        return []
    flat = [site for site, shapes in sites.items() if any(len(shape) != 2 for shape in shapes)]
    if flat:
        return [error("E-SHAPE", f"{_first(flat)}: shapes {_shapes(sites[flat[0]])}, expected two matrices.")]
    findings = [*_check_inner(sites), *_check_ranks(config, sites, factors)]
    findings += (_check_slices(factors, base) or _check_base(sites, base, len(header))) if base is not None else []
    layers = {site: shapes for site, shapes in sites.items() if not factors[site].of}
    return [*findings, *_check_targets(config, layers, base), *_check_parameters(config, factors, base)]


def _first(sites: list[str]) -> str:
    more = f" (and {len(sites) - 1} more sites)" if len(sites) > 1 else ""
    return f"site {quote(sites[0])}{more}"


def _shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    return f"lora_A {list(shapes[0])}, lora_B {list(shapes[1])}"


def _check_inner(sites: Shapes) -> list[Finding]:
    torn = [site for site, (a, b) in sites.items() if a[0] != b[1]]
    if torn:
        return [error("E-SHAPE", f"{_first(torn)}: {_shapes(sites[torn[0]])} don't share a rank.")]
    large = [site for site, (a, _) in sites.items() if a[0] > adapter_config.MAX_RANK]
    if large:
        rank = sites[large[0]][0][0]
        return [
            error("E-LIMIT", f"{_first(large)}: tensors have rank {rank:,}, the limit is {adapter_config.MAX_RANK}.")
        ]
    return []


def _check_ranks(config: Mapping[str, Any], sites: Shapes, factors: Mapping[str, Factors]) -> list[Finding]:
    ranks = ranks_of(config, {found.pattern for found in factors.values()})
    wrong = [site for site, (a, _) in sites.items() if ranks[factors[site].pattern] != a[0]]
    if not wrong:
        return []
    promised, found = ranks[factors[wrong[0]].pattern], sites[wrong[0]][0][0]
    hint = "Set r (or rank_pattern) to what was trained; check lora_alpha too, for it is divided by r."
    return [error("E-RANK", f"{_first(wrong)}: config r={promised}, tensors have rank {found}.", hint)]


def _check_targets(config: Mapping[str, Any], sites: Shapes, base: BaseFacts | None) -> list[Finding]:
    targets = Targets(config)
    findings = _check_held(targets, sites, base)
    if base is None:
        names = config.get("target_modules")
        unused = Names(names).idle(sites) if isinstance(names, list) else frozenset()
        if idle := [name for name in names or () if name in unused]:
            findings.append(warning("W-KEYS", f"target_modules names {listed(idle)}, but no tensor is for it."))
    for unread in dict.fromkeys(targets.unreadable):
        message = (
            f"{unread} is a regular expression that can't be run safely; the tensors decide which layers it adapts."
        )
        findings.append(warning("W-REGEX", message))
    return findings


def _check_held(targets: Targets, sites: Shapes, base: BaseFacts | None) -> list[Finding]:
    findings = []
    extra = [site for site in sites if targets.hold(site) is False]
    if extra:
        message = f"{_first(extra)}: tensors for layers that target_modules doesn't name."
        findings.append(error("E-KEYS", message, "PEFT would ignore them silently. Correct target_modules."))
    if base is not None:
        layers = [site for site in sorted(base) if parse_slice(site) is None]
        missing = [site for site in layers if site not in sites and targets.hold(site) is True]
        known = [site for site in sites if site in base]
        if missing and known:
            message = (
                f"{len(missing)} of {len(missing) + len(known)} targeted sites have no tensors: {listed(missing)}."
            )
            findings.append(error("E-KEYS", message, "Save the adapter again, or correct target_modules."))
    return findings


def _check_parameters(
    config: Mapping[str, Any], factors: Mapping[str, Factors], base: BaseFacts | None
) -> list[Finding]:
    """Compare target_parameters with the tensors: PEFT fills what is missing with zeros, without a word."""
    names, adapted = Names(named_parameters(config)), {found.pattern for found in factors.values() if found.of}
    if base is None:
        idle = sorted(names.idle(adapted))
        return [warning("W-KEYS", f"target_parameters names {listed(idle)}, but no tensor is for it.")] if idle else []
    there = {found.parameter for site in base if (found := parse_slice(site)) and found.parameter in names}
    if missing := sorted(there - adapted):
        message = f"{len(missing)} of {len(there)} targeted parameters have no tensors: {listed(missing)}."
        return [error("E-KEYS", message, "Save the adapter again, or correct target_parameters.")]
    return []


# ---- base ---------------------------------------------------------------------------------------


def _check_base(sites: Shapes, base: BaseFacts, n_tensors: int) -> list[Finding]:
    strange = [site for site in sites if site not in base]
    if strange:
        return [_strange_sites(strange, sites, base, n_tensors)]
    wrong = [site for site, (a, b) in sites.items() if (a[1], b[0]) != tuple(base[site])]
    if not wrong:
        return []
    a, b = sites[wrong[0]]
    d_in, d_out = base[wrong[0]]
    message = f"{_first(wrong)}: the adapter maps {a[1]} to {b[0]}, the base {d_in} to {d_out}."
    return [error("E-SHAPE", message, "It was trained on another base.")]


def _check_slices(factors: Mapping[str, Factors], base: BaseFacts) -> list[Finding]:
    """Compare how many experts a mixture has: by the adapter's rank, and in the base."""
    sizes: dict[str, int] = {}
    for site in base:
        if found := parse_slice(site):
            sizes[found.parameter] = max(sizes.get(found.parameter, 0), found.number + 1)
    for one in factors.values():
        if one.of and (size := sizes.get(one.pattern, one.of)) != one.of:
            message = f"{quote(one.pattern)}: by its rank the adapter is for {one.of} experts, the base has {size}."
            return [error("E-SHAPE", message, "Set r to what was trained, or load the base that it was trained on.")]
    return []


def _lacking(sites: Sequence[str], base: BaseFacts) -> str:
    """Say what all these paths lack at their start to be the base's; empty if it isn't one and the same."""
    places = dict[str, set[str]]()
    for own in base:
        for ending in endings(own)[1:]:
            places.setdefault(ending, set()).add(own.removesuffix(ending))
    common = set.intersection(*(places.get(site, set()) for site in sites))
    return min(common, default="", key=lambda prefix: (len(prefix), prefix))


def _strange_sites(strange: list[str], sites: Shapes, base: BaseFacts, n_tensors: int) -> Finding:
    leaves = sorted({(found.parameter if (found := parse_slice(site)) else site).rpartition(".")[2] for site in base})
    if len(strange) == len(sites) and (prefix := _lacking(strange, base)):
        hint = f"Every path lacks {quote(prefix)}: put it before the path, after {quote(PREFIX)}, in all keys."
        return error("E-KEYS", f"0 of {n_tensors} tensors match the base.", hint)
    if len(strange) == len(sites) and strange[0].rpartition(".")[2] in leaves:
        near = difflib.get_close_matches(strange[0], sorted(base), n=1, cutoff=0)
        hint = (
            f"Nearest: {quote(near[0])} for {quote(strange[0])}. Rename the keys, or load the base they were made for."
        )
        return error("E-KEYS", f"0 of {n_tensors} tensors match the base.", hint)
    return error("E-TARGET", f"{_first(strange)}: the base has no such layer.", f"The base has: {', '.join(leaves)}.")
