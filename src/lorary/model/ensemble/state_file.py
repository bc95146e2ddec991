"""What a router knows, in a file: sealed by whoever's lorary wrote it; bounded and checked, whoever that was.

The metadata hold a hash of the tensors, and a seal of that hash and of what it is about. So the header alone tells
whether this user's lorary wrote a file; a stranger's isn't read any further where the state can be fitted instead.
"""

import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lorary.disk.reading import open_regular
from lorary.disk.seal import is_sealed, seal
from lorary.errors import LibraryError, LoraryError, RoutingError, quote
from lorary.formats.tensor_file import write_tensors
from lorary.hashing import hash_json
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.header import read_state_header
from lorary.model.base.fingerprint import tensor_facts
from lorary.routing.contract import Router, State
from lorary.routing.members import RoomyState

MAX_ABS = 1e6
"""Beyond it is no direction, centroid or logit of anybody's: the products with such numbers would overflow."""

_SEAL = "seal"  # one entry, of two hashes: safetensors writes several in no fixed order
_ORIGIN = "W-ORIGIN"
_SPARE_BYTES = 1 << 26
_MOST_BLOCKS = 64  # that heads may divide a layer into, with a logit for each


def write_state(state: State, path: Path, *about: object) -> None:
    """Write a state with this user's seal of it and of what it is about. Raises OSError."""
    content = _hash(state)
    write_tensors(state, path, {_SEAL: f"{content} {seal(*about, content)}"})


def read_own(path: Path, *about: object) -> RoomyState | None:
    """Read a state, into memory of its own, if this user's lorary wrote it about just that, and it is undamaged."""
    try:
        content = _own_content(read_state_header(path)[1], about)
        state = RoomyState(load_file(path)) if content else None
        return state if state is not None and _hash(state) == content else None
    except (LoraryError, OSError, SafetensorError):
        return None


def read_any(path: Path, limit: int, *about: object) -> tuple[RoomyState, bool]:
    """Read a state that can't be made again, whoever wrote it; True: this user's lorary did, about just that.

    Raises E-LIMIT for more bytes than `limit`, before they are read, and for an absurd header; E-FILE,
    E-PATH, E-DTYPE for what is no such file; E-STATE for numbers that are none, or absurd.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise LibraryError("E-LIMIT", f"{path.name} has {size:,} bytes, the limit for these experts is {limit:,}.")
    metadata = read_state_header(path)[1]
    try:
        state = RoomyState(load_file(path))
    except (OSError, SafetensorError) as error:
        raise LibraryError("E-FILE", f"{path.name} is damaged: {error}.", "Fetch or save it again.") from error
    for name, tensor in state.items():
        if not is_sane(tensor):
            what = f"{path.name}: {quote(name)} holds what is no number, or an absurd one (beyond {MAX_ABS:g})."
            raise RoutingError("E-STATE", what, "Its router would send everything to one expert, or nowhere.")
    return state, _own_content(metadata, about) == _hash(state)


def is_sane(tensor: Tensor) -> bool:
    """Tell whether a tensor holds something, and nothing but finite numbers of a size that products survive."""
    if tensor.numel() == 0:
        return False
    if not tensor.is_floating_point():
        return True
    low, high = torch.aminmax(tensor)  # one pass; a NaN comes out as NaN
    return bool((low >= -MAX_ABS) & (high <= MAX_ABS))


def most_bytes(members: Collection[Expert], router: Router | None = None) -> int:
    """Say how large a state of these experts can be: more than any router keeps of them, less than gigabytes for few.

    Room for every direction of every expert, for its products with the tokens of a router's own texts, and for logits
    of all tasks.
    """
    inner = router.inner if router is not None else ()
    if inner:
        return sum(most_bytes(members, one) for one in inner)
    n_tokens = getattr(router, "n_texts", 0) * getattr(router, "n_tokens", 0)
    n_tasks = len({task for member in members for task in member.provenance.tasks})
    numbers = 0
    for member in members:
        for factors in member.sites.values():
            rank, d_in = factors.shapes(member.header)[0]
            numbers += (rank + 1) * d_in + getattr(router, "n_sketch", 0)
        numbers += len(member.sites) * (n_tokens + _MOST_BLOCKS * n_tasks)
    return _SPARE_BYTES + 4 * numbers


def tell_origin(what: str) -> None:
    """Warn that somebody else's state decides the routing."""
    told = (
        f"warning[{_ORIGIN}] {what} was not written by you on this machine (or before lorary kept a key, or the key is "
        "lost). Its numbers are sane, but its author decided the routing: unless you trust them, take a router that "
        "learns nothing."
    )
    warnings.warn(told, RuntimeWarning, stacklevel=3)


def _hash(state: State) -> str:
    return hash_json(tensor_facts(state))


def _own_content(metadata: Mapping[str, str], about: tuple[object, ...]) -> str | None:
    """Give the hash of the tensors that this user's lorary wrote, as a file's metadata tell it; None: it didn't."""
    content, _, told = metadata.get(_SEAL, "").partition(" ")
    return content if is_sealed(told, *about, content) else None
