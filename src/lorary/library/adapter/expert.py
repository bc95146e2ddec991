"""Expert: a named adapter in a library, read as far as one can without tensors."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lorary.disk.arrival import arriving
from lorary.disk.reading import open_regular, signature
from lorary.disk.writing import write_new
from lorary.errors import LibraryError, LoraryError, quote
from lorary.hashing import hash_json, hash_open
from lorary.library.adapter.check import BaseFacts, judge
from lorary.library.adapter.findings import Finding, from_exception, raise_errors
from lorary.library.adapter.header import Header, open_tensors
from lorary.library.adapter.opened import BRING_BACK, OpenAdapter, odd_names, open_adapter, require_promised
from lorary.library.adapter.provenance import Provenance, read_provenance
from lorary.library.adapter.scale import scales_of
from lorary.library.adapter.targets import Factors, find_factors
from lorary.library.layout import CONFIG, PROVENANCE, WEIGHTS


@dataclass(frozen=True)
class Expert:
    """A named adapter that passed `check`: config and header are parsed and agree. Numbers are not looked at.

    `directory` is a plain PEFT adapter directory; `config` is adapter_config.json; `header` maps tensor keys to
    (dtype, shape).
    """

    name: str
    directory: Path
    config: Mapping[str, Any]
    header: Header
    provenance: Provenance
    _seen: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """sha256 of the weights file, and its signature when that was found."""

    @property
    def weights_path(self) -> Path:
        """The safetensors file."""
        return self.directory / WEIGHTS

    @cached_property
    def sites(self) -> dict[str, Factors]:
        """Site -> where its factors are in the file, sorted by site."""
        return find_factors(self.config, self.header)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Site -> rank, from the tensors."""
        return {site: factors.shapes(self.header)[0][0] for site, factors in self.sites.items()}

    @cached_property
    def scales(self) -> dict[str, float]:
        """Site -> the factor on B A, as PEFT resolves it."""
        ranks = {factors.pattern: self.ranks[site] for site, factors in self.sites.items()}
        scales = scales_of(self.config, ranks)
        return {site: scales[factors.pattern] for site, factors in self.sites.items()}

    @property
    def has_slices(self) -> bool:
        """Whether it adapts experts of a mixture of experts."""
        return any(factors.of for factors in self.sites.values())

    @property
    def rank(self) -> int:
        """The largest rank of all sites."""
        return max(self.ranks.values())

    @property
    def n_parameters(self) -> int:
        """How many numbers the adapter has."""
        return sum(math.prod(tensor.shape) for tensor in self.header.values())

    @cached_property
    def hash(self) -> str:
        """Identity: sha256 of the weights file with the scale at every site. Names and provenance don't enter.

        Reads the whole file once. Raises E-FILE when the bytes are not those that expert.json promises.
        """
        if "sha256" not in self._seen:
            self.confirm()
        return hash_json([self._seen["sha256"], self.scales])

    @cached_property
    def copied_hash(self) -> str:
        """The identity that a copy has, whose tensors bear PEFT's names. Raises as `hash`."""
        if not (odd := odd_names(self.header)):
            return self.hash
        self.confirm()
        digest = hashlib.sha256()
        with open_tensors(self.weights_path) as tensors:
            for block in tensors.blocks(odd):
                digest.update(block)
        return hash_json([digest.hexdigest(), self.scales])

    @cached_property
    def recorded_hash(self) -> str:
        """The same identity, read from expert.json if nobody touched the weights since that was written.

        For thousands of experts, whose bytes would take too long to read. In doubt it reads the file, as `hash` does.
        """
        return hash_json([self.provenance.weights_sha256, self.scales]) if self._is_vouched_for() else self.hash

    def confirm(self, *, recorded: bool = False) -> None:
        """Make sure that the weights on disk are those of this expert; call it after reading them.

        Reads the whole file, but for one that was read before and that nobody touched since. `recorded`: not if
        expert.json vouches for it, as `recorded_hash` does. Raises E-FILE when it is another file, damaged or gone.
        """
        if recorded and self._is_vouched_for():
            return
        try:
            # Once, and refusing what became a link or a FIFO: by its name another may be there the next time, or none.
            with open_regular(self.weights_path) as file:
                touched = signature(file.fileno())
                if touched == self._seen.get("signature"):
                    return
                found = hash_open(file)
        except LibraryError as caught:
            raise _named(caught, self.name) from None
        require_promised(found, self.provenance.weights_sha256 or self._seen.get("sha256", found), self.name)
        self._seen.update(sha256=found, signature=touched)

    def _is_vouched_for(self) -> bool:
        """Tell whether expert.json, as it is on disk now, names this expert's weights and nobody wrote to them since.

        It has to be read again: another process may have put another expert there, expert.json and all.
        """
        promised = self.provenance.weights_sha256
        try:
            untouched = _last_touched(self.weights_path) < _last_touched(self.directory / PROVENANCE)
            return bool(promised) and untouched and read_provenance(self.directory).weights_sha256 == promised
        except (FileNotFoundError, LibraryError):
            return False

    def copy_to(self, directory: Path | str) -> Path:
        """Copy it to a new directory that opens in PEFT and vLLM; expert.json goes along, both ignore it.

        Raises E-EXISTS when the directory is there already, E-DISK and E-PERM from the disk.
        """
        with arriving(directory) as stage:
            copy_adapter(self.directory, stage)
        return Path(directory)


def _last_touched(path: Path) -> int:
    found = path.stat()
    return max(found.st_mtime_ns, found.st_ctime_ns)  # no program can set the latter back


def hash_experts(experts: Mapping[str, Expert], *, recorded: bool = False) -> str:
    """Identity of several experts: their names and hashes. Order and paths don't matter.

    recorded: trust expert.json where the weights are untouched, and read no more than needed.
    """
    hashes = {name: expert.recorded_hash if recorded else expert.hash for name, expert in experts.items()}
    return hash_json(sorted(hashes.items()))


def copy_adapter(source: Path, target: Path) -> None:
    """Copy the files that make an adapter, and no others, into an existing empty directory.

    What would let PEFT import code is left out of the config, and tensors get the names that PEFT has for them, and
    expert.json the hash of the file that comes of it. A chat template that can be read goes along, as a file of its
    own. Raises E-FILE, E-PATH, E-CONFIG.
    """
    if not source.exists():
        raise LibraryError("E-FILE", f"expert {quote(source.name)}: {CONFIG} is missing.", BRING_BACK)
    with open_adapter(source) as adapter:
        made = adapter.copy_to(target)
    if made.provenance_bytes is not None:
        write_new(target / PROVENANCE, made.provenance_bytes)


def _named(caught: LoraryError, name: str) -> LoraryError:
    hint = caught.hint or BRING_BACK
    return caught.reworded(f"expert {quote(name)}: {caught.message}", hint)


def read_expert(directory: Path, name: str, *, base: BaseFacts | None = None) -> Expert:
    """Read and check one adapter directory. Raises all its errors as one, with the code of the first."""
    with open_adapter(directory) as adapter:
        return accept(adapter, name, base=base).expert


class Accepted(NamedTuple):
    """An adapter that passed `judge`, with what is doubtful about it; while its files are open, it can be copied."""

    expert: Expert
    findings: list[Finding]
    adapter: OpenAdapter


def accept(adapter: OpenAdapter, name: str, *, base: BaseFacts | None = None) -> Accepted:
    """Judge an open adapter by config and header, and call it `name`. Raises as `read_expert`."""
    findings, provenance = judge(adapter, base=base), Provenance()
    try:
        provenance = adapter.provenance
    except LibraryError as caught:
        findings.append(from_exception(caught))
    raise_errors(findings, name)
    return Accepted(
        Expert(name, adapter.directory, adapter.config or {}, adapter.header or {}, provenance), findings, adapter
    )
