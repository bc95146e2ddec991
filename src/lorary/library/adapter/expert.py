"""Expert: a named adapter in a library, read as far as one can without tensors."""

import contextlib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lorary.disk.arrival import arriving
from lorary.disk.reading import copy_durably, open_regular, signature
from lorary.disk.writing import write_whole
from lorary.errors import LibraryError, quote
from lorary.hashing import hash_file, hash_json, hash_open
from lorary.library.adapter.brought import TEMPLATE, brought_template
from lorary.library.adapter.check import BaseFacts, inspect
from lorary.library.adapter.config import config_bytes, neutralised, read_config
from lorary.library.adapter.findings import from_exception, raise_errors
from lorary.library.adapter.header import Header, read_header, rename_tensors, renamed
from lorary.library.adapter.provenance import Provenance, read_provenance
from lorary.library.adapter.scale import scales_of
from lorary.library.adapter.site_keys import peft_key, site_tensors
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
        return scales_of(self.config, self.ranks)

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
        if not (odd := _odd_names(self.header)):
            return self.hash
        self.confirm()
        digest = hashlib.sha256()
        for block in renamed(self.weights_path, odd):
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
        _require_promised(found, self.provenance.weights_sha256 or self._seen.get("sha256", found), self.name)
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
    for name in (CONFIG, WEIGHTS, PROVENANCE):
        path = source / name
        if name != PROVENANCE or path.exists() or path.is_symlink():
            try:
                copy_durably(path, target / name)
            except LibraryError as caught:
                raise _named(caught, source.name) from None
    config = read_config(target)
    if (safe := neutralised(config)) != config:
        write_whole(target / CONFIG, config_bytes(safe))
    with contextlib.suppress(LibraryError):  # `add` tells of it
        if template := brought_template(source):
            write_whole(target / TEMPLATE, template.encode())
    try:
        header = read_header(target / WEIGHTS)
    except LibraryError as caught:
        raise _named(caught, source.name) from None
    if odd := _odd_names(header):
        _respell(target, odd, source.name)


def _odd_names(header: Header) -> dict[str, str]:
    """Map the tensors that PEFT names differently to PEFT's names."""
    return {key: name for key in header if (name := peft_key(key)) != key}


def _respell(directory: Path, names: Mapping[str, str], called: str) -> None:
    """Rename tensors of a copy, once it is known to be what its expert.json promises. Raises E-FILE."""
    weights, provenance = directory / WEIGHTS, read_provenance(directory)
    if promised := provenance.weights_sha256:
        _require_promised(hash_file(weights), promised, called)
    rename_tensors(weights, names)
    if promised:
        write_whole(directory / PROVENANCE, replace(provenance, weights_sha256=hash_file(weights)).to_json())


def _require_promised(found: str, expected: str, name: str) -> None:
    if found != expected:
        message = f"expert {quote(name)}: {WEIGHTS} has changed: sha256 {found[:12]}, expected {expected[:12]}."
        hint = "Open the library again if another process replaced it; else fetch it again."
        raise LibraryError("E-FILE", message, hint)


def _named(caught: LibraryError, name: str) -> LibraryError:
    hint = caught.hint or "Restore it, or leave the expert out."
    return LibraryError(caught.code, f"expert {quote(name)}: {caught.message}", hint)


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
