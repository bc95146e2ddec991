"""What the pages say is true: code compiles and runs, commands parse, links lead somewhere, the map is the tree."""

import ast
import re
from pathlib import Path

import pytest
from file_map import file_map
from pages import PAGES, RECIPES, ROOT, Block, all_blocks, commands, commands_of, links

PYTHON = [block for block in all_blocks() if block.language == "python"]
LINES = [(str(block), arguments) for block in all_blocks() for arguments in commands(block)]
LINES += [(path.name, arguments) for path in RECIPES for arguments in commands_of(path.read_text(encoding="utf-8"))]


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ---- links and map ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [target for target in links(page) if not (page.parent / target.partition("#")[0]).exists()]
    assert not dead, f"{name_page(page)} links to what isn't there: {dead}"


def test_file_map_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## File map\n+```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert section, 'README.md: no fenced block under "## File map"'
    rows = dict(line.strip().split(maxsplit=1) for line in section[1].splitlines() if len(line.split()) > 1)
    needed = dict(line.split(maxsplit=1) for line in file_map().splitlines())
    missing = [line for line in file_map().splitlines() if line.split()[0] not in rows]
    assert not missing, "\n".join(["README.md: the file map lacks these lines:", *missing])
    gone = [path for path in rows if path not in needed and not (ROOT / path).exists()]
    assert not gone, f"README.md: the file map names what isn't there: {gone}"


# ---- python -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text, str(block))


def mark_slow(page: Path) -> object:
    """Pages that train for seconds run with the slow tests."""
    return pytest.param(page, marks=pytest.mark.slow) if page.name in ("train.md", "adapt.md") else page


@pytest.mark.parametrize(
    "page", [mark_slow(page) for page in sorted({block.page for block in PYTHON if block.is_executed})], ids=name_page
)
def test_python_runs(page: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a page's blocks one after the other, in a directory with flan/, heldout/ and tasks/, on the pico base."""
    from lorary.testing.pico import pico_base

    monkeypatch.chdir(data)
    monkeypatch.setattr("lorary.model.base.base_model.load_base", lambda *_, **__: pico_base())
    names: dict[str, object] = {}
    for block in PYTHON:
        if block.page == page and block.is_executed:
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)


# ---- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "arguments"), LINES, ids=[f"{p} {' '.join(a[:1])}" for p, a in LINES])
def test_command_parses(place: str, arguments: list[str]) -> None:
    import typer

    from lorary.cli.app import command_line

    app = command_line()
    names = app.commands
    # What the shell puts in may be a number.
    arguments = [argument for argument in arguments if argument not in ("--debug", "$@") and "[@]" not in argument]
    arguments = ["1" if argument.startswith("$") else argument for argument in arguments]
    if arguments[0].startswith("-"):
        assert arguments[0] in {"--version", "--help"}, place
        return
    assert arguments[0] in names, f"{place}: there is no command {arguments[0]!r}, only {', '.join(names)}"
    try:
        context = names[arguments[0]].make_context(arguments[0], arguments[1:], **app.context_settings)
    except typer.Exit:  # --help, --method list
        return
    except Exception as error:
        pytest.fail(f"{place}: lorary {' '.join(arguments)}: {getattr(error, 'message', error)}")
    check_methods(place, arguments[0], context.params)


def check_methods(place: str, command: str, values: dict[str, str | list[str] | None]) -> None:
    """Look up every method and its options, as in --router arrow:top_k=4."""
    import dataclasses

    from lorary import folder, options

    methods = {"method": {"build": "BUILDERS", "cluster": "CLUSTERERS"}.get(command), "router": "ROUTERS"}
    methods |= {"name": "STUDIES"} if command == "study" else {}
    methods |= {"metric": "EVALUATORS", "benchmark": "BENCHMARKS", "backend": "BACKENDS"}
    for option, registry in methods.items():
        found = values.get(option)
        for spec in [found] if isinstance(found, str) else found or ():
            if registry and not spec.startswith(("all", "paper")):  # of benchmarks, of studies
                name, given = options.split_spec(spec)
                known = {field.name for field in dataclasses.fields(getattr(folder, registry).load(name))}
                assert set(given) <= known, f"{place}: {spec}: known options are {sorted(known)}"
