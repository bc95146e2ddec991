import pytest

from lorary.errors import TaskError
from lorary.tasks.look import look
from lorary.tasks.toy import toy_tasks


def test_toy_tasks_are_eight_clean_and_the_same_at_every_call():
    tasks = toy_tasks()
    assert list(tasks) == ["copy", "double", "first", "join", "last", "reverse", "swap", "upper"]
    assert {(len(t.train), len(t.valid), len(t.test)) for t in tasks.values()} == {(32, 8, 8)}
    assert look(tasks).findings == ()
    assert [t.hash for t in tasks.values()] == [t.hash for t in toy_tasks().values()]
    assert max(seen.longest for seen in look(tasks).tasks) < 40


def test_toy_tasks_do_what_they_say():
    for name, task in toy_tasks(200, 0, 0).items():
        a, b = task.train[0].prompt.removeprefix(f"{name}: ").split()
        expected = {
            "copy": f"{a} {b}", "double": f"{a} {a} {b} {b}", "first": a, "join": a + b, "last": b,
            "reverse": b[::-1] + " " + a[::-1], "swap": f"{b} {a}", "upper": f"{a.upper()} {b.upper()}",
        }  # fmt: skip
        assert task.train[0].completion == expected[name]


def test_too_many_toy_examples():
    with pytest.raises(TaskError) as caught:
        toy_tasks(n_train=2000)
    assert str(caught.value) == "error[E-TASK] 2016 toy examples, but there are 1560. Ask for fewer."


def test_a_text_is_one_name():
    assert list(toy_tasks(1, 1, 1).only("copy")) == ["copy"]
