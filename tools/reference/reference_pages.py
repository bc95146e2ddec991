"""The generated pages of docs/reference, by name."""

from collections.abc import Callable

from commands_page import commands_page
from methods_page import methods_page
from python_page import python_page

_NOTICE = "<!-- Generated from the code by `make docs`. -->"


def _generated(page: Callable[[], str]) -> Callable[[], str]:
    """Say above a page where it comes from, and end it in one newline."""
    return lambda: f"{_NOTICE}\n\n{page().rstrip()}\n"


PAGES = {
    "methods": _generated(methods_page),
    "commands": _generated(commands_page),
    "python": _generated(lambda: "\n".join(python_page())),
}
