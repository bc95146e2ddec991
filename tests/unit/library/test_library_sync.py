import threading
from types import SimpleNamespace

import pytest
from library_pico import write_adapter

from lorary.errors import LibraryError
from lorary.library import sync
from lorary.library.hub import retries
from lorary.library.hub.names import parse_uri
from lorary.library.library import Library


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub whose cache is made of links, as the real one's."""
    blobs, snapshot = Library.create(tmp_path / "blobs"), tmp_path / "snapshot"
    blobs.add(write_adapter(tmp_path / "poems"), "poems")
    (blobs.path / "evil.bin").write_bytes(b"x")
    for path in blobs.path.rglob("*"):
        if path.is_file():
            link = snapshot / path.relative_to(blobs.path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    asked = []

    def download(repo, **options):
        asked.append((repo, options))
        return str(snapshot)

    api = SimpleNamespace(repo_info=lambda repo, **options: SimpleNamespace(sha="c0ffee", siblings=None))
    monkeypatch.setattr(sync, "HfApi", lambda: api)
    monkeypatch.setattr(sync, "snapshot_download", download)
    monkeypatch.setattr(sync.constants, "HF_HUB_OFFLINE", False)
    return asked


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("hf://me/lib", ("me/lib", "", "")),
        ("hf://me/lib/", ("me/lib", "", "")),
        ("hf://me/lib.v2@v1.0", ("me/lib.v2", "", "v1.0")),
        ("hf://me/lib/experts/poems@refs/pr/1", ("me/lib", "experts/poems", "refs/pr/1")),
    ],
)
def test_names(uri, place):
    assert parse_uri(uri) == place


@pytest.mark.parametrize("uri", ["hf://lib", "hf://", "s3://a/b", "hf://a/b/../c", "hf://a/b/*", "hf://a/b@"])
def test_bad_names(uri):
    with pytest.raises(LibraryError) as caught:
        parse_uri(uri)
    assert str(caught.value) == f"error[E-HUB] '{uri}' can't be read. Write hf://user/repo[/folder][@revision]."


def test_pull(hub, tmp_path):
    library = Library.open(sync.pull("hf://me/lib", tmp_path / "here"))
    assert list(library) == ["poems"]
    assert not (tmp_path / "here" / "evil.bin").exists()
    assert hub == [
        (
            "me/lib",
            {
                "revision": "c0ffee",
                "allow_patterns": [pattern for name in sync.ADAPTERS for pattern in (name, f"*/{name}")],
                "local_files_only": False,
                "force_download": False,
            },
        )
    ]
    with pytest.raises(LibraryError, match=r"error\[E-EXISTS\]"):
        sync.pull("hf://me/lib", tmp_path / "here")


def test_pull_one_expert(hub, tmp_path):
    path = sync.pull("hf://me/lib/experts/poems@main", tmp_path / "poems2")
    assert sorted(p.name for p in path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "expert.json"]
    assert hub[0][1]["allow_patterns"][0] == "experts/poems/adapter_config.json"
    with pytest.raises(
        LibraryError,
        match=r"error\[E-HUB\] hf://me/lib/nowhere holds no adapter_config.json, adapter_model.safetensors\.",
    ):
        sync.pull("hf://me/lib/nowhere", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_path_passes_through(tmp_path):
    assert sync.pull(str(tmp_path), tmp_path / "x") == tmp_path
    with pytest.raises(LibraryError, match=r"error\[E-LIBRARY\] there is no directory"):
        sync.pull(str(tmp_path / "nowhere"), tmp_path / "x")


def unreachable(ask, monkeypatch, tmp_path):
    monkeypatch.setattr(sync, "HfApi", lambda: SimpleNamespace(repo_info=ask))
    monkeypatch.setattr(sync.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(LibraryError) as caught:
        sync.pull("hf://me/lib", tmp_path / "here")
    assert not (tmp_path / "here").exists()
    return str(caught.value)


def test_hub_out_of_reach(monkeypatch, tmp_path):
    def refuse(repo, **options):
        raise ConnectionError("no route")

    assert unreachable(refuse, monkeypatch, tmp_path) == (
        "error[E-HUB] hf://me/lib: the Hub can't be reached (ConnectionError). These work offline: the path of a local "
        "directory, or HF_HUB_OFFLINE=1 when the repository is in the Hub's cache already."
    )


def test_hub_that_never_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(retries, "ANSWER_TIMEOUT_S", 0.05)
    answered = threading.Event()
    text = unreachable(lambda repo, **options: answered.wait(60), monkeypatch, tmp_path)
    assert "can't be reached (TimeoutError)" in text
    assert not answered.is_set()
    answered.set()


def test_offline_and_not_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(sync.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(LibraryError, match=r"error\[E-HUB\] hf://me/lib-nobody-has: the Hub can't be reached"):
        sync.pull("hf://me/lib-nobody-has", tmp_path / "here")
