"""Encoded examples are kept as plain numbers, in memory or in a file, and come out as they went in."""

import os
import warnings
from pathlib import Path

import pytest

from lorary.errors import LibraryError
from lorary.model.text import encoded_rows
from lorary.model.text.encoded_rows import EncodedRows, encode_rows, length_at, lengths_of
from lorary.model.text.tokens import Encoded
from lorary.tasks.example import Example

ROWS = [Encoded((1, 2**31 - 1), (3,)), Encoded((), (0,), 7), Encoded(tuple(range(300)), ()), Encoded((5,), (6, 7), 1)]


@pytest.mark.parametrize("most", [0, 40, 1 << 20])
def test_rows_come_out_as_they_went_in(monkeypatch, most):
    monkeypatch.setattr(encoded_rows, "MOST_IN_MEMORY", most or 1)
    rows = EncodedRows(ROWS)
    assert list(rows) == ROWS and [rows[i] for i in (3, 0, 2, -3)] == [ROWS[3], ROWS[0], ROWS[2], ROWS[1]]
    assert rows[1:3] == ROWS[1:3] and len(rows) == 4 and ROWS[2] in rows
    assert list(lengths_of(rows)) == lengths_of(ROWS) == [length_at(rows, i) for i in range(4)] == [3, 1, 300, 3]
    with pytest.raises(IndexError):
        rows[4]


def test_a_file_is_taken_only_for_many_and_goes_with_them(monkeypatch):
    def n_open():
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("asks Linux for this process's files")
    before, few = n_open(), EncodedRows(ROWS)
    assert n_open() == before
    monkeypatch.setattr(encoded_rows, "MOST_IN_MEMORY", 1)
    many = EncodedRows(ROWS)
    assert n_open() == before + 1
    del few, many
    assert n_open() == before


def test_they_are_encoded_as_the_base_does(base, monkeypatch):
    monkeypatch.setattr(encoded_rows, "_AT_ONCE", 3)
    examples = tuple(Example(f"{i} " * i, "answer", "t") for i in range(1, 12))
    assert list(encode_rows(base, examples)) == base.encode(examples)


def test_cuts_are_said_once_for_all(base, monkeypatch):
    monkeypatch.setattr(encoded_rows, "_AT_ONCE", 2)
    examples = [Example("x" * n, "a", "t") for n in (10, 400, 20, 500, 600)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encode_rows(base, examples)
    assert [str(one.message)[:25] for one in caught] == ["3 of 5 prompts were cut a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_full_disk_is_an_error_with_a_code(monkeypatch):
    monkeypatch.setattr(encoded_rows, "MOST_IN_MEMORY", 1)
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - closed by the rows
    monkeypatch.setattr(encoded_rows.tempfile, "SpooledTemporaryFile", lambda **_: full)
    with pytest.raises(LibraryError, match=r"E-DISK.* keeping encoded examples in"):
        EncodedRows(ROWS)
