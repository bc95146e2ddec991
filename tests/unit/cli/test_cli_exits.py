"""Exit codes and the messages that go with them."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from cli_line import Run, World

from lorary import __version__
from lorary.cli.options.parameters import EMBEDDED
from lorary.cli.printing.console import print_json
from lorary.errors import BuildError, LibraryError
from lorary.folder import CLUSTERERS, ROUTERS
from lorary.library.library import Library
from lorary.studies.road import Road


def test_version(run: Run) -> None:
    assert run("--version").out == f"lorary {__version__}\n"


def test_embedded_base_is_called_as_its_home_calls_it() -> None:
    from lorary.model.base import embedded_needs

    assert embedded_needs.EMBEDDED == EMBEDDED


# ---- 1: one message -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "cluster {library} --method mcb --into g.json",
            f"error[E-NAME] unknown clusterer 'mcb'. Did you mean 'mbc'? Known: {', '.join(CLUSTERERS.names())}.",
        ),
        (
            "cluster {library} --method mbc:kk=2 --into g.json",
            "error[E-OPTION] mbc: unknown option 'kk'. Did you mean 'k'? Known: components, k, seed, space, sparsity.",
        ),
        (
            "cluster {library} --method mbc:k=9 --into g.json",
            "error[E-CLUSTERS] k=9, but there are 3 experts. Lower k.",
        ),
        (
            "build {tasks} --method private --into x --only swop",
            "error[E-TASK] unknown task 'swop'. Did you mean 'swap'? Known: copy, swap, upper.",
        ),
        (
            "build {tasks} --method private:rank=four --into x",
            "error[E-OPTION] private: rank='four', expected a whole number.",
        ),
        (
            "eval {library} {tasks} --metric rouge --into x.jsonl",
            "error[E-NAME] unknown metric 'rouge'. Did you mean 'rouge_l'? "
            "Known: choice, exact_match, pass_at_k, perplexity, rouge_l.",
        ),
        (
            "ask {library} hello --router arow",
            f"error[E-NAME] unknown router 'arow'. Did you mean 'arrow'? Known: {', '.join(ROUTERS.names())}.",
        ),
        ("show {library}/swop", "error[E-NAME] unknown expert 'swop'. Did you mean 'swap'? Known: copy, swap, upper."),
        ("show nowhere", "error[E-LIBRARY] there is no directory '{cwd}/nowhere'. Check the path."),
        (
            "show {library}/../privat",
            "error[E-LIBRARY] there is no directory '{library}/../privat'. Did you mean '{library}/../private'?",
        ),
        (
            "ask base hi --base smollm-135m",
            "error[E-BASE] there is no base 'smollm-135m'. Did you mean 'smollm2-135m'?",
        ),
        ("ask base hi --base {base}x", "error[E-BASE] there is no directory '{base}x'. Did you mean '{base}'?"),
        (
            "build {tasks}x --method private --into x",
            "error[E-DATA] {tasks}x: no such file or directory. Did you mean '{tasks}'?",
        ),
        (
            "remove {library} swop",
            "error[E-NAME] unknown expert 'swop'. Did you mean 'swap'? Known: copy, swap, upper.",
        ),
        ("report nothing.jsonl --into x.html", "error[E-RUN] nothing.jsonl: no such file."),
    ],
)
def test_errors_are_one_message(run: Run, world: World, in_empty: Path, line: str, message: str) -> None:
    names = {"cwd": in_empty, **vars(world)}
    answer = run(*(part.format(**names) for part in line.split()))
    assert answer.err.splitlines()[-1] == message.format(**names)
    assert answer.err.count("\n") == 1 + answer.err.startswith("loading base ")
    assert (answer.code, answer.out) == (1, "")
    assert not list(in_empty.iterdir())


@pytest.mark.parametrize("seeds", ["", "99999999999999999999999"])
def test_a_study_refuses_seeds_before_it_loads_anything(run: Run, monkeypatch: pytest.MonkeyPatch, seeds: str) -> None:
    monkeypatch.setattr("lorary.model.base.base_model.load_base", None)
    answer = run("study", "builders", "--seeds", seeds)
    assert answer.err.startswith("error[E-OPTION] study builders: ")
    assert (answer.code, answer.out) == (1, "")


@pytest.mark.parametrize("line", ["eval {library} {tasks} --into {cwd}/run.jsonl", "ask {library} bad\udcff"])
def test_what_can_be_known_at_once_is_told_before_anything_is_loaded(
    run: Run, world: World, in_empty: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr("lorary.using.open_model.load_base", None)
    os.mkfifo(in_empty / "run.jsonl")
    answer = run(*(part.format(cwd=in_empty, **vars(world)) for part in line.split()))
    assert answer.err in (
        f"error[E-RUN] {in_empty}/run.jsonl: can't be read: not a regular file.\n",
        "error[E-DATA] example: 'prompt' holds half a character (\\udcff). Write the text as UTF-8.\n",
    )
    assert answer.code == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "UTF8"])
def test_json_is_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    value = {"é": "日本\x80\udcff"}
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")  # as `main` sets it
    monkeypatch.setattr("sys.stdout", stream)
    print_json(value)
    stream.flush()
    written = stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert json.loads(written.decode(encoding)) == value
    assert written.isascii() == ("utf" not in encoding.lower())


@pytest.fixture
def in_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", ["--debug show nowhere", "show nowhere --debug"])
def test_debug_shows_the_traceback(run: Run, line: str) -> None:
    answer = run(*line.split())
    assert answer.err.startswith("Traceback (most recent call last):\n")
    assert answer.err.splitlines()[-1].startswith("error[E-LIBRARY] ")
    assert answer.code == 1


def test_what_the_disk_refuses_is_one_message(run: Run, world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = run("cluster", world.library, "--method", "mbc:k=1", "--into", tmp_path / "file" / "groups.json")
    assert answer.code == 1
    assert answer.err.startswith("error[E-PATH] ")
    assert answer.err.count("\n") == 1


# ---- 2: usage -----------------------------------------------------------------------------------


BARE = "the bare base has no experts; this is for libraries."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ask x y --mix output", "Error: Invalid value for '--mix': 'output' is not one of 'factors', 'outputs'."),
        ("ask x y --max-new-tokens 0", "Error: Invalid value for '--max-new-tokens': expected 1 or more"),
        ("ask x y --max-new-tokens few", "Error: Invalid value for '--max-new-tokens': expected a whole number"),
        ("bild tasks", "Error: No such command 'bild'. Did you mean 'build'?"),
        ("show", "Error: Missing argument 'PATH'."),
        ("ask base hello --router arrow", f"Error: Invalid value for --router: {BARE}"),
        ("ask base hello --mix outputs", f"Error: Invalid value for --mix: {BARE}"),
        ("ask base hello --tasks x", f"Error: Invalid value for --tasks: {BARE}"),
        ("ask base hello --explain", "Error: Invalid value for --explain: the bare base has no experts."),
        ("eval base tasks", "Error: Missing option '--into'."),
        ("build tasks --into x", "Error: Invalid value for --method: needed, unless a --recipe says it."),
        ("build tasks --method private", "Error: Invalid value for --into: needed, unless a --recipe says it."),
        (
            "build --method private --into x",
            "Error: Invalid value for TASKS: needed, unless a --recipe or --from says what to build from.",
        ),
    ],
)
def test_usage(run: Run, line: str, message: str) -> None:
    answer = run(*line.split())
    assert answer.err.splitlines()[-1] == message
    assert (answer.code, answer.out) == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "error[E-NAME] unknown study 'nonsense'. Known: ablations, adaptation, "),
        ("builders:stepz=1", "error[E-OPTION] builders: unknown option 'stepz'. Did you mean 'steps'?"),
        ("builders:libraries=(privat)", "error[E-OPTION] study builders: libraries='privat'. Did you mean 'private'?"),
        ("builders:adaptations=(x)", "error[E-OPTION] study builders: adaptations='x'. Known: private, from_expert,"),
        ("builders --only nonsense", "error[E-TASK] unknown task 'nonsense'."),
        ("routing", "error[E-SOURCE] study routing: there is no library to route. Give one: --from LIBRARY."),
        ("routing --seeds 1", "error[E-OPTION] study routing: it trains nothing, so it has no seeds. Leave them out."),
        ("routing:routers=(arow) --from {library}", "error[E-NAME] unknown router 'arow'. Did you mean 'arrow'?"),
        ("routing:metric=x --from {library}", "error[E-NAME] unknown metric 'x'."),
    ],
)
def test_a_study_refuses_what_it_cannot_run_before_it_loads_anything(
    run: Run, world: World, in_empty: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.setattr("lorary.model.base.base_model.load_base", None)
    for more in ([], ["--dry-run"]):
        answer = run("study", *line.format(**vars(world)).split(), *more, "--base", world.base)
        assert answer.err.startswith(message)
        assert (answer.code, answer.out) == (1, "")
    assert list(in_empty.iterdir()) == []


# ---- 3: partly done -----------------------------------------------------------------------------


def test_partly_done(run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorary.building.builders.private import Private

    train = Private.run

    def fail_at_upper(self: Any, pack: Any, *rest: Any) -> Any:
        if pack[0].name == "upper":
            raise BuildError("E-DIVERGED", "expert 'upper': the loss is nan at step 1.", "Lower lr=1.0.")
        return train(self, pack, *rest)

    monkeypatch.setattr(Private, "packs", lambda self, jobs, base: [[job] for job in jobs])
    monkeypatch.setattr(Private, "run", fail_at_upper)
    line = ("build", world.tasks, "--method", "private:steps=1", "--base", world.base, "--into", tmp_path / "lib")
    failed = run(*line)
    assert failed.code == 3
    assert failed.err.splitlines()[-2:] == [
        "error[E-DIVERGED] expert 'upper': the loss is nan at step 1. Lower lr=1.0.",
        "2 of 3 experts are done and kept; missing: upper. The same command tries these again.",
    ]
    monkeypatch.setattr(Private, "run", train)
    assert run(*line).out == f"{tmp_path / 'lib'}: 3 experts\n"


def test_an_error_after_which_all_stand_is_an_error(
    run: Run, world: World, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(*_: Any) -> NoReturn:
        raise LibraryError("E-EXISTS", "library 'x' holds an expert 'copy' that was built with other options or data.")

    monkeypatch.setattr("lorary.work.worker.Worker.finish", exists)
    monkeypatch.setattr("lorary.work.jobs.Job.stands", lambda *_: False)
    failed = run("build", world.tasks, "--method", "private:steps=3", "--base", world.base, "--into", copied)
    assert (failed.code, failed.err.splitlines()[-1].split("]")[0]) == (1, "error[E-EXISTS")


# ---- 130: interrupted ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def stop(*_: Any, **__: Any) -> NoReturn:
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("not interrupted")

    monkeypatch.setattr("lorary.work.worker.join", stop)
    before = signal.getsignal(number)
    line = ("build", world.tasks, "--method", "private:steps=1", "--base", world.base, "--into", tmp_path / "lib")
    stopped = run(*line)
    assert stopped.err.splitlines()[-1] == "interrupted. Run the same command again: it resumes."
    assert (stopped.code, stopped.out) == (130, "")
    assert signal.getsignal(number) is before


class Deaf:
    """Its finaliser is interrupted, where Python hears nobody."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)


def _nobody_hears() -> None:
    Deaf()
    time.sleep(5)
    raise AssertionError("not interrupted")


def _makes_another_error_of_it() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise SystemError("returned NULL without setting an exception") from None


def _swallows_it() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


@pytest.mark.parametrize("library", [_nobody_hears, _makes_another_error_of_it, _swallows_it])
def test_no_interrupt_is_lost(run: Run, world: World, monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    opened = Library.open

    def interrupted(*given: Any, **options: Any) -> Library:
        library()
        return opened(*given, **options)

    monkeypatch.setattr(Library, "open", interrupted)
    hook = sys.unraisablehook
    stopped = run("show", world.library)
    assert (stopped.code, stopped.err) == (130, "interrupted.\n")
    assert sys.unraisablehook is hook


DEAF = """
import sys, time
from lorary.cli.main import main
from lorary.library.library import Library

def never_ends(*_, **__):
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except BaseException:
            pass

Library.open = never_ends
main(["show", sys.argv[1]])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_the_second_interrupt_ends_it_at_once_whatever_it_does(
    world: World, first: signal.Signals, second: signal.Signals
) -> None:
    deaf = subprocess.Popen([sys.executable, "-c", DEAF, str(world.library)], stdout=subprocess.PIPE, text=True)
    assert deaf.stdout is not None and deaf.stdout.readline() == "ready\n"
    deaf.send_signal(first)
    assert deaf.stdout.readline() == "ready\n", "it hears the first, and goes on"
    deaf.send_signal(second)
    assert deaf.wait(timeout=120) == -second
    deaf.stdout.close()


def test_interrupted_while_it_loads(tmp_path: Path) -> None:
    """Some modules swallow it, or break and say something else: it waits until the import is over."""
    (tmp_path / "typer.py").write_text(
        "import contextlib, os, signal, time\n"
        "with contextlib.suppress(KeyboardInterrupt):\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\n"
        "time.sleep(0.1)\n"
        "print('loaded', flush=True)\n"
    )
    paths = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-m", "lorary.cli.main", "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "loaded\n", "interrupted.\n")


AT_IMPORT = """
import os, signal, sys
awaited = sys.argv.pop(1)

class Interrupter:
    def find_spec(self, name, *_):
        if name == awaited:
            os.kill(os.getpid(), getattr(signal, sys.argv.pop()))

sys.meta_path.insert(0, Interrupter())
from lorary.cli.entry import main
main()
"""
AT_EXIT = """
import atexit, os, signal, sys
atexit.register(os.kill, os.getpid(), getattr(signal, sys.argv.pop()))
from lorary.cli.entry import main
main()
"""


@pytest.mark.parametrize(
    ("module", "sent"),
    [(module, "SIGINT") for module in ("lorary.cli.main", "typing", "lorary.work.waiting", "typer")]
    + [("lorary.work.waiting", "SIGTERM")],
)
def test_interrupted_from_the_first_import_on(module: str, sent: str) -> None:
    command = [sys.executable, "-c", AT_IMPORT, module, "--help", sent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted.\n")


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_interrupted_when_all_is_told(sent: str) -> None:
    command = [sys.executable, "-c", AT_EXIT, "--version", sent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lorary {__version__}\n", "")


def test_the_entry_point_imports_nothing_that_takes_time() -> None:
    code = "import sys; before = set(sys.modules); import lorary.cli.entry; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"atexit", "lorary", "lorary.cli", "lorary.cli.entry", "lorary.cli.exit_codes"}
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"lorary": "lorary.cli.entry:main"}


@pytest.mark.slow
@pytest.mark.parametrize("line", [("--help",), ("show",), ("ask", "red fox", "--router", "arrow")])
def test_interrupted_at_any_moment_it_ends_in_a_word(world: World, line: tuple[str, ...]) -> None:
    """From when Python reads the first of our lines on: before that, nobody but Python is there to hear."""
    first, *rest = line
    command = [sys.executable, "-c", f"print('.', flush=True)\n{START}", first]
    command += [str(world.library), *rest] if first != "--help" else []
    whole = _interrupted(command, None)
    assert whole[0] == 0
    ends = [_interrupted(command, 0.05 + whole[2] * share / 12) for share in range(14)]
    wrong = [end for end in ends if end[0] not in (0, 130) or "Traceback" in end[1] or end[1].count("interrupted") > 1]
    assert not wrong and any(code == 130 for code, *_ in ends)


START = "from lorary.cli.entry import main\nmain()"


def _interrupted(command: list[str], after_s: float | None) -> tuple[int, str, float]:
    """Run a command and interrupt it; give its exit code, what it said, and how long it took."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.read(1) == "."
        began = time.monotonic()
        if after_s is not None:
            time.sleep(after_s)
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        return process.returncode, said, time.monotonic() - began


def test_interrupted_where_nothing_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("lorary.library.library.Library.open", stop)
    stopped = run("show", "anything")
    assert (stopped.code, stopped.err) == (130, "interrupted.\n")


# ---- lists --------------------------------------------------------------------------------------


def test_lists_are_the_folders(run: Run) -> None:
    lines = run("cluster", "--method", "list").out.splitlines()
    assert [tuple(line.split(maxsplit=1)) for line in lines] == [
        (n, CLUSTERERS.sentence(n)) for n in CLUSTERERS.names()
    ]
    assert set(json.loads(run("ask", "--router", "list", "--json").out)) >= {"arrow", "uniform"}
    assert set(json.loads(run("eval", "--json", "--router", "list").out)) >= {"arrow", "uniform"}
    assert all(json.loads(run("build", "--method=list", "--json").out).values())


# ---- quickstart ---------------------------------------------------------------------------------


def test_quickstart_hands_over_what_it_parsed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def walk(*, progress: Any, tell: Any, show: Any, **options: Any) -> Any:
        heard.update(options)
        tell("training")
        progress(0, 2000)
        progress(2000, 2000)
        return SimpleNamespace(table=SimpleNamespace(to_rich=lambda: "a table"), report=Path("q/report.html"))

    monkeypatch.setattr("lorary.studies.quickstart.run_quickstart", walk)
    answer = run("quickstart", "--into", "q", "--only", "a", "--only", "b", "--device", "cpu", "--steps", 3)
    assert answer.out == "a table\nreport: q/report.html\n"
    assert answer.err == "quickstart: 0/2 (training)\nquickstart: 2/2 (training)\n"
    assert heard.pop("road") == Road(steps=3)
    assert heard == {
        "into": Path("q"), "base": EMBEDDED, "tasks": None, "heldout": (), "only": ["a", "b"],
        "reading": {"ignore": (), "answers": "last"},
        "loading": {
            "device": "cpu", "dtype": "auto", "max_tokens": None, "template_options": {}, "batch_tokens": None,
                "chat_template": None, "vocab_size": None,
        },
    }  # fmt: skip


# ---- before anything slow -----------------------------------------------------------------------


TOO_EARLY = "loaded, though that was to be refused before"


@pytest.fixture
def no_base(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Whoever loads a base fails."""

    def load(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(TOO_EARLY)

    monkeypatch.setattr("lorary.model.base.base_model.load_base", load)
    monkeypatch.setattr("lorary.studies.quickstart.load_base", load)


@pytest.mark.usefixtures("no_base")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "eval {library} {tasks} --into x.jsonl --metric choice",
            "error[E-EVAL] task 'copy': metric 'choice' needs at least two choices, found 0",
        ),
        ("eval {library} {tasks} --into file/x.jsonl", "error[E-RUN] file/x.jsonl: can't be read: Not a directory."),
        ("eval {library} {tasks} --into x.jsonl --metric rouge_l:max_new_tokens=0", "error[E-OPTION] rouge_l: max_new"),
        ("ask {library} hello --router centroid", "error[E-PROBE] router 'centroid' needs the tasks that"),
        ("ask empty hello", "error[E-EMPTY] library '{cwd}/empty' holds no experts."),
        ("save {library} --into full", "error[E-EXISTS] '{cwd}/full' exists already."),
        ("save {library} --into file/x", "error[E-PATH] '{cwd}/file/x': '{cwd}/file' is a file,"),
        ("export {library} --texts {tasks} --into full", "error[E-EXISTS] '{cwd}/full' exists already."),
        ("export {library} --share coppy=1 --into x", "error[E-NAME] unknown expert 'coppy'. Did you mean 'copy'?"),
        (
            "cluster {library} --method embeddings --tasks {tasks} --into file",
            "error[E-EXISTS] 'file' exists and isn't a groups file.",
        ),
        (
            "cluster {library} --method embeddings --tasks {tasks} --into x.json --report file",
            "error[E-EXISTS] 'file' exists and isn't a page or figure that lorary wrote.",
        ),
        ("finetune {tasks} --base {base} --into full", "error[E-EXISTS] 'full' exists and was not made by"),
        ("finetune {tasks} --base {base} --into file/x", "error[E-PATH] 'file/x': '{cwd}/file' is a file,"),
        ("build {tasks} --method private --base {base} --into full", "error[E-EXISTS] '{cwd}/full' exists and isn't"),
        ("build {tasks} --method private --base {base} --into file/x", "error[E-PATH] '{cwd}/file/x': '{cwd}/file' is"),
        ("build {tasks} --method svd --base {base} --into x", "error[E-SOURCE] svd starts from a library."),
        ("quickstart --into file", "error[E-PATH] 'file/libs': '{cwd}/file' is a file,"),
        (
            "quickstart --only convert_dgits",
            "error[E-TASK] unknown task 'convert_dgits'. Did you mean 'convert_digits'?",
        ),
        ("study builders --into file", "error[E-PATH] 'file/libs': '{cwd}/file' is a file,"),
    ],
)
def test_what_needs_no_base_is_refused_before_one_is_loaded(
    run: Run, world: World, in_empty: Path, line: str, message: str
) -> None:
    (in_empty / "file").write_text("mine")
    (in_empty / "full").mkdir()
    (in_empty / "full" / "mine").write_text("mine")
    Library.create(in_empty / "empty")
    names = {"cwd": in_empty, **vars(world)}
    answer = run(*(part.format(**names) for part in line.split()))
    assert answer.err.splitlines()[-1].startswith(message.format(**names))
    assert (answer.code, answer.out) == (1, "")
    assert (in_empty / "file").read_text() == (in_empty / "full" / "mine").read_text() == "mine"
    assert sorted(path.name for path in in_empty.iterdir()) == ["empty", "file", "full"]


@pytest.mark.parametrize("change", ["--router arrow", "--mix outputs", "--limit 1", "--metric exact_match"])
def test_another_run_is_refused_before_a_base_is_loaded(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    into = tmp_path / "run.jsonl"
    line = ("eval", world.library, world.tasks, "--router", "uniform", "--into", into)
    metric = ("--metric", "rouge_l:max_new_tokens=1")
    assert run(*line, *metric).code == 0
    whole = into.read_bytes()
    monkeypatch.setattr("lorary.using.open_model.load_base", None)
    option, value = change.split()
    given = {"--router": "uniform", "--metric": "rouge_l:max_new_tokens=1", option: value}
    other = [word for pair in given.items() for word in pair]
    for name in (into, into.with_name(f"{into.name}.part")):  # finished, and begun
        answer = run("eval", world.library, world.tasks, "--into", into, *other)
        assert answer.code == 1
        assert answer.err.startswith(f"error[E-RUN] {name}: holds another run: ")
        into.unlink(missing_ok=True)
        into.with_name(f"{into.name}.part").write_bytes(whole)
    monkeypatch.undo()
    assert run(*line, *metric).code == 0, "the same run goes on"


def test_ranks_that_do_not_mix_are_refused_before_a_base_is_loaded(
    run: Run, world: World, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (
        "build",
        "--method",
        "svd:rank=2",
        "--from",
        world.library,
        "--into",
        tmp_path / "two",
        "--base",
        world.base,
    )
    assert run(*line).code == 0
    library = Library.open(copied)
    library.replace(Library.open(tmp_path / "two")["copy"].directory, "copy")
    monkeypatch.setattr("lorary.using.open_model.load_base", None)
    answer = run("ask", copied, "hello")
    assert answer.code == 1
    assert answer.err.startswith("error[E-RANK] expert 'swap': rank 4 at ")


# ---- --chat -------------------------------------------------------------------------------------


def test_chat_without_a_template_speaks_of_the_base(run: Run, world: World, tmp_path: Path) -> None:
    import shutil

    from transformers import AutoTokenizer

    line = ("ask", world.library, "hello", "--router", "uniform", "--chat")
    assert run(*line).err.splitlines()[-1] == (
        f"error[E-CHAT] --chat: base {str(world.base)!r} has no chat template. "
        "Ask without --chat, or give one: --chat-template FILE, as an adapter may bring it."
    )
    assert run("ask", "base", "hello", "--base", world.base, "--chat").code == 1
    broken = Path(shutil.copytree(world.base, tmp_path / "broken"))
    tokenizer = AutoTokenizer.from_pretrained(broken)
    tokenizer.chat_template = "{{ raise_exception('no turns here') }}"
    tokenizer.save_pretrained(broken)
    assert run(*line, "--base", broken).err.splitlines()[-1] == (
        "error[E-CHAT] --chat: the chat template of this base can't render turns user: no turns here. "
        "Ask without --chat, or mend the template."
    )


def test_a_saved_model_s_other_run_is_refused_before_a_base_is_loaded(
    run: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into, metric = tmp_path / "run.jsonl", ("--metric", "rouge_l:max_new_tokens=1")
    assert run("eval", world.library, world.tasks, "--router", "uniform", "--into", into, *metric).code == 0
    assert run("save", world.library, "--router", "oracle", "--into", tmp_path / "saved").code == 0
    monkeypatch.setattr("lorary.using.open_model.load", None)
    answer = run("eval", tmp_path / "saved", world.tasks, "--into", into, *metric)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(f"error[E-RUN] {into}: holds another run: model.router was ")
