"""A real Ray cluster of two nodes on this machine; one of them dies in the middle."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from worker_builders import Careful

from lorary.building.build import build_recipe
from lorary.building.recipe import Recipe
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base
from recipe_files import write_base, write_tasks

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

OPTIONS = {"steps": 60, "batch_size": 2, "rank": 2, "n_evaluations": 2, "lr": 1e-2, "pause_s": 0.1}
NAMES = ("copy", "join", "swap", "upper")
DRIVER = """
import json, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from lorary.building.build import build_recipe
from lorary.work.backends.ray import Ray
from lorary.work.claims import read_lease
from lorary.building.recipe import Recipe
from worker_builders import Careful

base, tasks, into, options = sys.argv[1:]
node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
second, killed, seen = cluster.add_node(**node), [], set()

def watch(step):
    leases = {path: read_lease(path) for path in Path(into, ".work").glob("*") if path.is_dir()}
    at_work = {lease.pid: lease.step for lease in leases.values() if lease and not lease.is_free and not lease.is_dead}
    seen.update(at_work)
    if not killed and len(at_work) == 2 and min(at_work.values()) > 0:
        cluster.remove_node(second, allow_graceful=False)
        killed.append(sorted(at_work))

recipe = Recipe(builder=Careful(**json.loads(options)), into=Path(into), base=base, tasks=(tasks,))
library = build_recipe(recipe, backend=Ray(address=cluster.address), report=watch)
print(json.dumps({"hash": library.hash, "killed": killed, "seen": sorted(seen)}))
cluster.shutdown()
"""


def test_a_node_that_dies_changes_nothing(toy, tmp_path, monkeypatch):
    base, tasks = write_base(tmp_path / "pico", pico_base()), write_tasks(tmp_path / "tasks", toy.only(NAMES))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is left in the home directory
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default, which starves them on a machine that is busy
    recipe = Recipe(builder=Careful(**OPTIONS), into=tmp_path / "one" / "lib", base=str(base), tasks=(str(tasks),))
    undisturbed = build_recipe(recipe, backend="local:workers=1,threads=1")

    into = tmp_path / "other" / "lib"
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), base, tasks, into, json.dumps(OPTIONS)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["killed"]) == 1, f"no node was killed in the middle: {found}"
    assert found["hash"] == undisturbed.hash
    assert files_of(into / "experts") == files_of(undisturbed.path / "experts")
    assert not (into / ".work").exists()
