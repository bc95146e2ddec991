"""The pages that people read, taken apart into blocks of code and links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for folder in ("recipes", "experiments") for path in (ROOT / folder).glob("*.sh"))
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: what is in it, where it is, and whether the comment above it says not to run it."""

    page: Path
    line: int
    language: str
    text: str
    is_executed: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], match["text"], not above.startswith("<!-- not executed"))


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> Iterator[list[str]]:
    """List the `lorary ...` commands of a block as arguments, without comments and what a pipe or > does next."""
    return iter(()) if block.language == "python" else commands_of(block.text)


def commands_of(script: str) -> Iterator[list[str]]:
    for line in script.replace("\\\n", " ").replace('"${LORARY:-lorary}"', "lorary").splitlines():
        text = line.strip().removeprefix("$ ").removeprefix("exec ")
        if text.startswith("lorary ") and "…" not in text:
            words = shlex.split(re.split(r" [|>&] ", text)[0], comments=True)
            yield words[1:]


def links(page: Path) -> list[str]:
    found = [match["target"] for match in _LINK.finditer(_FENCE.sub("", page.read_text(encoding="utf-8")))]
    return [target for target in found if "://" not in target and not target.startswith(("#", "mailto:"))]
