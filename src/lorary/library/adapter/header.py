"""Read the header of a safetensors file: 8 bytes of length, then JSON; of the tensors it knows names and places.

Stricter than the safetensors library, because headers come from strangers: small, unique keys, sane dimensions,
and offsets that cover the data exactly.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lorary.disk.reading import open_regular
from lorary.disk.strict_json import parse_object
from lorary.errors import AdapterError, LibraryError, quote

MAX_HEADER_BYTES = 4_000_000
MAX_TENSORS = 20_000
MAX_DIMENSION = 2**31
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_STATE_BYTES = {**ITEM_BYTES, "F64": 8, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
_MAX_STATE_HEADER_BYTES = 8_000_000
_MAX_STATE_TENSORS = 60_000
_BLOCK = 1 << 20
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class TensorInfo(NamedTuple):
    """What a header says of one tensor; `start`: its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


Header = Mapping[str, TensorInfo]


@dataclass(frozen=True, eq=False)
class TensorFile:
    """An open safetensors file whose header was read; `head` is its bytes: the length and the JSON.

    Another file may come to bear its name meanwhile: what is read of this one goes with its header.
    """

    file: BinaryIO
    name: str
    head: bytes
    header: dict[str, TensorInfo]
    metadata: dict[str, str]

    def blocks(self, names: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Give the whole file, block by block; `names`: what tensors are to be called, their bytes and metadata stay.

        Raises E-FILE if somebody cuts it meanwhile.
        """
        yield self.renamed(names) if names else self.head
        yield from self.data()

    def data(self) -> Iterator[bytes]:
        """Give what follows the header, block by block. Raises as `blocks`."""
        self.file.seek(len(self.head))
        n_left = max((_end(tensor) for tensor in self.header.values()), default=len(self.head)) - len(self.head)
        while n_left:
            block = self.file.read(min(_BLOCK, n_left))
            if not block:
                raise _damaged(self.name, f"{n_left:,} bytes went while it was read")
            n_left -= len(block)
            yield block

    def renamed(self, names: Mapping[str, str]) -> bytes:
        """Write the head that has other names for some tensors, each one once."""
        entries: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        for key, tensor in self.header.items():
            offsets = [tensor.start - len(self.head), _end(tensor) - len(self.head)]
            entry = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
            entries[names.get(key, key)] = entry
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open an adapter's file and read its header. Raises as `read_header`."""
    with open_regular(path) as file:
        yield _read(file, path.name, ITEM_BYTES, MAX_HEADER_BYTES, MAX_TENSORS)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read name -> (dtype, shape, start) of all tensors of an adapter, sorted by name; reads no tensor.

    Raises E-FILE (missing, damaged), E-PATH (not a regular file), E-PICKLE, E-LIMIT (too large to be an
    adapter) and E-DTYPE (not F32, F16 or BF16).
    """
    with open_tensors(path) as tensors:
        return tensors.header


def read_state_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Read the same of a file of a router's, which may hold whole numbers too, and its metadata. Raises as that."""
    with open_regular(path) as file:
        found = _read(file, path.name, _STATE_BYTES, _MAX_STATE_HEADER_BYTES, _MAX_STATE_TENSORS)
    return found.header, found.metadata


def copied_header(header: Header, names: Mapping[str, str], moved: int) -> dict[str, TensorInfo]:
    """Tell the header of a copy whose tensors have other names, and lie by `moved` bytes elsewhere."""
    renamed = {names.get(key, key): tensor._replace(start=tensor.start + moved) for key, tensor in header.items()}
    return dict(sorted(renamed.items()))


def _end(tensor: TensorInfo) -> int:
    return tensor.start + math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]


def _read(
    file: BinaryIO, name: str, item_bytes: Mapping[str, int], max_header_bytes: int, max_tensors: int
) -> TensorFile:
    size = os.fstat(file.fileno()).st_size
    head = _head(file, size, name, max_header_bytes)
    entries = parse_object(head[8:], f"{name} header", "E-FILE")
    metadata = _checked_metadata(entries.pop("__metadata__", {}), name)
    if len(entries) > max_tensors:
        raise LibraryError("E-LIMIT", f"{name} has {len(entries):,} tensors, the limit is {max_tensors:,}.")
    spans, header = [], {}
    for key in sorted(entries):
        header[key], span = _read_entry(key, entries[key], name, len(head), item_bytes)
        spans.append(span)
    _check_cover(spans, len(head), size, name)
    return TensorFile(file, name, head, header, metadata)


def _head(file: BinaryIO, size: int, name: str, max_bytes: int) -> bytes:
    start = file.read(8)
    if start.startswith(_PICKLE_STARTS):
        hint = "Convert it in a sandbox: torch.load(weights_only=True), then safetensors.torch.save_file."
        raise LibraryError("E-PICKLE", f"{name} is a pickle or zip with another name.", hint)
    if len(start) < 8:
        raise _damaged(name, f"it has {size} bytes, a header needs more than 8")
    length = int.from_bytes(start, "little")
    if length + 8 > size:
        raise _damaged(name, f"header says {length + 8:,} bytes, file has {size:,}")
    if length > max_bytes:
        raise LibraryError("E-LIMIT", f"{name} has a header of {length:,} bytes, the limit is {max_bytes:,}.")
    data = file.read(length)
    if len(data) != length or not data.startswith(b"{"):
        raise _damaged(name, "the header is not a JSON object")
    return start + data


def _damaged(name: str, why: str) -> LibraryError:
    return LibraryError("E-FILE", f"{name} is damaged: {why}.", "Fetch or save it again.")


def _checked_metadata(metadata: Any, name: str) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(name, "__metadata__ must map strings to strings")
    return metadata


def _read_entry(
    key: str, entry: Any, name: str, data_start: int, item_bytes: Mapping[str, int]
) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(name, f"tensor {quote(key)} needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(dtype, str) and _are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise _damaged(name, f"tensor {quote(key)} has an ill-typed dtype, shape or data_offsets")
    if dtype not in item_bytes:
        message = f"tensor {quote(key)} has dtype {quote(dtype)}, expected one of {', '.join(item_bytes)}."
        hint = "Save the adapter in float32, float16 or bfloat16." if item_bytes is ITEM_BYTES else ""
        raise AdapterError("E-DTYPE", message, hint)
    if len(shape) > 8 or any(d > MAX_DIMENSION for d in shape):
        raise LibraryError("E-LIMIT", f"tensor {quote(key)} has shape {quote(shape)}, beyond what a layer has.")
    if 0 in shape:
        raise _damaged(name, f"tensor {quote(key)} is empty (shape {quote(shape)})")
    begin, end = offsets
    if end - begin != math.prod(shape) * item_bytes[dtype]:
        raise _damaged(name, f"tensor {quote(key)} of shape {quote(shape)} in {dtype} does not fit its data_offsets")
    return TensorInfo(dtype, tuple(shape), data_start + begin), (begin, end)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_cover(spans: list[tuple[int, int]], data_start: int, size: int, name: str) -> None:
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise _damaged(name, f"{'a hole' if begin > reached else 'an overlap'} in the data at byte {reached:,}")
        reached = end
    if data_start + reached != size:
        raise _damaged(name, f"header says {data_start + reached:,} bytes, file has {size:,}")
