"""Whether all numbers in an adapter's file are sane; knows no tensors, reads the file once.

The top byte of a float holds its sign and the upper bits of its exponent, so that nearly all numbers are cleared by one
byte each, at about the cost of hashing the file. Only where one may be too large are all bits looked at.
"""

import math
import sys
from array import array
from pathlib import Path

from lorary.disk.reading import open_regular
from lorary.errors import quote
from lorary.library.adapter.findings import Finding, error
from lorary.library.adapter.header import ITEM_BYTES, Header

MAX_ABS = 1e4
"""A factor entry beyond this is a broken file, not a trained adapter."""

_MAX_BITS = {"F32": 0x461C4000, "BF16": 0x461C, "F16": 0x70E2}  # of the largest number up to MAX_ABS
_TYPES = {4: "I", 2: "H"}
_BLOCK = 1 << 20


def check_numbers(path: Path, header: Header) -> list[Finding]:
    """Find the first tensor of a file that holds a NaN, an infinity or an absurd number (E-NONFINITE), with its place.

    Raises E-FILE and E-PATH as `open_regular`.
    """
    with open_regular(path) as file:
        for key, tensor in header.items():
            file.seek(tensor.start)
            places: list[int] = []
            n = math.prod(tensor.shape)
            for start in range(0, n, _BLOCK):
                data = file.read(min(_BLOCK, n - start) * ITEM_BYTES[tensor.dtype])
                places += [start + place for place in _absurd(data, tensor.dtype)]
            if places:
                return [error("E-NONFINITE", *in_words(key, len(places), _index(places[0], tensor.shape)))]
    return []


def in_words(key: str, n: int, first: tuple[int, ...]) -> tuple[str, str]:
    """Report that n entries of a tensor aren't usable numbers, and what to do."""
    message = f"tensor {quote(key, 200)} has {n} entries that are not numbers below {MAX_ABS:g}, the first at {first}."
    return message, "Its training diverged; leave it out or train it again."


def _absurd(data: bytes, dtype: str) -> list[int]:
    size, most = ITEM_BYTES[dtype], _MAX_BITS[dtype]
    if not data[size - 1 :: size].translate(None, _CLEARED[dtype]):
        return []
    numbers = array(_TYPES[size], data)
    if sys.byteorder == "big":
        numbers.byteswap()
    unsigned = (1 << (8 * size - 1)) - 1
    return [place for place, bits in enumerate(numbers) if bits & unsigned > most]  # NaN and infinity are larger


def _cleared(dtype: str) -> bytes:
    """List the top bytes of numbers that are small enough whatever the other bytes are."""
    top = _MAX_BITS[dtype] >> (8 * ITEM_BYTES[dtype] - 8)
    return bytes(byte for byte in range(256) if byte & 0x7F < top)


_CLEARED = {dtype: _cleared(dtype) for dtype in _MAX_BITS}


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for width in reversed(shape):
        place, inner = divmod(place, width)
        index.insert(0, inner)
    return tuple(index)
