"""An empty library, and an adapter to put into it."""

import pytest
from library_pico import write_adapter

from lorary.library.library import Library


@pytest.fixture
def library(tmp_path):
    return Library.create(tmp_path / "lib")


@pytest.fixture
def poems(tmp_path):
    return write_adapter(tmp_path / "poems")
