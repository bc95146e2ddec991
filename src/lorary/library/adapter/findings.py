"""What is wrong with an adapter directory, and how its owner can fix it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorary.errors import LoraryError, error_of, quote


@dataclass(frozen=True)
class Finding:
    """One fault or doubt: a stable code (E-... refuses, W-... warns), a sentence, and a way out."""

    code: str
    level: Literal["error", "warning"]
    message: str
    hint: str = ""


def error(code: str, message: str, hint: str = "") -> Finding:
    """Make a finding that refuses the adapter."""
    return Finding(code, "error", message, hint)


def warning(code: str, message: str, hint: str = "") -> Finding:
    """Make a finding that the adapter survives."""
    return Finding(code, "warning", message, hint)


def from_exception(caught: LoraryError) -> Finding:
    """Turn a raised error into the finding that says the same."""
    return Finding(caught.code, "error", caught.message, caught.hint)


def raise_errors(findings: Sequence[Finding], name: str) -> None:
    """Raise the first error by its code; the hint lists the others. Warnings pass."""
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        return
    first, *others = errors
    also = [f"Also {other.code}: {other.message}" for other in others]
    hint = " ".join(part for part in (first.hint, *also) if part)
    raise error_of(first.code, f"expert {quote(name)}: {first.message}", hint)
