"""Help is a letter away, and a shell completes what was begun."""

import json
import os
import subprocess
import sys

import pytest
from cli_line import Run, World

from lorary.cli.app import make_app
from lorary.folder import BACKENDS, BUILDERS, CLUSTERERS, DEFAULT_ROUTER, EVALUATORS, ROUTERS, STUDIES

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


PROBE = f"""
import contextlib, io, json, os, sys
from lorary.cli.main import main
answers = []
for words in json.load(sys.stdin):
    os.environ |= {{"COMP_WORDS": " ".join(["lorary", *words]), "COMP_CWORD": str(len(words))}}
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([])
    answers.append(out.getvalue().split())
print(json.dumps(answers))
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def complete(*lines: str) -> list[list[str]]:
    """Ask as bash does, the last word of each line being begun; checks that it took nothing heavy."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps([line.split(" ") for line in lines]),
        env={**os.environ, "_LORARY_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stderr.split() == []
    answers: list[list[str]] = json.loads(done.stdout)
    return answers


@pytest.mark.slow
def test_commands_options_and_words_are_completed() -> None:
    expected = {
        "": list(COMMANDS),
        "ex": ["export"],
        "ask --max": ["--max-share", "--max-new-tokens", "--max-tokens"],
        "eval lib tasks --mix o": ["outputs"],
        "study ": [*STUDIES.names(), "paper", "list"],
        "ask b": ["base"],
        "ask ": [],  # the shell offers files then
        "build --base smo": ["smollm2-135m"],
        "ask lib --dtype bf": ["bfloat16"],
        # What was asked before isn't answered meanwhile.
        "ask lib --router list --js": ["--json"],
        "build tasks --method list --js": ["--json"],
    }
    assert dict(zip(expected, complete(*expected), strict=True)) == expected


@pytest.mark.slow
def test_methods_are_completed() -> None:
    asked = {
        "build tasks --method": BUILDERS,
        "build tasks --backend": BACKENDS,
        "cluster lib --method": CLUSTERERS,
        "eval lib tasks --metric": EVALUATORS,
        **{f"{command} lib --router": ROUTERS for command in ("ask", "eval", "save", "export")},
    }
    names = [list(methods.names()) for methods in asked.values()]
    all_of_them = complete(*(f"{line} " for line in asked))
    begun = complete(*(f"{line} {known[0][:-1]}" for line, known in zip(asked, names, strict=True)))
    assert all_of_them == [[*known, "list"] for known in names]
    assert [answers[0] for answers in begun] == [known[0] for known in names]


@pytest.mark.slow
def test_experts_are_completed(world: World) -> None:
    expected = {
        f"show {world.library}/": [f"{world.library}/{name}" for name in ("copy", "swap", "upper")],
        f"show {world.library}/s": [f"{world.library}/swap"],
        f"remove {world.library} copy u": ["upper"],
        "remove nowhere ": [],  # the shell offers files then
        "show nowhere/": [],
    }
    assert dict(zip(expected, complete(*expected), strict=True)) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_ask(shell: str) -> None:
    asked = {"_LORARY_COMPLETE": f"source_{shell}"}
    command = [sys.executable, "-m", "lorary.cli.main"]
    done = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0
    assert f"_LORARY_COMPLETE=complete_{shell}" in done.stdout
