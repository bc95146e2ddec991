"""What people's data sets look like: each row is read with all of its text, or says what would be lost."""

import json

import pytest

from lorary.errors import OptionError, TaskError
from lorary.tasks.example import Message
from lorary.tasks.look import look
from lorary.tasks.read import read_tasks
from lorary.tasks.task import Tasks

TURNS = [("user", "Hi"), ("assistant", "Yo"), ("user", "And?"), ("assistant", "So.")]
MESSAGES = [{"role": role, "content": content} for role, content in TURNS]
CALL = {"type": "function", "function": {"name": "rain", "arguments": {"city": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "rain", "parameters": {"default": None}}}


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(*rows, name="t.train.jsonl", **how):
    with open(name, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (task,) = read_tasks(name, **how).values()
    return task


def example_of(row, **how):
    (example,) = read(row, **how).train
    return example


def refusal(*rows, **how):
    with pytest.raises(TaskError) as caught:
        read(*rows, **how)
    return str(caught.value)


def test_alpaca_is_read_in_its_own_prompt():
    example = example_of({"instruction": "Translate.", "input": "Hello", "output": "Salut"})
    assert (example.prompt, example.completion) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nTranslate.\n\n### Input:\nHello\n\n### Response:\n",
        "Salut",
    )


@pytest.mark.parametrize("more", [{}, {"input": ""}, {"input": None}, {"system": "", "history": []}])
def test_alpaca_without_input(more):
    example = example_of({"instruction": "Say {input}.", "output": "hi", **more})
    assert example.prompt == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSay {input}.\n\n### Response:\n"
    )


def test_alpaca_with_system_and_history_is_a_conversation():
    row = {"system": "Be brief.", "history": [["Hi", "Yo"]], "instruction": "Say it.", "input": "now", "output": "it"}
    example = example_of(row)
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yo"), ("user", "Say it.\nnow")]
    assert example.messages == tuple(Message(*turn) for turn in turns)
    assert (example.prompt, example.completion) == ("Say it.\nnow", "it")


def test_dolly():
    example = example_of({"instruction": "Who?", "context": "Ann won.", "response": "Ann", "category": "closed_qa"})
    assert example.prompt.endswith("### Instruction:\nWho?\n\n### Input:\nAnn won.\n\n### Response:\n")


@pytest.mark.parametrize(
    ("question", "answer"),
    [("question", "answer"), ("question", "response"), ("query", "response"), ("inputs", "targets"),
     ("input", "output"), ("input", "target"), ("source", "target"),
     ("inputs_pretokenized", "targets_pretokenized")],
)  # fmt: skip
def test_questions_are_parted_from_their_answers_by_one_space(question, answer):
    for asked, answered, prompt in (("2+2?", "4", "2+2? "), ("2+2?\n", "4", "2+2?\n"), ("2+2?", "\n4", "2+2?")):
        example = example_of({question: asked, answer: answered})
        assert (example.prompt, example.completion) == (prompt, answered)


def test_a_prompt_is_left_as_it_is():
    example = example_of({"prompt": "def f(", "completion": "x):"})
    assert (example.prompt, example.completion) == ("def f(", "x):")


def test_p3_from_the_hub_has_numbers_beside_its_texts():
    row = {"inputs": [1, 2], "targets": [3], "inputs_pretokenized": "2+2?", "targets_pretokenized": "\n4"}
    task = read(row)
    assert task.train[0].prompt == "2+2?"
    assert task.origin.unread == {"inputs": 1, "targets": 1}


def test_super_natural_instructions_by_the_names_of_the_hub():
    row = {"task_name": "sums", "id": "sums-1", "definition": "Add.", "inputs": "2+2", "targets": "4"}
    assert example_of(row).prompt == "Add.\n\n2+2\n\nOutput: "


def test_a_question_after_a_system_prompt_is_a_conversation():
    row = {"id": "flan.1", "system_prompt": "Think.", "question": "2+2?", "response": "4"}
    assert example_of(row).messages == (Message("system", "Think."), Message("user", "2+2?"))
    assert example_of({**row, "system_prompt": ""}).messages == ()


@pytest.mark.parametrize("key", ["conversations", "conversation", "messages"])
def test_share_gpt(key):
    names = {"user": "human", "assistant": "gpt"}
    row = {"id": "x_0", key: [{"from": names[role], "value": content} for role, content in TURNS]}
    example = example_of(row)
    assert example.messages == tuple(Message(*turn) for turn in TURNS[:-1])
    assert example.completion == "So."


def test_share_gpt_with_tools():
    row = {
        "system": "Help.", "tools": json.dumps([TOOL]),
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": "yes"},
            {"from": "gpt", "value": "Yes."},
        ],
    }  # fmt: skip
    example = example_of(row)
    assert example.template == {"tools": [TOOL]}
    assert example.messages == (
        Message("system", "Help."),
        Message("user", "Rain?"),
        Message("assistant", "", {"tool_calls": [CALL]}),
        Message("tool", "yes"),
    )


def test_what_a_chat_template_is_given_of_turns_and_row():
    row = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Ra"}, {"type": "text", "text": "in?"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Look."},
            {"role": "tool", "content": "yes", "name": "rain", "tool_call_id": "1"},
            {"role": "assistant", "content": "Yes.", "thinking": "It is.", "name": None, "tool_calls": []},
        ],
        "tools": [TOOL],
        "chat_template_kwargs": {"enable_thinking": True},
    }
    example = example_of(row)
    assert example.messages == (
        Message("developer", "Be brief."),
        Message("user", "Rain?"),
        Message("assistant", "", {"tool_calls": [CALL], "reasoning_content": "Look."}),
        Message("tool", "yes", {"name": "rain", "tool_call_id": "1"}),
    )
    assert (example.completion, example.extra) == ("Yes.", {"thinking": "It is."})
    assert example.template == {"tools": [TOOL], "enable_thinking": True}


def test_what_the_template_is_given_tells_questions_apart():
    def asked(**more):
        return example_of({"messages": MESSAGES, **more}).question

    assert len({asked(), asked(tools=[TOOL]), asked(chat_template_kwargs={"a": 1}), asked(system="Be brief.")}) == 4
    told = [{**MESSAGES[0], "name": "Ann"}, *MESSAGES[1:]]
    assert example_of({"messages": told}).question == 'user: Hi {"name": "Ann"}\nassistant: Yo\nuser: And?'


def test_a_call_is_an_answer():
    row = {"messages": [MESSAGES[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]}
    assert (example_of(row).completion, example_of(row).extra) == ("", {"tool_calls": [CALL]})


def test_messages_before_and_after():
    row = {"prompt": MESSAGES[:-1], "completion": MESSAGES[-1:], "system": "Be brief.", "tools": [TOOL]}
    example = example_of(row)
    assert [message.content for message in example.messages] == ["Be brief.", "Hi", "Yo", "And?"]
    assert (example.completion, example.template) == ("So.", {"tools": [TOOL]})


def test_text_beside_the_known_fields_is_refused_with_counts():
    rows = [{"prompt": "a", "completion": "b", "id": i, **({"context": "Rome."} if i else {})} for i in range(3)]
    assert refusal(*rows, {**rows[0], "hint": "No."}) == (
        "error[E-DATA] t.train.jsonl:2: text in fields that are not read: 'context' (2 rows), 'hint' (1 row). "
        "Put it into the prompt or the turns, or drop it: ignore=['context', 'hint'], "
        "--ignore context --ignore hint."
    )


LOST = [
    {"prompt": "a", "completion": "b", "system": "Be brief."},
    {"prompt": "a", "completion": "b", "history": [["x", "y"]]},
    {"prompt": "a", "completion": "b", "tools": [TOOL]},
    {"question": "a", "answer": "b", "passage": "Rome."},
    {"question": "a", "answer": "b", "answers": {"text": ["c"]}},
    {"instruction": "a", "output": "b", "source": "word " * 100},
    {"messages": MESSAGES, "rejected": MESSAGES},
    {"messages": [{**MESSAGES[0], "summary": "They greet."}, MESSAGES[1]]},
]


@pytest.mark.parametrize("row", LOST)
def test_no_text_is_lost_in_silence(row):
    *_, last = row
    field = "messages[].summary" if last == "messages" else last
    assert f"text in fields that are not read: {field!r} (1 row)." in refusal(row)
    for said in (field, "*"):
        assert read(row, ignore=[said]).origin.unread == {field: 1}


def test_what_is_ignored_is_not_there():
    row = {"messages": MESSAGES, "instruction": "Greet.", "output": "Yo", "url": "x"}
    task = read(row, ignore="messages")
    assert task.train[0].completion == "Yo"
    assert task.origin.unread == {"messages": 1, "url": 1}


def test_notes_and_numbers_are_left_out_and_counted():
    notes = {
        "id": "a-1", "source_url": "https://x/" + "y" * 400, "lang": "en", "_template": "x", "tags": ["a", "b"],
        "score": 0.5, "embedding": [0.1, 0.2], "flag": True, "Unnamed: 0": "7", "n": "12", "empty": "", "none": None,
    }  # fmt: skip
    task = read({"prompt": "a", "completion": "b", **notes}, {"prompt": "c", "completion": "d", "id": "a-2"})
    assert task.origin.unread == {**{name: 1 for name in notes if name not in ("none", "empty")}, "id": 2}
    assert look(Tasks([task])).tasks[0].unread == task.origin.unread


def test_a_text_that_stands_in_the_example_is_read():
    row = {"instruction": "Say hi.", "input": "", "output": "hi"}
    whole = example_of(row).prompt + "hi"
    assert read({**row, "text": whole}).origin.unread == {}, "as in tatsu-lab/alpaca"
    assert read({"messages": MESSAGES, "prompt": "Hi"}).origin.unread == {}, "as in ultrachat"


def test_the_shapes_of_a_task_are_counted():
    task = read({"prompt": "a", "completion": "b"}, {"messages": MESSAGES}, {"prompt": "c", "completion": "d"})
    assert {name: n for name, (n, _) in task.origin.shapes.items()} == {"prompt, completion": 2, "messages": 1}
    assert task.origin.shapes["prompt, completion"][1].prompt == "a"
    assert task == read_tasks("t.train.jsonl")["t"].first(), "where a task is from says nothing of what it is"


def test_senseless_options():
    for how, expected in (
        ({"answers": "first"}, "answers='first'. Known: last, all."),
        ({"ignore": [3]}, "ignore holds 3, expected names of fields."),
    ):
        with pytest.raises(OptionError) as caught:
            read({"prompt": "a", "completion": "b"}, **how)
        assert str(caught.value) == f"error[E-OPTION] {expected}"


def test_every_answer_of_a_conversation_is_an_example_of_its_own():
    turns = [{"role": "assistant", "content": "Welcome."}, {"role": "system", "content": "Be brief."}, *MESSAGES]
    task = read({"messages": turns, "chat_template_kwargs": {"a": 1}}, answers="all")
    assert [(e.prompt, e.completion, len(e.messages)) for e in task.train] == [("Hi", "Yo", 3), ("And?", "So.", 5)]
    assert {json.dumps(e.template) for e in task.train} == {'{"a": 1}'}
    assert [e.completion for e in read({"messages": turns}).train] == ["So."]


def test_all_answers_of_a_conversation_are_in_the_part_of_the_last():
    rows = [{"messages": [{"role": "user", "content": f"q{i}"}, *MESSAGES[1:]]} for i in range(300)]
    last, every = read(*rows, name="t.jsonl"), read(*rows, name="t.jsonl", answers="all")
    assert len(every.train) + len(every.valid) + len(every.test) == 600
    for part in ("train", "valid", "test"):
        assert tuple(getattr(every, part)[1::2]) == getattr(last, part)
        assert [e.messages[0] for e in getattr(every, part)[::2]] == [e.messages[0] for e in getattr(last, part)]


def test_blanks_at_the_end_of_a_prompt_decide_no_part():
    for i in range(50):
        parts = [
            [part for part in ("train", "valid", "test") if getattr(task, part)]
            for task in (read({"prompt": f"{i}?{end}", "completion": "x"}, name="t.jsonl") for end in ("", " ", " \t"))
        ]
        assert parts[0] == parts[1] == parts[2]
