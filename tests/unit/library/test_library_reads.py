"""An adapter is read once: what was learned of it is handed on, and what is judged is what is copied."""

import os
from collections import Counter

import numpy as np
import pytest
from library_pico import BASE, SITES, tensors, write_adapter
from safetensors.numpy import load_file

from lorary.errors import AdapterError, LibraryError
from lorary.library.adapter.expert import accept
from lorary.library.adapter.opened import open_adapter
from lorary.library.library import Library
from opened_files import opens

LARGE = {"A": np.ones((2, 6000), np.float32), "B": np.ones((6000, 2), np.float32)}  # larger than what is read at once


@pytest.mark.parametrize("spelling", ["{}", "_orig_mod.{}"])
def test_adding_opens_each_file_of_the_source_once(library, tmp_path, spelling):
    source = write_adapter(tmp_path / "poems", {spelling.format(key): value for key, value in tensors().items()})
    (source / "expert.json").write_text('{"tasks": ["rhyme"]}')
    with opens() as opened:
        library.add(source, "poems", base=BASE)
    read = Counter(path.name for path in opened.read if path.parent == source)
    assert read == {"adapter_config.json": 1, "adapter_model.safetensors": 1, "expert.json": 1}
    again = Counter(path.name for path in opened.read if path.parent.parent == library.layout.staging)
    assert again == {
        "adapter_config.json": 1,  # to wait for the disk
        "adapter_model.safetensors": 2,  # that, and to look at its numbers
        "expert.json": 1,
    }


def test_of_a_built_expert_config_and_header_are_read_once(library):
    with opens() as opened, library.stage("poems") as stage:
        write_adapter(stage)
    read = Counter(path.name for path in opened.read)
    assert read["adapter_config.json"] == 2  # once more to wait for the disk
    assert read["adapter_model.safetensors"] == 4  # header, numbers, sha256, and to wait for the disk


def test_what_is_judged_is_what_is_copied(library, tmp_path):
    """Whatever another process puts there between the look and the copy."""
    source, bad = write_adapter(tmp_path / "poems"), tensors()
    bad[min(bad)][0, 0] = np.nan
    other = write_adapter(tmp_path / "other", bad, r=7, auto_mapping={"parent_library": "os"})
    with open_adapter(source) as adapter:
        accepted = accept(adapter, "poems", base=BASE)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            os.replace(other / name, source / name)
        expert = library.take(accepted)
    assert (expert.rank, expert.config["r"]) == (2, 2)
    found = load_file(expert.weights_path)
    assert all(np.array_equal(found[key], value) for key, value in tensors().items())
    assert Library.open(library.path)["poems"].hash == expert.hash


def test_a_file_that_is_cut_or_written_to_while_it_is_copied_is_refused(library, tmp_path):
    for change in ("cut", "nan"):
        large = {f"base_model.model.{SITES[0]}.lora_{side}.weight": ones for side, ones in LARGE.items()}
        source = write_adapter(tmp_path / change, large)
        with open_adapter(source) as adapter:
            accepted = accept(adapter, "poems")
            with (source / "adapter_model.safetensors").open("r+b") as file:
                file.truncate(90_000) if change == "cut" else (file.seek(-4, os.SEEK_END), file.write(b"\xff" * 4))
            expected = "E-FILE.*went while it was read" if change == "cut" else "E-NONFINITE"
            with pytest.raises(LibraryError if change == "cut" else AdapterError, match=expected):
                library.take(accepted)
        assert not list(library.layout.staging.iterdir()) and list(library) == []


def test_adapters_inside_an_adapter_are_named_when_they_are_left(library, tmp_path):
    source = write_adapter(tmp_path / "tuned")
    for name in ("poems", "law"):
        write_adapter(source / name)
    for change in (library.add, library.replace):
        with pytest.warns(RuntimeWarning, match=r"W-INNER.*'tuned' holds 2 more adapters, which are left out: 'law', "):
            change(source, "tuned")
