"""Traces in numbers, for figures: sizes that agree and finite weights."""

import numpy as np
import pytest

from lorary.errors import EvaluationError
from lorary.reporting.token_trace import TokenTrace


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TokenTrace(("a",), ("x",), np.ones((2, 1)), "T"),
            "error[E-REPORT] trace 'T': weights has shape (2, 1), expected (1, 1) (tokens, experts).",
        ),
        (
            lambda: TokenTrace((), ("x",), np.ones((0, 1)), "T"),
            "error[E-REPORT] trace 'T': weights has shape (0, 1), expected (0, 1) (tokens, experts). "
            "An empty text has no trace.",
        ),
        (
            lambda: TokenTrace(("a",), ("x",), np.ones((1, 1)), "T", ("q",), np.ones((2, 1, 1))),
            "error[E-REPORT] trace 'T': by_site has shape (2, 1, 1), expected (1, 1, 1) (sites, tokens, experts).",
        ),
        (
            lambda: TokenTrace(("a",), ("x",), np.full((1, 1), np.nan), "T"),
            "error[E-REPORT] trace 'T': weights holds NaN or infinity, expected finite numbers.",
        ),
        (
            lambda: TokenTrace(("a",), ("x",), np.ones((1, 1)), "T", ("q",), np.full((1, 1, 1), np.inf)),
            "error[E-REPORT] trace 'T': by_site holds NaN or infinity, expected finite numbers.",
        ),
    ],
)
def test_sizes_and_numbers_must_make_sense(make, message):
    with pytest.raises(EvaluationError) as caught:
        make()
    assert str(caught.value) == message
