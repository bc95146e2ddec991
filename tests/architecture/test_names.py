"""Files bear names that say something, methods look alike, and nothing tells of one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from source_tree import ROOT, SOURCE, Module, modules

FORBIDDEN = {"utils.py", "helpers.py", "common.py", "misc.py", "util.py", "helper.py"}
METHODS = (
    "routing/routers",
    "building/builders",
    "building/clustering/clusterers",
    "work/backends",
    "tracking/trackers",
    "evaluation/evaluators",
    "studies/questions",
    "evaluation/benchmarks",
)
# "me" is nobody; a bracket keeps a pattern from finding itself.
MACHINE_PATHS = re.compile(r"(?<![\w.~:-])/(?:home|root|Users|work|mnt|media|data|tmp)/(?!me/)[\w.-]+/?[\w./-]*")
REGISTRIES = re.compile(
    r"index[-_]ur[l](?! https://download\.pytorch\.org/whl/| \.\.\.)|https?://[^\s\"')]+/simpl[e]\b|python[h]osted|artifac[t]ory"
)


def method_files() -> list[Module]:
    return [m for m in modules() if m.path.rpartition("/")[0] in METHODS and not Path(m.path).name.startswith("_")]


def test_no_name_that_says_nothing() -> None:
    assert [str(path) for path in SOURCE.parent.rglob("*.py") if path.name in FORBIDDEN] == []


@pytest.mark.parametrize("module", method_files(), ids=lambda module: module.path)
def test_a_method_file_is_one_public_frozen_dataclass(module: Module) -> None:
    classes = [n for n in module.tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    assert len(classes) == 1, f"{module.path}: {[c.name for c in classes]}"
    decorators = [ast.unparse(decorator) for decorator in classes[0].decorator_list]
    assert any(d.startswith("dataclass(") and "frozen=True" in d for d in decorators), decorators
    first = (ast.get_docstring(classes[0]) or "").partition("\n")[0]
    assert re.fullmatch(r"[A-Z].{10,110}\.", first), f"{module.path}: no sentence that makes sense in a talk: {first!r}"


def test_folders_of_methods_are_the_registry() -> None:
    from lorary import folder

    registered = [value.package for value in vars(folder).values() if isinstance(value, folder.Folder)]
    assert sorted(registered) == sorted("lorary." + path.replace("/", ".") for path in METHODS)


def test_every_module_says_what_it_is() -> None:
    silent = [module.path for module in modules() if not ast.get_docstring(module.tree)]
    assert silent == []


@pytest.fixture(scope="module")
def tracked() -> dict[str, str]:
    """All text that is, or would be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = {}
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        path = ROOT / name
        try:
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except FileNotFoundError:  # others at work in this checkout took it away
            continue
        if b"\0" not in data and not name.endswith(".gz"):
            texts[name] = data.decode("utf-8", "replace")
    return texts


@pytest.mark.parametrize(("pattern", "what"), [(MACHINE_PATHS, "a path of one machine"), (REGISTRIES, "a registry")])
def test_nothing_tells_of_one_machine(tracked: dict[str, str], pattern: re.Pattern[str], what: str) -> None:
    found = [
        f"{name}:{number}: {match[0]!r} is {what}"
        for name, text in tracked.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)
