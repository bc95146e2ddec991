"""How threads wait for one another: OpenMP's spin, and on a busy machine they take cores from whom they wait for."""

from collections.abc import Mapping

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What says how they wait, of any OpenMP; read once, when torch is imported."""
_SHORT = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""Turns for GNU's OpenMP, some microseconds; milliseconds for LLVM's and Intel's, which know no less."""


def short_waits(environment: Mapping[str, str]) -> dict[str, str]:
    """Give what makes threads that wait soon give their core away; nothing where the user has said how they wait."""
    return {} if any(name in environment for name in SETTINGS) else dict(_SHORT)
