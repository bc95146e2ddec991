"""What all tests share: a pico base, toy tasks, a toy library, and no network."""

import contextlib
import gc
import os
import shutil
import socket
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # pico models wait for their threads, not for their numbers
if "PYTEST_XDIST_WORKER" in os.environ or "LORARY_CACHE" not in os.environ:  # each process of the tests has its own
    os.environ["LORARY_CACHE"] = tempfile.mkdtemp(prefix="lorary-test-cache-")
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="lorary-test-config-")  # the user's own key stays alone

import pytest

gc.disable()  # until all tests are collected: what is imported stays, and to look through it took a third of the time
# No test cuts the power, and all would wait for the disk; a descriptor that is closed is still refused.
os.fsync = os.fstat

pytest.register_assert_rewrite("lorary.testing.contracts")

collect_ignore = ["plugin_package"]  # installed and run by tests/docs/test_plugin_package.py

_LOCAL = ("127.0.0.1", "::1", "localhost", None)


class NetworkTouchedError(AssertionError):
    """A test tried to leave this machine."""


def pytest_collection_finish():
    """Never look through what was imported again, and collect as usual what the tests leave."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Close all sockets but those to this machine, which the tests of the server need."""
    connect, find = socket.socket.connect, socket.getaddrinfo

    def connect_here(self, address):
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise NetworkTouchedError(address)
        return connect(self, address)

    def find_here(host, *args, **options):
        if host not in _LOCAL:
            raise NetworkTouchedError(host)
        return find(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    monkeypatch.setattr(socket, "getaddrinfo", find_here)


@pytest.fixture(autouse=True)
def _no_known_places():
    """Forget where bases were: those of all tests are alike."""
    cache = Path(os.environ["LORARY_CACHE"])
    if cache.name.startswith("lorary-test-cache-"):
        shutil.rmtree(cache / "bases", ignore_errors=True)


@pytest.fixture(scope="session")
def _pico():
    from lorary.testing.pico import pico_base

    return pico_base()


@pytest.fixture
def base(_pico):
    """A pico llama in float32, made once; every test leaves it without experts."""
    from lorary.model.attached.attachment import RoutedLinear

    yield _pico
    assert not any(isinstance(module, RoutedLinear) for module in _pico.hf.modules())


@pytest.fixture(scope="session")
def toy():
    """Toy tasks, small."""
    from lorary.tasks.toy import toy_tasks

    return toy_tasks(12, 4, 4)


@pytest.fixture(scope="session")
def toy_library(_pico, toy, tmp_path_factory):
    """A random expert of rank 4 for each of five toy tasks, on the pico base; tests don't change it."""
    from lorary.testing.pico import random_library

    return random_library(tmp_path_factory.mktemp("toy") / "lib", _pico, list(toy)[:5])


@pytest.fixture(scope="module")
def traffic():
    """Let a device of `lorary.testing.far_device` stand, and count what goes between it and the host."""
    from lorary.testing.far_device import far_device

    with far_device() as traffic:
        yield traffic


@pytest.fixture(scope="module")
def near_and_far(traffic, tmp_path_factory):
    """One base on the CPU, and the same on that device."""
    from lorary.model.base.base_model import load_base
    from lorary.testing.far_device import FAR
    from lorary.testing.pico import pico_base

    place = tmp_path_factory.mktemp("far") / "base"
    pico_base().write(place)
    return [load_base(str(place), device=device, dtype="float32", attention="eager") for device in ("cpu", FAR)]


@pytest.fixture
def full_disk():
    """Make, for a block, a disk on which no file may have more than some bytes."""
    resource = pytest.importorskip("resource")  # POSIX
    if not hasattr(resource, "RLIMIT_FSIZE"):
        pytest.skip("needs file size limits")

    @contextlib.contextmanager
    def filled(room_bytes=0):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return filled


@pytest.fixture
def someone_else(tmp_path):
    """Be, for a block, another user, who may come as far as tmp_path."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs to become another user")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
            path.chmod(0o755)

    @contextlib.contextmanager
    def become():
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


@pytest.fixture
def notes(monkeypatch):
    """What library.json named, each time it was written."""
    from lorary.library import library as library_module

    written, write = [], library_module.write_manifest

    def listen(layout, manifest, experts):
        listed = list(experts)
        written.append([expert.name for expert in listed])
        write(layout, manifest, listed)

    monkeypatch.setattr(library_module, "write_manifest", listen)
    return written
