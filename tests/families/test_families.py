"""Forty families, each as the page of families says: some of every kind now, the others in the slow tests."""

import pytest
from family_measure import measure
from family_page import PAGE, reasons, row

from lorary.testing.families import FAMILIES

FAST = ("gpt2", "glm4_moe", "deepseek_v3", "mamba", "rwkv", "gemma3", "bert_lm_head", "t5")
"""Fused projections, a mixture, latent attention, no attention, no mask, eyes, a head that is cut, and no decoder."""

LINES = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []


@pytest.mark.parametrize(
    "family", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_family_does_what_its_page_says(family: str) -> None:
    cells = measure(family)
    told = [line for line in LINES if line.startswith((f"| `{family}` |", f"- `{family}`,"))]
    assert told == [row(family, cells), *reasons(family, cells)], f"{PAGE.name} is stale: run `make families`"


def test_the_page_has_all_families_and_no_others() -> None:
    assert [line.split("`")[1] for line in LINES if line.startswith("| `")] == list(FAMILIES)
    assert len(FAMILIES) == 40 and set(FAST) < set(FAMILIES)
