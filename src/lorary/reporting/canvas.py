"""What all figures share: size, frame, names and writing to a file."""

import io
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from lorary.pages.escape import visible
from lorary.pages.palette import INK

WIDTH = 10.0
"""Inches: 1000 px at the screen's usual 100 per inch."""

_FONT = "DejaVu Sans"
_FURTHER = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR",
    "Source Han Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "IPAGothic",
    "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic",
    "Arial Unicode MS",
)  # fmt: skip
"""Fonts for letters that the first font lacks: Chinese, Japanese, Korean."""


@dataclass(frozen=True)
class Picture:
    """A finished figure: `name` is its file's name, `alt` says what it shows to those who can't see it."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


def plain_frame(axis: Axes) -> None:
    """Leave of the frame only the line below."""
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#C4CAD1")
    axis.tick_params(labelsize=9, colors=INK, color="#C4CAD1")


def short(text: str, limit: int = 32) -> str:
    """Cut the middle out of a long name, and make all of it visible; a dollar sign would start mathematics."""
    text = visible(text)
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[len(text) - limit // 2 + 1 :]}"
    return text.replace("$", r"\$")


def short_each(names: Sequence[str], limit: int = 32) -> list[str]:
    """Shorten names that stand beside each other: where the middle tells them apart, the ends that all share go."""
    shown = [short(name, limit) for name in names]
    if len(set(shown)) == len(set(names)):
        return shown
    start = _n_shared(names)
    end = _n_shared([name[start:][::-1] for name in names])
    spare = max(0, limit - 2 - max(len(name) - start - end for name in names))
    start -= min(start, spare * 2 // 3)
    end -= min(end, spare - spare * 2 // 3)
    cut = [f"{'…' if start else ''}{name[start : len(name) - end]}{'…' if end else ''}" for name in names]
    return [short(name, limit) for name in cut]


def _n_shared(names: Sequence[str]) -> int:
    """Count the letters with which all begin."""
    return sum(1 for _ in itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def is_ours(png: bytes) -> bool:
    """Tell whether a file's bytes are a figure that `finish` made."""
    return png.startswith(b"\x89PNG") and b"Software\0lorary" in png[:512]


def finish(figure: Figure, name: str, title: str, caption: str) -> Picture:
    """Write a figure as PNG and SVG: the same one gives the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    fonts = [_FONT, *_installed()]
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(fonts)
    with mpl.rc_context({"svg.hashsalt": "lorary", "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # then a box stands for it
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": "lorary"})
        figure.savefig(svg, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return Picture(name, title, caption, f"{title}. {caption}", png.getvalue(), svg.getvalue())


@cache
def _installed() -> list[str]:
    """List which of the further fonts this machine has; to ask for others makes matplotlib complain."""
    here = {font.name for font in fontManager.ttflist}
    return [name for name in _FURTHER if name in here]
