"""Evidence that a trace tells is what the router chose by, and only routers that keep some tell any."""

import torch

import lorary as lo
from lorary.testing.pico import random_library

COMPASS = lo.Compass(top_k=None, up=2.0, n_texts=4, n_tokens=8)


def test_the_last_site_chooses_by_the_evidence_that_is_told(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 3)
    with lo.route(base, library, COMPASS) as model:
        trace = model.explain("swap: red fox", max_new_tokens=4)
    n = len("swap: red fox") + 4  # a token is a byte
    assert trace.evidence.shape == (n, 3)
    last = trace.weights[-1, 1:].log()  # a first token is no evidence
    torch.testing.assert_close(last, torch.log_softmax(2 * trace.evidence[1:], -1), atol=1e-4, rtol=1e-4)
    assert trace.evidence.std() > 0.01
    told = trace.told()["evidence"]
    assert [dict(pairs).keys() for pairs in told] == [{0, 1, 2}] * n
    assert told[5][0] == (int(trace.evidence[5].argmax()), round(float(trace.evidence[5].max()), 6))


def test_a_router_that_keeps_no_evidence_tells_none(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 3)
    with lo.route(base, library, COMPASS) as model:
        model.explain("swap", max_new_tokens=0)
        model.set_router("arrow")
        trace = model.explain("swap", max_new_tokens=0)
    assert trace.evidence is None and "evidence" not in trace.told()
