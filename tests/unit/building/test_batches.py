"""Which rows a step sees, and how fast it learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_linear_schedule_with_warmup

from lorary.building.training.batches import BATCHES_PER_WINDOW, batch_rows, is_evaluation, mix_seed, schedule
from lorary.model.text.encoded_rows import EncodedRows
from lorary.model.text.tokens import Encoded

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


def rows_of(lengths):
    return [Encoded((1,) * n, ()) for n in lengths]


@SETTINGS
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 3), st.integers(0, 99))
def test_an_epoch_covers_each_row_at_most_once(lengths, batch_size, epoch, seed):
    rows = rows_of(lengths)
    n = max(1, len(rows) // batch_size)
    batches = [batch_rows(rows, batch_size, epoch * n + place, seed) for place in range(n)]
    seen = [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen)) == min(len(rows), n * batch_size)
    assert {len(batch) for batch in batches} == {min(batch_size, len(rows))}
    assert batches == [batch_rows(rows, batch_size, epoch * n + place, seed) for place in range(n)]


def test_seeds_and_epochs_have_orders_of_their_own():
    rows = rows_of(range(1, 41))
    orders = [tuple(tuple(batch_rows(rows, 4, e * 10 + p, s)) for p in range(10)) for e in (0, 1) for s in (1, 2)]
    assert len(set(orders)) == 4


def test_rows_of_a_batch_are_alike_in_length():
    rows = rows_of([1, 100] * 4 * BATCHES_PER_WINDOW)
    batches = [batch_rows(rows, 4, step, 0) for step in range(2 * BATCHES_PER_WINDOW)]
    assert sum(len({len(rows[i]) for i in batch}) > 1 for batch in batches) <= 2


@SETTINGS
@given(st.integers(1, 300), st.sampled_from([0.0, 0.06, 0.5, 1.0]))
def test_the_rate_goes_up_once_and_down_once(n_steps, warmup):
    rates = [schedule(step, n_steps, warmup) for step in range(n_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == 1


def test_the_rate_by_hand():
    assert [schedule(step, 6, 0.3) for step in range(6)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert [schedule(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(("n_steps", "warmup"), [(6, 0.4), (16, 0.06), (100, 0.06), (5, 1.0)])
def test_from_zero_the_rate_is_that_of_transformers(n_steps, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, int(warmup * n_steps), n_steps)
    for step in range(n_steps):
        assert schedule(step, n_steps, warmup, from_zero=True) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


@SETTINGS
@given(st.integers(1, 200), st.integers(1, 50))
def test_evaluations_are_spread_and_the_last_is_at_the_end(n_steps, n):
    steps = [step for step in range(1, n_steps + 1) if is_evaluation(step, n_steps, n)]
    assert steps[-1] == n_steps
    assert len(steps) == min(n, n_steps)
    gaps = [b - a for a, b in zip([0, *steps], steps, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_seeds_differ_by_purpose():
    assert mix_seed(1, "dropout", 2) == mix_seed(1, "dropout", 2)
    assert (
        len({mix_seed(1, "dropout", 2), mix_seed(1, "dropout", 3), mix_seed(2, "dropout", 2), mix_seed(1, "o", 2)}) == 4
    )


@pytest.mark.parametrize("seed", [0, 2**31, 2**40])
def test_any_seed_will_do(seed):
    assert 0 <= mix_seed(seed, "x") < 2**63


@SETTINGS
@given(st.lists(st.integers(1, 9), min_size=1, max_size=120), st.integers(1, 5), st.integers(0, 60), st.integers(0, 9))
def test_a_batch_is_cut_from_its_window_alone(lengths, batch_size, step, seed):
    """The definition: all windows are sorted and cut, the batches shuffled."""
    per_epoch = max(1, len(lengths) // batch_size)
    epoch, place = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(mix_seed(seed, "order", epoch))
    order = torch.randperm(len(lengths), generator=generator).tolist()[: per_epoch * batch_size]
    n = batch_size * BATCHES_PER_WINDOW
    windows = [sorted(order[i : i + n], key=lambda row: (lengths[row], row)) for i in range(0, len(order), n)]
    cut = [window[i : i + batch_size] for window in windows for i in range(0, len(window), batch_size)]
    expected = cut[torch.randperm(len(cut), generator=generator).tolist()[place]]
    assert batch_rows(rows_of(lengths), batch_size, step, seed) == expected
    assert batch_rows(EncodedRows(rows_of(lengths)), batch_size, step, seed) == expected
