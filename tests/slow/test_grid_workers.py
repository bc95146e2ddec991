"""Evaluations shared by real processes and by the nodes of a Ray cluster; one is killed in the middle of a cell."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest
from slow_metrics import Slow

from lorary.grid.evaluate_grid import evaluate_grid
from lorary.grid.setup import Setup
from lorary.tasks.toy import toy_tasks
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base, random_library
from lorary.work.claims import read_lease
from recipe_files import write_base

pytestmark = pytest.mark.slow

METRICS = (Slow(pause_s=1.0, tag="one"), Slow(pause_s=1.0, tag="two"))
ROUTERS = ("uniform", "arrow:top_k=1")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base, a library and test examples for seven batches."""
    place = tmp_path_factory.mktemp("world")
    library = random_library(place / "lib", pico_base(), ["copy", "swap"], seed=3)
    return str(write_base(place / "pico", pico_base())), library, toy_tasks(4, 4, 200).only(["copy", "swap"])


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is left in the home directory
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default, which starves them on a machine that is busy


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """The files that one process writes."""
    base, library, tasks = world
    into = tmp_path_factory.mktemp("undisturbed")
    setups = [Setup(library, router) for router in ROUTERS]
    evaluate_grid(setups, METRICS, tasks, base=base, into=into, backend="local:workers=1,threads=1")
    return files_of(into)


def test_a_killed_worker_is_replaced_and_its_cell_goes_on(world, tmp_path, undisturbed):
    base, library, tasks = world
    killed, resumed = [], {}

    def kill_one(step):
        leases = {path: read_lease(path) for path in (tmp_path / "runs" / ".work").glob("*") if path.is_dir()}
        for path, lease in leases.items():
            if killed and path == killed[0][0] and lease and lease.pid != killed[0][1]:
                resumed.setdefault(path, lease.first_step)
            if not killed and lease and not lease.is_free and not lease.is_dead and lease.step >= 64:
                killed.append((path, lease.pid))
                os.kill(lease.pid, signal.SIGKILL)

    evaluate_grid(
        [Setup(library, router) for router in ROUTERS], METRICS, tasks, base=base, into=tmp_path / "runs",
        backend="local:workers=2,threads=1", report=kill_one,
    )  # fmt: skip
    assert killed
    assert all(step >= 64 for step in resumed.values()), "from what it had written"
    assert files_of(tmp_path / "runs") == undisturbed


DRIVER = """
import json, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from lorary.grid.evaluate_grid import evaluate_grid
from lorary.grid.setup import Setup
from lorary.tasks.toy import toy_tasks
from lorary.work.backends.ray import Ray
from lorary.work.claims import read_lease
from slow_metrics import Slow

base, library, into = sys.argv[1:]
node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
second, killed = cluster.add_node(**node), []

def watch(step):
    leases = {path: read_lease(path) for path in Path(into, ".work").glob("*") if path.is_dir()}
    at_work = {lease.pid: lease.step for lease in leases.values() if lease and not lease.is_free and not lease.is_dead}
    if not killed and len(at_work) == 2 and min(at_work.values()) > 0:
        cluster.remove_node(second, allow_graceful=False)
        killed.append(sorted(at_work))

evaluate_grid(
    [Setup(library, router) for router in ("uniform", "arrow:top_k=1")],
    [Slow(pause_s=1.0, tag="one"), Slow(pause_s=1.0, tag="two")],
    toy_tasks(4, 4, 200).only(["copy", "swap"]),
    base=base, into=into, backend=Ray(address=cluster.address), report=watch,
)
print(json.dumps(killed))
cluster.shutdown()
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="ray isn't installed")
def test_a_node_that_dies_changes_nothing(world, tmp_path, undisturbed, monkeypatch):
    base, library, _ = world
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("MEETING", str(tmp_path / "meeting"))
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), base, str(library.path), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])) == 1, "a node was killed in the middle"
    assert files_of(tmp_path / "runs") == undisturbed
