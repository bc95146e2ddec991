"""What is heavy or strange is imported in few places, and nothing in a circle."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import pytest
from source_tree import Module, module_of, modules

ONLY_HERE = {
    "transformers": {"model", "testing"},  # testing makes tiny models
    "tokenizers": {"model", "testing"},
    "torch": {"work", "adapters", "formats", "routing", "model", "building", "studies", "serving", "testing"},
    "safetensors": {
        "formats",
        "model",
        "building",
        "testing",
    },  # a library's headers are read with the standard library
    "huggingface_hub": {"library"},
    "typer": {"cli"},
    "matplotlib": {"reporting"},
    "sklearn": {"building", "routing"},
    "triton": {"adapters"},
    "ray": {"work", "serving"},
    "jinja2": {"pages", "harness"},  # the harness knows its error
    "fastapi": {"serving"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
}
"""Package -> folders that may import it. peft is for tests alone."""

IN_FUNCTIONS = {"cli", "__init__", "folder"}
EXTRAS = {
    ("work/backends/ray.py", "ray"): "optional extra [ray]",
    ("serving/ray_serve.py", "ray.serve"): "optional extra [replicas]",
    ("tasks/rows/arrow_rows.py", "pyarrow"): "optional extra [data]",
    ("tasks/rows/arrow_rows.py", "pyarrow.parquet"): "optional extra [data]",
    ("tasks/rows/hub_rows.py", "datasets"): "optional extra [data]",
    ("tracking/trackers/tensorboard.py", "tensorboard.compat.proto.event_pb2.Event"): "optional extra [tensorboard]",
    (
        "tracking/trackers/tensorboard.py",
        "tensorboard.compat.proto.summary_pb2.Summary",
    ): "optional extra [tensorboard]",
    (
        "tracking/trackers/tensorboard.py",
        "tensorboard.summary.writer.event_file_writer.EventFileWriter",
    ): "optional extra [tensorboard]",
    ("tracking/trackers/wandb.py", "wandb"): "optional extra [wandb]",
    ("tracking/trackers/mlflow.py", "mlflow.entities.Metric"): "optional extra [mlflow]",
    ("tracking/trackers/mlflow.py", "mlflow.tracking.MlflowClient"): "optional extra [mlflow]",
    ("tracking/trackers/trackio.py", "trackio.sqlite_storage.SQLiteStorage"): "optional extra [trackio]",
    ("formats/gguf_lora.py", "gguf"): "optional extra [gguf]",
    ("building/merging/search.py", "nevergrad"): "optional extra [lorahub]",
    ("adapters/mixing/on_gpu.py", "lorary.adapters.mixing.kernels"): "torch brings Triton where there is a GPU for it",
    ("adapters/mixing/compiled.py", "torch.utils.cpp_extension.load"): "looks for compilers; only who builds needs it",
}
LIGHT = ("lorary.__version__", "lorary.errors", "lorary.extras", "lorary.folder", "lorary.cli")


@pytest.mark.parametrize("package", [*ONLY_HERE, "peft"])
def test_package_stays_in_its_folders(package: str) -> None:
    wrong = [
        f"src/lorary/{module.path}:{found.line} imports {found.target}"
        for module in modules()
        for found in module.imports()
        if found.target.partition(".")[0] == package and module.folder not in ONLY_HERE.get(package, set())
    ]
    assert not wrong, "\n".join([f"{package} belongs to {sorted(ONLY_HERE.get(package, []))} alone:", *wrong])


def test_few_know_a_network() -> None:
    networks = {"huggingface_hub", "http", "httpx", "requests", "socket", "urllib"}
    knowing = {m.path for m in modules() for found in m.imports() if found.target.partition(".")[0] in networks}
    hub = {f"library/hub/{name}.py" for name in ("card", "listing", "retries", "upload")}
    assert knowing == {*hub, "library/sync.py", "serving/run.py"}


def test_imports_stand_at_the_top() -> None:
    wrong = [
        f"src/lorary/{module.path}:{found.line} imports {found.target} inside a function"
        for module in modules()
        for found in module.imports()
        if found.in_function and module.folder not in IN_FUNCTIONS and (module.path, found.target) not in EXTRAS
    ]
    allowed = "Imports inside functions are for cli/, __init__.py, folder.py and optional extras:"
    assert not wrong, "\n".join([allowed, *wrong])


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    wrong = [
        f"src/lorary/{module.path}:{found.line} imports {found.target}"
        for module in modules()
        for found in module.imports()
        if module.folder == "cli"
        and found.at_run_time
        and not found.in_function
        and found.target.startswith("lorary")
        and not found.target.startswith(LIGHT)
    ]
    assert not wrong, "\n".join(["Import this inside the command:", *wrong])


def test_no_circle() -> None:
    """Imports for type checkers and those in functions count: who reads one file of a circle has to read all."""
    _refuse_circles(
        {module.name: {*_reached(module)} - {module.name} for module in modules() if module.name != "lorary"}
    )


def test_no_circle_of_rooms() -> None:
    """Nor do the rooms of a floor, its files and folders, need each other."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for reached in _reached(module) if module.name.count(".") > 1 else ():
            here, there = (".".join(name.split(".")[:3]) for name in (module.name, reached))
            if reached.startswith(f"lorary.{module.folder}.") and here != there:
                rooms[here].add(there)
    _refuse_circles(rooms)


def _refuse_circles(graph: Mapping[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("these import each other in a circle: " + " <- ".join(error.args[1]))


def _reached(module: Module) -> list[str]:
    ours = [f for f in module.imports() if f.target.startswith("lorary.")]
    return [reached for found in ours if (reached := module_of(found.target)) != "lorary"]


def test_the_front_door_is_light() -> None:
    code = "import sys, lorary; dir(lorary); print(*{'torch', 'numpy', 'transformers', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
