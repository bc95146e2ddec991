"""A Hub that is busy, out of order, silent, hangs up or sends other bytes: asked again, then told in a line."""

from types import SimpleNamespace

import pytest
from library_pico import write_adapter

from fake_hub import FAULTS, SHA, serving
from lorary.errors import LibraryError
from lorary.library import sync
from lorary.library.hub import retries
from lorary.library.library import Library

WEIGHTS = f"/me/lib/resolve/{SHA}/experts/poems/adapter_model.safetensors"
INFO, TREE = "/api/models/me/lib", f"/api/models/me/lib/tree/{SHA}"


@pytest.fixture
def files(tmp_path):
    library = Library.create(tmp_path / "files")
    library.add(write_adapter(tmp_path / "poems"), "poems")
    return library


@pytest.fixture
def hub(request, files, tmp_path, monkeypatch):
    """A Hub that is asked over HTTP, by the Hub's own library; nobody waits for long for one that is silent."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    patience = 1 if "silence" in request.node.name else 20  # else a busy machine is taken for a silent Hub
    with serving(files.path) as server:
        for name, value in server.constants(0.1 * patience).items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: waited.append(seconds))
        monkeypatch.setattr(retries, "ANSWER_TIMEOUT_S", 0.4 * patience)
        monkeypatch.setattr(sync, "snapshot_download", in_cache(sync.snapshot_download, tmp_path / "cache"))
        waited, server.silence_s = [], 0.3
        yield server
    assert sum(waited) < 120


def in_cache(download, cache):
    return lambda repo, **options: download(repo, cache_dir=cache, **options)


def failing(hub, fault, *places, times=10**6):
    """Let requests whose path begins with one of some places fail, so many times."""
    left = [times]

    def plan(method, path):
        if path not in places or (method == "HEAD" and fault in ("half", "damaged", "not JSON")) or not left[0]:
            return None
        left[0] -= 1
        return fault

    hub.plan = plan


def test_without_a_fault_all_arrives(hub, files, tmp_path):
    assert Library.open(sync.pull("hf://me/lib", tmp_path / "here")).hash == files.hash


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_waited_for(fault, hub, files, tmp_path):
    """A file's first answer is a fault, the second none; what was sent damaged is noticed and fetched again."""
    failing(hub, fault, WEIGHTS, times=1)
    assert Library.open(sync.pull("hf://me/lib", tmp_path / "here")).hash == files.hash


@pytest.mark.parametrize("fault", ["429", "500", "503"])
def test_a_busy_hub_is_asked_again(fault, hub, files, tmp_path):
    failing(hub, fault, INFO, times=2)
    assert Library.open(sync.pull("hf://me/lib", tmp_path / "here")).hash == files.hash


STAYING = [
    pytest.param(fault, place, id=f"{fault}-{name}", marks=pytest.mark.slow if fault == "silence" else ())
    for fault in FAULTS
    for name, place in {"info": INFO, "tree": TREE, "weights": WEIGHTS}.items()
    if (fault, name) != ("not JSON", "weights")
]


@pytest.mark.parametrize(("fault", "place"), STAYING)
def test_what_stays_is_one_error_and_nothing_remains(fault, place, hub, tmp_path):
    failing(hub, fault, place)
    with pytest.raises(LibraryError) as caught:
        sync.pull("hf://me/lib", tmp_path / "here")
    assert caught.value.code == "E-HUB"
    if fault in ("429", "500", "503"):
        assert f"the Hub answered {fault}" in str(caught.value) and "try again later" in str(caught.value)
    if (fault, place) == ("damaged", WEIGHTS):
        assert str(caught.value).startswith(
            "error[E-HUB] hf://me/lib: 'experts/poems/adapter_model.safetensors' arrived d"
        )
    assert not (tmp_path / "here").exists() and not list(tmp_path.glob(".here*"))
    assert len(hub.asked) < 80


def test_after_a_fault_the_same_name_works(hub, files, tmp_path):
    failing(hub, "half", WEIGHTS)
    with pytest.raises(LibraryError, match="E-HUB"):
        sync.pull("hf://me/lib", tmp_path / "here")
    hub.plan = lambda method, path: None
    assert Library.open(sync.pull("hf://me/lib", tmp_path / "here")).hash == files.hash


def test_a_file_that_lies_damaged_in_the_cache_is_fetched_again(hub, files, tmp_path):
    sync.pull("hf://me/lib", tmp_path / "first")
    (blob,) = {path.resolve() for path in (tmp_path / "cache").rglob("adapter_model.safetensors")}
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")
    assert Library.open(sync.pull("hf://me/lib", tmp_path / "second")).hash == files.hash
    (config,) = {path.resolve() for path in (tmp_path / "cache").rglob("adapter_config.json")}
    config.write_bytes(config.read_bytes().replace(b"16", b"17"))
    assert Library.open(sync.pull("hf://me/lib", tmp_path / "third")).hash == files.hash


def test_half_a_cache_is_no_library(hub, tmp_path, monkeypatch):
    """What an earlier pull left unfinished doesn't pass for all of it when there is no network."""
    failing(hub, "reset", WEIGHTS)
    with pytest.raises(LibraryError, match="E-HUB"):
        sync.pull("hf://me/lib", tmp_path / "here")
    monkeypatch.setattr(sync.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LibraryError, match="E-HUB"):
        sync.pull("hf://me/lib", tmp_path / "here")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "experts//poems/adapter_config.json"])
def test_a_hub_that_names_files_outside_is_refused(name, hub, tmp_path, monkeypatch):
    class Liar:
        def repo_info(self, repo, **options):
            return SimpleNamespace(sha=SHA, siblings=[SimpleNamespace(rfilename=name, size=1, lfs=None, blob_id="0")])

    monkeypatch.setattr(sync, "HfApi", Liar)
    with pytest.raises(LibraryError, match=r"E-HUB.*, a file outside of it\."):
        sync.pull("hf://me/lib", tmp_path / "here")
