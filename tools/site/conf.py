"""The documentation site: docs/ as it is, docstrings by autodoc; `make site` builds it, warnings as errors."""

import re
from pathlib import Path
from typing import Any

from python_page import ALIASES, CHAPTERS, front_door  # of tools/reference, which `make site` puts on the path

from lorary import __version__

ROOT = Path(__file__).parents[2]

project = "lorary"
release = version = __version__
project_copyright = "the lorary maintainers"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"lorary {__version__}"
html_static_path: list[str] = []
exclude_patterns = ["_build"]

nb_execution_mode = "off"  # the slow tests execute it
myst_heading_anchors = 4
myst_links_external_new_tab = True
suppress_warnings = ["myst.strikethrough"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False


def setup(app: Any) -> None:
    """Begin with the README, and render the page about Python from the docstrings themselves."""
    app.connect("source-read", _begin_with_readme)
    app.connect("source-read", _render_python)
    app.connect("autodoc-process-docstring", _as_rst)


def _begin_with_readme(_: Any, page: str, source: list[str]) -> None:
    source[0] = re.sub(r"\]\(((?:\.\./)+[A-Z]+\.md)", r"](path:\1", source[0].replace("../README.md", "index.md"))
    if page == "index":
        readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Documentation")[0]
        outside = re.sub(r"\[([^\]]*)\]\((?!https?:|docs/)[^)]*/\)", r"\1", readme)  # a folder is no page
        to_pages = re.sub(r"\]\((?!https?:|docs/)", "](path:../", outside).replace("](docs/", "](")
        source[0] = to_pages + source[0][source[0].index("```{toctree}") :]


def _render_python(_: Any, page: str, source: list[str]) -> None:
    if page != "reference/python":
        return
    homes = front_door()
    lines = ["# In Python", "", "`import lorary as lo` gives the names below that stand without a path.", ""]
    for chapter, names in CHAPTERS.items():
        lines += [f"## {chapter}", "", "```{eval-rst}"]
        for name in names:
            home, _, last = name.rpartition(".")
            kind = "function" if last[0].islower() else "data" if last in ALIASES else "class"
            lines += [f".. auto{kind}:: {home or homes[name]}.{last}", "   :members:" if kind == "class" else "", ""]
        lines += ["```", ""]
    source[0] = "\n".join(lines)


_CODE = re.compile(r"(`[^`]*`)")


def _as_rst(_: Any, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    """Escape what docstrings don't mean as markup: they are plain text with `code` in backticks."""
    for i, line in enumerate(lines):
        parts = _CODE.split(line)
        parts[::2] = (re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2])
        lines[i] = "".join(parts)
