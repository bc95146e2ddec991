"""Experts that change nothing, and experts that are the same: recognised by bytes and hashes, without tensors."""

import math
from collections.abc import Mapping
from typing import BinaryIO

from lorary.disk.reading import open_regular
from lorary.errors import listed
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.findings import Finding, warning
from lorary.library.adapter.header import ITEM_BYTES, TensorInfo

_BLOCK = 1 << 16
_ZERO = b"\x00\x80"  # the bytes of zeros of either sign, in every kind of float


def look_for_zeros(expert: Expert) -> list[Finding]:
    """Report an expert with a zero factor at every site (W-ZERO). Reads until the first number that isn't.

    Raises E-FILE and E-PATH, as `open_regular`.
    """
    with open_regular(expert.weights_path) as file:
        for keys in dict.fromkeys((factors.a, factors.b) for factors in expert.sites.values()):
            if not any(_is_zero(file, expert.header[key]) for key in keys):
                return []
    what = "it changes nothing: at every site one of its factors is zero. Routers that look at weights leave it out."
    return [warning("W-ZERO", what, "It was saved before it was trained, or its training failed.")]


def look_for_twins(expert: Expert, others: Mapping[str, Expert]) -> list[Finding]:
    """Report others that are the same adapter, weights and scales, by the hashes that the library keeps (W-TWIN)."""
    mine = expert.provenance.weights_sha256
    alike = [name for name, other in others.items() if other.provenance.weights_sha256 == mine and name != expert.name]
    twins = [name for name in alike if mine and others[name].scales == expert.scales]
    if not twins:
        return []
    what = f"it is the same adapter as {listed(twins)}: together they get more of the tokens than either alone."
    return [warning("W-TWIN", what, "Remove one of them, unless you want both.")]


def _is_zero(file: BinaryIO, tensor: TensorInfo) -> bool:
    n_left = ITEM_BYTES[tensor.dtype] * math.prod(tensor.shape)
    file.seek(tensor.start)
    while n_left > 0:
        data = file.read(min(_BLOCK, n_left))
        if not data or data.translate(None, _ZERO):
            return False
        n_left -= len(data)
    return True
