"""Replicas in a real Ray cluster of two nodes on this machine: one address, and a replica that dies under load."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import psutil
import pytest

from lorary.extras import missing
from lorary.model.routed.route import route
from lorary.model.routed.twin import twin_base
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base, random_library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing("replicas")), reason="needs Ray Serve"),
]
COMPASS = "compass:n_texts=4,n_tokens=8,top_k=2"
PROMPTS = ["swap: red fox", "x", "a longer prompt than these: ant bee", "copy: it"]
N_NEW = 150
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster():
    ours = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
        "RAY_enable_metrics_collection": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        command = [sys.executable, "-c", textwrap.dedent(CLUSTER)]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        address = started.stdout.readline().strip()
        if not address:
            started.communicate()
            pytest.fail("the cluster didn't start")
        yield started, address
        started.communicate()


@pytest.fixture(scope="module")
def base():
    return pico_base()


@pytest.fixture(scope="module")
def library(base, tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("libs") / "skills", base, 3)


@pytest.fixture(scope="module")
def wanted(base, library):
    """What each prompt is answered alone."""
    with route(twin_base(base), library, COMPASS) as model:
        texts = model.generate_text([Example(prompt, "") for prompt in PROMPTS], max_new_tokens=N_NEW)
    return dict(zip(PROMPTS, texts, strict=True))


class Server:
    """`lorary serve` by two replicas; `lines`: what it says."""

    def __init__(self, address, base, library):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        options = ["--replicas", "2", "--backend", f"ray:address={address},cpus=1", "--router", COMPASS, "--watch"]
        command = [sys.executable, "-m", "lorary.cli.entry", "serve", library, "--base", base, "--port", port, *options]
        self.lines: list[str] = []
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
        self.reading = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reading.start()
        self.address = f"http://127.0.0.1:{port}"
        self.wait_for(rf"serving at {self.address}/v1")

    def wait_for(self, pattern, *, seconds=120):
        deadline = time.monotonic() + seconds
        while not any(re.search(pattern, line) for line in list(self.lines)):
            assert self.process.poll() is None and time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(cluster, base, library, tmp_path_factory):
    place = tmp_path_factory.mktemp("base")
    base.write(place / "pico")
    server = Server(cluster[1], place / "pico", library.path)
    yield server
    server.process.kill()
    server.process.wait()
    server.reading.join()
    server.process.stderr.close()


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, prompt, **options):
    return client.completions.create(model="skills", prompt=prompt, max_tokens=N_NEW, temperature=0, **options)


def replicas(cluster):
    """The processes of the replicas in our cluster."""
    ours = psutil.Process(cluster[0].pid).children(recursive=True)
    return [process for process in ours if "ServeReplica:lorary" in " ".join(process.cmdline())]


def test_answers_are_those_of_one_server_and_are_streamed(client, wanted):
    for prompt in PROMPTS:
        pieces = [piece.choices[0].text for piece in ask(client, prompt, stream=True)]
        assert len(pieces) > 2
        assert "".join(pieces).strip() == wanted[prompt]


def test_a_replica_that_dies_under_load_takes_only_its_own_requests_along(server, client, cluster, wanted):
    assert len(replicas(cluster)) == 2
    n_killed = []

    def one(i):
        try:
            return PROMPTS[i % 4], ask(client, PROMPTS[i % 4]).choices[0].text.strip()
        except (openai.InternalServerError, openai.APIConnectionError) as error:
            return PROMPTS[i % 4], error
        finally:
            if i == 8 and not n_killed:
                n_killed.append(1)
                replicas(cluster)[0].kill()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(40)))
    failed = [error for _, error in found if isinstance(error, Exception)]
    assert n_killed and len(failed) <= 8  # those that it was answering, if any
    assert all(len(str(error)) < 500 and "Traceback" not in str(error) for error in failed)
    assert all(text == wanted[prompt] for prompt, text in found if isinstance(text, str))
    server.wait_for("2 of 2 replicas answer")
    assert len(replicas(cluster)) == 2
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(9, 33)))
    assert all(text == wanted[prompt] for prompt, text in found)


def test_all_replicas_follow_the_library_on_disk_and_none_is_edited_by_a_request(
    server, client, base, library, tmp_path
):
    spare = random_library(tmp_path / "spare", base, ["new"], seed=7)
    shutil.copytree(spare["new"].directory, tmp_path / "new")
    refused = httpx.post(f"{server.address}/v1/load_lora_adapter", json={"lora_name": "new", "lora_path": "/x"})
    assert refused.status_code == 400 and "--watch" in refused.json()["error"]["message"]
    library.add(tmp_path / "new", "new")
    n_known, deadline = 0, time.monotonic() + 300
    while n_known < 20:  # in a row, so that both were asked
        asked = {"model": "skills/new", "prompt": "x", "max_tokens": 1}
        n_known = n_known + 1 if httpx.post(f"{server.address}/v1/completions", json=asked).is_success else 0
        assert time.monotonic() < deadline
    library.remove("new")


def test_it_ends_when_it_is_asked_to(server, cluster):
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(120) == 0
    assert replicas(cluster) == []
    assert cluster[0].poll() is None  # which is somebody else's
