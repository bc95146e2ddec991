"""Expert: a named adapter in a library, read as far as one can without tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lorary.errors import LibraryError
from lorary.hashing import hash_file, hash_json
from lorary.library.arrival import arriving
from lorary.library.check import BaseFacts, inspect
from lorary.library.files import copy_durably, open_regular
from lorary.library.findings import from_exception, quote, raise_errors
from lorary.library.layout import CONFIG, PROVENANCE, WEIGHTS
from lorary.library.provenance import Provenance, read_provenance
from lorary.library.safetensors_header import Header
from lorary.library.scale import scale_of
from lorary.library.site_keys import site_tensors


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

    @property
    def weights_path(self) -> Path:
        """The safetensors file."""
        return self.directory / WEIGHTS

    @cached_property
    def sites(self) -> dict[str, tuple[str, str]]:
        """Site -> (input-side key, output-side key), sorted by site."""
        return site_tensors(self.header)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Site -> rank, from the tensors."""
        return {site: self.header[a].shape[0] for site, (a, _) in self.sites.items()}

    @cached_property
    def scales(self) -> dict[str, float]:
        """Site -> the factor on B A, as PEFT resolves it."""
        return {site: scale_of(self.config, site, rank) for site, rank in self.ranks.items()}

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
        with open_regular(self.weights_path):  # refuses what became a link or a FIFO since it was checked
            weights = hash_file(self.weights_path)
        promised = self.provenance.weights_sha256
        if promised and promised != weights:
            message = (
                f"expert {quote(self.name)}: {WEIGHTS} has changed: sha256 {weights[:12]}, expected {promised[:12]}."
            )
            raise LibraryError("E-FILE", message, "Fetch it again; if you changed it on purpose, replace the expert.")
        return hash_json([weights, self.scales])

    @cached_property
    def recorded_hash(self) -> str:
        """The same identity, read from expert.json if nobody touched the weights since that was written.

        For thousands of experts, whose bytes nobody wants to read. In doubt it reads the file, as `hash` does.
        """
        promised = self.provenance.weights_sha256
        if promised and _last_touched(self.weights_path) < _last_touched(self.directory / PROVENANCE):
            return hash_json([promised, self.scales])
        return self.hash

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
    """Copy the files that make an adapter, and no others, into an existing empty directory."""
    for name in (CONFIG, WEIGHTS, PROVENANCE):
        path = source / name
        if name != PROVENANCE or path.exists() or path.is_symlink():
            copy_durably(path, target / name)


def read_expert(directory: Path, name: str, *, base: BaseFacts | None = None) -> Expert:
    """Read and check one adapter directory. Raises LibraryError with all its errors, the first one's code."""
    inspection = inspect(directory, base=base)
    findings = list(inspection.findings)
    provenance = Provenance()
    try:
        provenance = read_provenance(directory)
    except LibraryError as caught:
        findings.append(from_exception(caught))
    raise_errors(findings, name)
    return Expert(name, directory, inspection.config, inspection.header, provenance)
