r"""Rank and scale of each site, exactly as PEFT resolves them, without running a stranger's regular expression.

PEFT matches each pattern key as `(.*\.)?(key)$` against the module path; the first key that matches wins.
We read the keys that are names, perhaps with `^`, `$` and `\.`, and refuse the others.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lorary.errors import LibraryError
from lorary.library.findings import quote

_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\\.)*\$?")
_ANY = ""  # what an unescaped dot is for a regular expression: any one letter


def is_plain(pattern: str) -> bool:
    """Tell whether a pattern can be matched without running it."""
    return _PLAIN.fullmatch(pattern) is not None


def first_match(patterns: Iterable[str], site: str) -> str | None:
    """Find the pattern that PEFT would use for a site, or None. Raises E-REGEX for one that isn't plain."""
    return next((pattern for pattern in patterns if _matches(pattern, site)), None)


def _matches(pattern: str, site: str) -> bool:
    if not is_plain(pattern):
        message = f"pattern {quote(pattern)} can't be read safely."
        raise LibraryError("E-REGEX", message, "Write it as the end of a module path, such as layers.0.attn.q_proj.")
    letters = [_ANY if part == "." else part[-1] for part in re.findall(r"\\.|.", pattern.strip("^$"))]
    cut = len(site) - len(letters)
    if cut < 0 or any(wanted not in (_ANY, found) for wanted, found in zip(letters, site[cut:], strict=True)):
        return False
    rest = site[:cut]
    return not rest or (rest.endswith(".") and not pattern.startswith("^"))


def rank_of(config: Mapping[str, Any], site: str) -> int:
    """Give the rank that the config promises for a site; the tensors decide whether that is true."""
    pattern = first_match(config.get("rank_pattern") or {}, site)
    return int(config["r"] if pattern is None else config["rank_pattern"][pattern])


def scale_of(config: Mapping[str, Any], site: str, rank: int) -> float:
    """Give the factor on B A at a site: alpha / rank, or alpha / sqrt(rank) with rsLoRA.

    Raises LibraryError E-REGEX for an alpha_pattern that can't be read safely.
    """
    pattern = first_match(config.get("alpha_pattern") or {}, site)
    alpha = config["lora_alpha"] if pattern is None else config["alpha_pattern"][pattern]
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
