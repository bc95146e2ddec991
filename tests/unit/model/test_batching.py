"""Batches are as large as memory holds, and the results come in the order of the rows."""

import pytest
import torch

from lorary.errors import ModelError
from lorary.model.text import batching
from lorary.model.text.batching import in_batches, tokens_at_once
from lorary.model.text.tokens import Encoded
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base

ROWS = [Encoded((1,) * n, ()) for n in (7, 3, 9, 4, 4, 30, 1, 2)]


def test_results_come_in_the_order_of_the_rows():
    base = pico_base()
    base.batch_tokens = 30
    groups = []

    def run(group):
        groups.append(group)
        return [10 * i for i in group]

    assert in_batches(base, ROWS, run) == [10 * i for i in range(8)]
    assert all(len(g) == 1 or len(g) * max(len(ROWS[i]) for i in g) <= 30 for g in groups)
    plain = len(groups)
    groups.clear()
    in_batches(base, ROWS, run, n_new=6)  # what is to be written takes room as well
    assert all(len(g) == 1 or len(g) * (max(len(ROWS[i]) for i in g) + 6) <= 30 for g in groups)
    assert len(groups) > plain


@pytest.mark.slow
def test_a_batch_that_memory_does_not_hold_is_halved():
    tried = []

    def run(group):
        tried.append(len(group))
        if len(group) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return list(group)

    assert in_batches(pico_base(), ROWS, run) == list(range(8))
    assert tried == [8, 4, 2, 2, 4, 2, 2]


def test_one_row_that_memory_does_not_hold_is_told():
    def run(group):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(ModelError) as caught:
        in_batches(pico_base(), ROWS[:1], run)
    assert str(caught.value) == (
        "error[E-MEMORY] a text of 7 tokens needs more memory than is free. "
        "Give shorter texts, a lower max_tokens, or more memory."
    )


def test_other_errors_pass():
    def run(group):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_batches(pico_base(), ROWS, run)


def test_little_memory_makes_small_batches(monkeypatch):
    base = pico_base()
    monkeypatch.setattr(batching, "_free_bytes", lambda device: 1 << 40)
    most = tokens_at_once(base)
    found = []
    for free in (1 << 24, 1 << 22, 1 << 10):
        monkeypatch.setattr(batching, "_free_bytes", lambda device, free=free: free)
        found.append(tokens_at_once(base))
    assert most > found[0] > found[1] >= found[2] > 0
    monkeypatch.setattr(batching, "_free_bytes", lambda device: None)
    assert tokens_at_once(base) == most


def test_the_size_of_batches_changes_no_answer():
    examples = [Example("x" * n, "yes") for n in (3, 50, 7, 21)]
    base = pico_base()
    scores, texts = base.log_likelihood(examples), base.generate_text(examples, max_new_tokens=5)
    base.batch_tokens = 1
    for one, other in zip(base.log_likelihood(examples), scores, strict=True):
        assert one.nats == pytest.approx(other.nats, abs=1e-4)
    assert base.generate_text(examples, max_new_tokens=5) == texts


def test_a_steady_size_doesnt_hang_on_what_else_runs(base, monkeypatch):
    monkeypatch.setattr(batching, "_memory_bytes", lambda line, pages: {"MemTotal:": 1 << 26}.get(line, 0))
    steady = tokens_at_once(base, steady=True)
    assert batching._LEAST == tokens_at_once(base) < steady < batching._ON_CPU
    monkeypatch.setattr(batching, "_memory_bytes", lambda line, pages: None)
    assert tokens_at_once(base, steady=True) == batching._ON_CPU
