"""One adapter's directory, opened and read once: what is judged of it is what a copy is made of."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lorary.disk.reading import is_plain_directory
from lorary.disk.writing import write_new
from lorary.errors import LibraryError, LoraryError, error_of, quote
from lorary.library.adapter import config as adapter_config
from lorary.library.adapter.chat_template import TEMPLATE, read_template
from lorary.library.adapter.findings import Finding, error, from_exception
from lorary.library.adapter.header import Header, TensorFile, copied_header, open_tensors
from lorary.library.adapter.provenance import Provenance, parse_provenance, read_provenance_bytes
from lorary.library.adapter.site_keys import peft_key
from lorary.library.layout import CONFIG, PICKLE, WEIGHTS

BRING_BACK = "Restore it, or leave the expert out."


class Copy(NamedTuple):
    """What a copy of an adapter holds, known without reading it again.

    provenance: what its expert.json is to say; provenance_bytes: the same in the words of the source, if it says any.
    sha256: of the weights file.
    """

    config: Mapping[str, Any]
    header: Header
    provenance: Provenance
    provenance_bytes: bytes | None
    sha256: str


@dataclass(frozen=True, eq=False)
class OpenAdapter:
    """An adapter's files as they were when it was opened; its weights file stays open.

    `config` and `tensors` are None where they couldn't be read; `unread` says why.
    """

    directory: Path
    config: dict[str, Any] | None = None
    tensors: TensorFile | None = None
    unread: tuple[Finding, ...] = ()
    config_bytes: bytes = b""

    @property
    def header(self) -> Header | None:
        """The header of the weights file."""
        return None if self.tensors is None else self.tensors.header

    @cached_property
    def provenance(self) -> Provenance:
        """What its expert.json says; nothing if there is none. Raises E-CONFIG, E-PATH."""
        return Provenance() if self.provenance_bytes is None else parse_provenance(self.provenance_bytes)

    @cached_property
    def provenance_bytes(self) -> bytes | None:
        """Its expert.json. Raises E-CONFIG, E-PATH."""
        return read_provenance_bytes(self.directory)

    @cached_property
    def template(self) -> str | LoraryError | None:
        """The chat template that it brings, or why that can't be read; None if it brings none."""
        try:
            return read_template(self.directory)
        except LoraryError as caught:
            return caught

    @cached_property
    def odd_names(self) -> dict[str, str]:
        """Names of tensors that PEFT has otherwise, and how."""
        return odd_names(self.header or {})

    def copy_to(self, stage: Path, *, base_name: str | None = None) -> Copy:
        """Write config, weights and template to an empty directory; expert.json is the caller's.

        What would let PEFT import code is left out of the config, and tensors get the names that PEFT has for them. A
        chat template that can be read goes along, as a file of its own. `base_name`: what the copy calls its base.
        Raises E-FILE, E-PATH, E-CONFIG.
        """
        if self.config is None or self.tensors is None:
            code, _, message, hint = dataclasses.astuple(self.unread[0])
            raise error_of(code, f"expert {quote(self.directory.name)}: {message}", hint or BRING_BACK)
        named = self.config if base_name is None else {**self.config, adapter_config.BASE_NAME: base_name}
        config = adapter_config.neutralised(named)
        is_same = config == self.config
        write_new(stage / CONFIG, self.config_bytes if is_same else adapter_config.config_bytes(config))
        head = self.tensors.renamed(self.odd_names) if self.odd_names else self.tensors.head
        given, made = _write_weights(stage / WEIGHTS, head, self.tensors)
        provenance, text = self.provenance, self.provenance_bytes
        if self.odd_names and provenance.weights_sha256:
            require_promised(given, provenance.weights_sha256, self.directory.name)
            provenance = dataclasses.replace(provenance, weights_sha256=made)
            text = provenance.to_json()
        if isinstance(self.template, str):  # of one that can't be read `add` tells
            write_new(stage / TEMPLATE, self.template.encode())
        moved = len(head) - len(self.tensors.head)
        return Copy(config, copied_header(self.tensors.header, self.odd_names, moved), provenance, text, made)


@contextlib.contextmanager
def open_adapter(directory: Path) -> Iterator[OpenAdapter]:
    """Open an adapter's directory and read adapter_config.json and the safetensors header. Never raises LoraryError.

    Nothing in it is run, imported or followed.
    """
    if (misplaced := _look_at_place(directory)) is not None:
        yield OpenAdapter(directory, unread=(misplaced,))
        return
    unread, config, data = list[Finding](), None, b""
    tensors: TensorFile | None = None
    with contextlib.ExitStack() as stack:
        try:
            data = adapter_config.read_config_bytes(directory)
            config = adapter_config.parse_config(data)
        except LoraryError as caught:
            unread.append(from_exception(caught))
        try:
            _refuse_pickle(directory)
            tensors = stack.enter_context(open_tensors(directory / WEIGHTS))
        except LoraryError as caught:
            unread.append(from_exception(caught))
        yield OpenAdapter(directory, config, tensors, tuple(unread), data)


def odd_names(header: Header) -> dict[str, str]:
    """Name the tensors that PEFT names otherwise, and say how."""
    return {key: name for key in header if (name := peft_key(key)) != key}


def require_promised(found: str, expected: str, name: str) -> None:
    """Raise E-FILE if an expert's weights aren't those that its expert.json promises, or that were there before."""
    if found != expected:
        message = f"expert {quote(name)}: {WEIGHTS} has changed: sha256 {found[:12]}, expected {expected[:12]}."
        hint = "Open the library again if another process replaced it; else fetch it again."
        raise LibraryError("E-FILE", message, hint)


def _look_at_place(directory: Path) -> Finding | None:
    if not directory.exists() and not directory.is_symlink():
        return error("E-FILE", f"there is no directory {quote(str(directory), 200)}.", "Check the path.")
    if directory.is_file() and not directory.is_symlink():
        message = f"{quote(str(directory), 200)} is a file, expected an adapter's directory."
        return error("E-PATH", message, "Give the directory that it stands in.")
    if not is_plain_directory(directory):
        return error("E-PATH", f"{quote(directory.name)} is not a plain directory.", "Copy it, don't link.")
    return None


def _refuse_pickle(directory: Path) -> None:
    weights = directory / WEIGHTS
    if not weights.exists() and not weights.is_symlink() and (directory / PICKLE).exists():
        message = f"only {PICKLE} is there, a pickle that could run code; it is never opened."
        hint = "Convert it in a sandbox: torch.load(weights_only=True), then safetensors.torch.save_file."
        raise LibraryError("E-PICKLE", message, hint)


def _write_weights(target: Path, head: bytes, tensors: TensorFile) -> tuple[str, str]:
    """Write a weights file with this head, durably; give the sha256 of the one that it is made of, and its own."""
    given, made = hashlib.sha256(tensors.head), hashlib.sha256(head)
    with target.open("xb") as writer:
        writer.write(head)
        for block in tensors.data():
            writer.write(block)
            made.update(block)
            if head is not tensors.head:
                given.update(block)
        writer.flush()
        os.fsync(writer.fileno())
    return (made if head is tensors.head else given).hexdigest(), made.hexdigest()
