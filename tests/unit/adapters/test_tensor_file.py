"""Files of tensors are as readable as all others, and a disk that refuses is an OSError."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorary.formats.tensor_file import filled_by_others, write_tensors

TENSORS = {"a": torch.arange(4000.0)}


@pytest.fixture(params=[0o022, 0o027])
def mode(request):
    """What the umask leaves of a new file's mode."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_the_umask_says_who_may_read_tensors(tmp_path, mode):
    path = tmp_path / "x.safetensors"
    write_tensors(TENSORS, path, {"format": "pt"})
    assert torch.equal(load_file(path)["a"], TENSORS["a"])
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_the_umask_says_who_may_read_what_others_wrote(tmp_path, mode):
    (tmp_path / "deep").mkdir()
    with filled_by_others(tmp_path):
        save_file(TENSORS, tmp_path / "deep" / "x.safetensors")
    assert (tmp_path / "deep" / "x.safetensors").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_full_disk_is_an_os_error_and_nothing_remains(tmp_path, full_disk):
    path = tmp_path / "x.safetensors"
    with full_disk(1000), pytest.raises(OSError, match="x.safetensors") as caught:
        write_tensors(TENSORS, path)
    assert caught.value.errno == errno.EFBIG
    assert not path.exists()


def test_what_is_not_the_disk_s_fault_stays_what_it_is(tmp_path):
    with pytest.raises(SafetensorError, match="broken"), filled_by_others(tmp_path):
        raise SafetensorError("broken")
