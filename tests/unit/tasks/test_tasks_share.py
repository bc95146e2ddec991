"""A share of a task's training examples, drawn by lot."""

import pytest

from lorary.errors import OptionError
from lorary.tasks.toy import toy_tasks


@pytest.fixture(scope="module")
def tasks():
    return toy_tasks(40, 4, 4).only(["copy", "swap"])


def test_a_share_is_drawn_by_lot_and_keeps_its_order(tasks):
    part = tasks["copy"].with_share(0.25, seed=1)
    places = [tasks["copy"].train.index(example) for example in part.train]
    assert len(places) == 10
    assert places == sorted(places) != list(range(10))
    assert (part.valid, part.test) == (tasks["copy"].valid, tasks["copy"].test)
    assert part == tasks["copy"].with_share(0.25, seed=1) != tasks["copy"].with_share(0.25, seed=2)


def test_a_smaller_share_is_part_of_a_larger_one(tasks):
    one, ten, all_ = (tasks["copy"].with_share(share).train for share in (0.01, 0.1, 1.0))
    assert len(one) == 1, "of few examples there is still one"
    assert {*one} < {*ten} < {*all_} == {*tasks["copy"].train}


def test_each_task_draws_for_itself(tasks):
    parts = tasks.with_share(0.2)
    places = [[tasks[name].train.index(example) for example in parts[name].train] for name in parts]
    assert places[0] != places[1]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_what_is_no_share_is_refused(tasks, share):
    with pytest.raises(OptionError) as caught:
        tasks.with_share(share)
    assert str(caught.value) == f"error[E-OPTION] share={share}, expected above 0, at most 1."
