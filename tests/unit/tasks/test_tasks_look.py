import pytest

from lorary.errors import OptionError
from lorary.tasks.example import Example, Message
from lorary.tasks.look import look
from lorary.tasks.task import Task, Tasks
from lorary.tasks.toy import toy_tasks


def examples(*pairs):
    return tuple(Example(prompt, completion, "t") for prompt, completion in pairs)


def test_look_counts():
    task = Task(
        "t", examples(("a", "x"), ("a", "x"), ("a", "y"), ("b", "z")), examples(("b", "z")), examples(("ccc", "w"))
    )
    (seen,) = look(Tasks([task])).tasks
    assert (seen.n_train, seen.n_valid, seen.n_test) == (4, 1, 1)
    assert (seen.unit, seen.median_length, seen.longest, seen.truncated) == ("characters", 2.0, 4, None)
    assert (seen.n_duplicates, seen.n_leaks) == (1, 1)
    assert seen.sample == "a\n-> x"
    assert seen.findings == (
        "W-DATA task 't': 1 prompts are in more than one part.",
        "W-DATA task 't': 1 examples come twice.",
    )


def test_look_with_tokens():
    task = Task("t", examples(("one two three", "four"), ("one", "two")))
    (seen,) = look(Tasks([task]), count_tokens=lambda text: len(text.split()), max_tokens=3).tasks
    assert (seen.unit, seen.median_length, seen.longest, seen.truncated) == ("tokens", 3.0, 4, 0.5)
    assert seen.findings == (
        "W-DATA task 't': no examples to test on.",
        "W-DATA task 't': 50.0% of the examples are too long and will be cut.",
    )


def test_look_tells_conversations_with_the_same_last_turn_apart():
    turns = [(Message("user", first), Message("assistant", "ok"), Message("user", "why?")) for first in ("a", "b")]
    one, two = (Example("why?", "so", "t", messages=messages) for messages in turns)
    (seen,) = look(Tasks([Task("t", (one,), (), (two,))])).tasks
    assert (seen.n_duplicates, seen.n_leaks) == (0, 0)


def test_look_at_an_empty_task():
    (seen,) = look(Tasks([Task("t")])).tasks
    assert (seen.longest, seen.sample) == (0, "")
    assert "W-DATA task 't': no examples to train on." in look(Tasks([Task("t")])).findings


def test_a_limit_needs_a_counter():
    with pytest.raises(OptionError) as caught:
        look(toy_tasks(), max_tokens=3)
    expected = "error[E-OPTION] max_tokens needs count_tokens. Give the tokenizer's count, or no limit."
    assert str(caught.value) == expected
