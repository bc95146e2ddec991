"""What must be quick loads nothing that is slow."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_line import World

from lorary.folder import BUILDERS
from lorary.work.waiting import SETTINGS

HEAVY = ("torch", "transformers", "sklearn", "matplotlib", "peft", "accelerate", "numpy", "huggingface_hub")
PROBE = """
import atexit, sys
atexit.register(lambda: print("LOADED", *[name for name in {heavy!r} if name in sys.modules], file=sys.stderr))
from lorary.cli.main import main
main(sys.argv[1:])
"""


def run_apart(
    *arguments: object, stdout: int = subprocess.PIPE, before: str = "", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own, after some Python."""
    command = [sys.executable, "-c", before + PROBE.format(heavy=HEAVY), *map(str, arguments)]
    surroundings = os.environ | environment
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=240, check=False, cwd=cwd, env=surroundings
    )


SEVERAL = """
import contextlib, io, json, os, sys
from lorary.cli.main import main
for place, arguments in json.load(sys.stdin):
    os.chdir(place)
    os.environ["LORARY_CACHE"] = place + "/cache"
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code or 0
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print(json.dumps([code, out.getvalue(), err.getvalue().splitlines(), loaded]))
"""


def run_several(
    lines: list[list[str]], places: Path, before: str = ""
) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """Run command lines in one process apart, each in its own directory: code, stdout, stderr, and what was loaded.

    What one of them loads is loaded for those after it, so the first to be told is the one to look at.
    """
    given = []
    for number, line in enumerate(lines):
        (places / str(number)).mkdir()
        given.append([str(places / str(number)), line])
    command = [sys.executable, "-c", before + SEVERAL.format(heavy=HEAVY)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return map(json.loads, done.stdout.splitlines())


@pytest.fixture(scope="session")
def embedded_world(_world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world, with experts that name no base: then the embedded one is meant."""
    library = Path(shutil.copytree(_world.library, tmp_path_factory.mktemp("embedded") / "lib"))
    for path in library.rglob("adapter_config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    return dataclasses.replace(_world, library=library)


@pytest.mark.slow
@pytest.mark.parametrize(("said", "spins"), [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, None)])
def test_threads_wait_briefly_unless_the_user_said_how_they_wait(said: dict[str, str], spins: str | None) -> None:
    probe = 'import atexit, os; atexit.register(lambda: print(os.environ.get("GOMP_SPINCOUNT")))'
    code = f"{probe}; from lorary.cli.main import main; main(['--version'])"
    environment = {**{name: value for name, value in os.environ.items() if name not in SETTINGS}, **said}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == str(spins)


LIGHT = {
    "--help": 0,
    "--version": 0,
    "build --help": 0,
    "add --help": 0,
    "remove nowhere copy": 1,  # there is no such library
    "build --method list": 0,
    "cluster --method list": 0,
    "ask --router list --json": 0,
    "eval --metric list": 0,
    "build tasks --method private": 2,  # --into is missing
}
"""Lines and their exit codes."""


@pytest.mark.slow
def test_loads_nothing_heavy(tmp_path: Path) -> None:
    found = run_several([line.split() for line in LIGHT], tmp_path)
    assert {line: (code, loaded) for line, (code, _, _, loaded) in zip(LIGHT, found, strict=True)} == {
        line: (code, []) for line, code in LIGHT.items()
    }


@pytest.mark.slow
def test_show_loads_nothing_heavy(world: World) -> None:
    done = run_apart("show", world.library, "--json")
    assert done.stderr.splitlines() == ["LOADED"]
    assert [expert["expert"] for expert in json.loads(done.stdout)["experts"]] == ["copy", "swap", "upper"]
    assert run_apart("show", world.library / "swap").stderr.splitlines() == ["LOADED"]


@pytest.mark.slow
def test_unknown_method_is_told_before_anything_heavy_loads(world: World) -> None:
    done = run_apart("build", world.tasks, "--method", "privat", "--into", "nowhere")
    *_, message, loaded = done.stderr.splitlines()
    known = f"Known: {', '.join(BUILDERS.names())}."
    assert message == f"error[E-NAME] unknown builder 'privat'. Did you mean 'private'? {known}"
    assert "torch" not in loaded
    assert done.returncode == 1


@pytest.mark.slow
def test_a_reader_who_leaves_is_no_error(world: World) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = run_apart("show", world.library, stdout=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr.splitlines()) == (141, ["LOADED"])


LACKING = """
import sys
sys.modules |= dict.fromkeys(("accelerate", "gguf", "ray", "pyarrow"))
"""


NEED_THE_EMBEDDED = (
    "quickstart",
    "ask base hello",
    "ask {library} hello",
    "ask {library} hello --base smollm2-135m",
    "eval base {tasks} --into run.jsonl",
    "save {library} --into saved",
    "build {tasks} --method private --into libs",
    "build --method uniform --from {library} --into libs",
    "finetune {tasks} --into tuned",
    "study builders",
)


@pytest.mark.slow
def test_what_the_embedded_base_lacks_is_told_before_anything_heavy_loads(
    embedded_world: World, tmp_path: Path
) -> None:
    lines = [[part.format(**vars(embedded_world)) for part in line.split()] for line in NEED_THE_EMBEDDED]
    answers = list(run_several(lines, tmp_path, LACKING))
    assert len(answers) == len(lines)
    for number, (line, (code, out, (*_, message), loaded)) in enumerate(zip(NEED_THE_EMBEDDED, answers, strict=True)):
        assert message.startswith("error[E-EMBEDDED] the embedded base needs accelerate>="), line
        assert " and gguf>=" in message
        assert 'Run: pip install "accelerate>=' in message
        assert "torch" not in loaded, line
        assert (code, out, list((tmp_path / str(number)).iterdir())) == (1, "", []), line


@pytest.mark.slow
def test_a_backend_that_is_missing_is_told_before_anything_heavy_loads(world: World) -> None:
    line = ("build", world.tasks, "--method", "private", "--base", world.base, "--into", "x", "--backend", "ray:cpus=1")
    done = run_apart(*line, before=LACKING)
    message, loaded = done.stderr.splitlines()
    assert message.startswith("error[E-EXTRA] backend ray needs ray>=")
    assert "torch" not in loaded


@pytest.mark.slow
def test_our_parents_keep_quiet(world: World) -> None:
    done = run_apart("ask", world.library, "hello", "--base", world.base, "--max-new-tokens", 1, "--router", "arrow")
    loading, loaded = done.stderr.splitlines()
    assert loading == f"loading base {world.base} ..."
    assert loaded.startswith("LOADED torch transformers")


@pytest.mark.slow
def test_no_colours_and_no_bars_without_a_terminal(world: World) -> None:
    done = run_apart("report", "missing.jsonl", "--into", "x.html")
    assert "\x1b" not in done.stderr
    assert done.returncode == 1
