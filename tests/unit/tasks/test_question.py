"""What rows ask, with and without an answer."""

import pytest

from lorary.errors import TaskError
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.question import read_question
from lorary.tasks.rows.row import read_row

USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}


def ask(**values):
    return read_question(Row(values, "x.jsonl:1", "x", None))


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({"prompt": "Why?"}, {"completion": "So"}),
        ({"prompt": [USER]}, {"completion": "So"}),
        ({"instruction": "Sum", "input": "1 2"}, {"output": "3"}),
        ({"instruction": "Sum", "context": "1 2", "system": "s"}, {"response": "3"}),
        ({"definition": "Sum", "inputs": "1 2"}, {"targets": "3"}),
        ({"definition": "Sum", "input": "1 2"}, {"output": "3"}),
        ({"question": "Why?", "system": "Be brief"}, {"answer": "So"}),
        ({"source": "ein"}, {"target": "one"}),
    ],
)
def test_a_row_asks_the_same_with_and_without_an_answer(values, answer):
    whole = read_row(Row({**values, **answer}, "x.jsonl:1", "x", None)).examples[-1]
    for found in (ask(**values), ask(**values, **answer), ask(**values, **dict.fromkeys(answer))):
        assert (found.prompt, found.messages) == (whole.prompt, whole.messages)
        assert (found.completion, found.references) == ("", ())


def test_a_conversation_is_answered_at_its_end():
    assert ask(messages=[USER]).messages == ask(messages=[USER, SAID]).messages
    assert [turn.content for turn in ask(messages=[USER, SAID, USER]).messages] == ["Hi", "Yo", "Hi"]
    given = ask(conversations=[{"from": "human", "value": "Hi"}], system="s", chat_template_kwargs={"a": 1})
    assert ([turn.role for turn in given.messages], given.template) == (["system", "user"], {"a": 1})


def test_a_prompt_goes_before_all_else_but_turns():
    assert ask(prompt="Why?", question="What?", answer="So", choices=["a", "b"], note="some text").prompt == "Why?"
    assert ask(prompt="Why?", messages=[USER]).prompt == "Hi"


@pytest.mark.parametrize("values", [{}, {"foo": 1}, {"output": "x"}, {"prompt": 3}, {"messages": []}, {"prompt": []}])
def test_what_asks_nothing_is_told_with_its_place(values):
    with pytest.raises(TaskError, match=r"x\.jsonl:1: "):
        ask(**values)
