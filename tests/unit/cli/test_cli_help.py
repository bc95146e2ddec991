"""Help is a letter away, and a shell completes what was begun."""

import os
import subprocess
import sys

import pytest
from cli_line import Run, World

from lorary.cli.app import make_app
from lorary.folder import BACKENDS, BUILDERS, CLUSTERERS, DEFAULT_ROUTER, EVALUATORS, ROUTERS

HEAVY = ("torch", "transformers", "sklearn", "matplotlib", "numpy", "huggingface_hub")
COMMANDS = tuple(str(command.name) for command in make_app().registered_commands)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_h_is_short_for_help(run: Run, command: str) -> None:
    short, long = run(*command.split(), "-h"), run(*command.split(), "--help")
    assert short == long
    assert (short.code, short.err) == (0, "")
    assert short.out.startswith(f"Usage: lorary {command}")
    assert "-h, --help" in short.out
    if "--router" in short.out and command != "export":
        assert f"; {DEFAULT_ROUTER} by default" in " ".join(short.out.split())


def complete(*words: object) -> list[str]:
    """Ask as bash does, the last word being begun; checks that it took nothing heavy."""
    line = " ".join(["lorary", *map(str, words)])
    asked = {"_LORARY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    probe = f"""
import atexit, sys
atexit.register(lambda: print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))
from lorary.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.split() == []
    return done.stdout.split()


def test_commands_and_options_are_completed() -> None:
    assert complete("") == list(COMMANDS)
    assert complete("ex") == ["export"]
    assert complete("ask", "--max") == ["--max-share", "--max-new-tokens", "--max-tokens"]
    assert complete("eval", "lib", "tasks", "--mix", "o") == ["outputs"]


@pytest.mark.parametrize(
    ("line", "methods"),
    [
        ("build tasks --method", BUILDERS),
        ("build tasks --backend", BACKENDS),
        ("cluster lib --method", CLUSTERERS),
        ("eval lib tasks --metric", EVALUATORS),
        *((f"{command} lib --router", ROUTERS) for command in ("ask", "eval", "save", "export")),
    ],
)
def test_methods_are_completed(line: str, methods: object) -> None:
    names = list(methods.names())  # type: ignore[attr-defined]
    assert complete(*line.split(), "") == [*names, "list"]
    assert complete(*line.split(), names[0][:-1])[0] == names[0]
    assert complete(*line.split(), "list", "--js") == ["--json"], "what was asked before isn't answered meanwhile"


def test_experts_are_completed(world: World) -> None:
    assert complete("show", f"{world.library}/") == [f"{world.library}/{name}" for name in ("copy", "swap", "upper")]
    assert complete("show", f"{world.library}/s") == [f"{world.library}/swap"]
    assert complete("remove", world.library, "copy", "u") == ["upper"]
    assert complete("remove", "nowhere", "") == [], "the shell offers files then"
    assert complete("show", "nowhere/") == []


def test_words_are_completed() -> None:
    assert complete("study", "") == ["builders", "evidence"]
    assert complete("ask", "b") == ["base"]
    assert complete("ask", "") == [], "the shell offers files then"
    assert complete("build", "--base", "smo") == ["smollm2-135m"]
    assert complete("ask", "lib", "--dtype", "bf") == ["bfloat16"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_ask(shell: str) -> None:
    asked = {"_LORARY_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-m", "lorary.cli.main"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert f"_LORARY_COMPLETE=complete_{shell}" in done.stdout
