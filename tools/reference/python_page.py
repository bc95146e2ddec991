"""The page about what a program calls: read off the source, so that it costs no import."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

CHAPTERS = {
    "Data": ("read_tasks", "builtin_tasks", "builtin_heldout", "look", "Look", "Tasks", "Task", "Example"),
    "Libraries": ("Library", "Expert", "Provenance", "check", "add", "lorary.using.add.Additions",
                  "push", "Pushed", "pull"),
    "Building": ("build", "as_paper", "finetune", "FullFineTuning", "cluster", "join", "Recipe", "read_recipe",
                 "build_recipe", "LoRA"),
    "Models": ("load_base", "route", "load", "open_model", "choose_model", "RoutedModel", "BaseModel", "Trace",
               "export", "export_merged", "export_gguf", "AddToLibrary"),
    "Asking": ("stream", "lorary.model.decoding.pieces.Stream", "Sampling", "Chat", "inspect", "read_prompts", "Prompt",
               "answer_prompts", "answer_with_workers", "Wish"),
    "Scores": ("evaluate", "evaluate_grid", "Setup", "read_benchmarks", "Exam", "mean_over", "Mean", "compare",
               "report", "Scores", "read_scores", "Comparison", "run_study"),
    "Errors": (
        "LoraryError", "OptionError", "TaskError", "LibraryError", "AdapterError", "RoutingError", "ModelError",
        "BuildError", "EvaluationError",
    ),
    "Writing methods": (
        "Options", "Router", "Gate", "Routing", "Context", "Survey", "Probe", "State", "Site", "Weights", "Experts",
        "Mix",
        "Builder", "Job", "JobStep", "Made", "Clusterer", "Clusters", "read_clusters", "TaskProbe",
        "Evaluator", "Outcome", "LanguageModel", "LogLikelihood", "Benchmark", "ChoiceBenchmark", "Question", "Row",
        "Backend", "Order",
        "Study", "Subject", "Verdict",
    ),
}  # fmt: skip
ALIASES = ("State", "Experts", "Mix")
"""Public names by chapter; a name with a path is none, but the class of what one gives. ALIASES: of types."""


def python_page() -> Iterator[str]:
    """Describe every function and class of the front door but the methods, which have a page of their own."""
    yield "# In Python\n"
    yield "`import lorary as lo` gives all names below that have no path. [Methods](methods.md) such as"
    yield "`lo.Arrow(top_k=4)` are made with their options. Shapes, units and errors are documented where needed.\n"
    homes = front_door()
    for chapter, names in CHAPTERS.items():
        yield f"## {chapter}\n"
        for name in names:
            home, _, last = name.rpartition(".")
            if name in ALIASES:
                yield from _describe_alias(homes[name], name)
                continue
            node = _find(home or homes[name], last)
            yield from _describe(node, "lo." + last if not home else last)


def front_door() -> dict[str, str]:
    """Give the public names and the modules they are of."""
    homes = (n.value for n in _parse("lorary") if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "_HOMES")
    found: dict[str, str] = ast.literal_eval(next(homes))
    return found


def _find(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    return next(n for n in _parse(module) if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)


def _describe_alias(module: str, name: str) -> Iterator[str]:
    body = _parse(module)
    at = next(i for i, n in enumerate(body) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name)
    yield f"### lo.{name}\n\n```text\n{ast.unparse(body[at])}"
    told = body[at + 1] if at + 1 < len(body) else None
    if isinstance(told, ast.Expr) and isinstance(told.value, ast.Constant):
        yield str(told.value.value)
    yield "```\n"


def _parse(module: str) -> list[ast.stmt]:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body


def _describe(node: ast.ClassDef | ast.FunctionDef, shown: str) -> Iterator[str]:
    yield f"### {shown}\n\n```text"
    if isinstance(node, ast.FunctionDef):
        yield _signature(node)
    elif fields := _fields(node):
        yield f"{node.name}({', '.join(fields)})"
    yield from _docstring(node)
    for member in _members(node):
        yield ""
        yield _signature(member)
        yield from (f"    {line}".rstrip() for line in _docstring(member))
    yield "```\n"


def _fields(node: ast.ClassDef) -> list[str]:
    """List what a data class is made of."""
    marks = {name.id for mark in node.decorator_list for name in ast.walk(mark) if isinstance(name, ast.Name)}
    if "dataclass" not in marks:
        return []
    return [ast.unparse(f) for f in node.body if isinstance(f, ast.AnnAssign) and not ast.unparse(f).startswith("_")]


def _members(node: ast.ClassDef | ast.FunctionDef) -> list[ast.FunctionDef]:
    if isinstance(node, ast.FunctionDef):
        return []
    return [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]


def _signature(node: ast.FunctionDef) -> str:
    """Write how it is called: without self, and a property as an attribute."""
    marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
    gives = f" -> {ast.unparse(node.returns).strip(chr(39))}" if node.returns else ""
    if marks & {"property", "cached_property"}:
        return f".{node.name}{gives}"
    first = [a.arg for a in node.args.args[:1]]
    if first in (["self"], ["cls"]):
        node.args.args = node.args.args[1:]
        return f".{node.name}({ast.unparse(node.args)}){gives}"
    return f"{node.name}({ast.unparse(node.args)}){gives}"


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    return (ast.get_docstring(node) or "").splitlines()
