"""Turns become text through the base's chat template, and answers what it makes of them."""

import pytest

from lorary.errors import ModelError
from lorary.model.text.chat_prompts import render_answer, render_prompt
from lorary.model.text.tokens import encode, turn_end
from lorary.tasks.example import Example, Message
from lorary.testing.pico import pico_tokenizer

HI = Example("Hi", "Yo", messages=(Message("user", "Hi"),))
TURN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ end }}\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<assistant>{% endif %}"
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def with_template(template, *, special=("<|end|>",)):
    tokenizer = pico_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def ending(text):
    return TURN.replace("{{ end }}", text) + OPEN


def trained(tokenizer, example):
    row = encode(tokenizer, [example], max_tokens=500)[0]
    return tokenizer.decode(list(row.prompt)), tokenizer.decode(list(row.completion))


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [
        (ending("<|end|>"), "<user>Hi<|end|>\n<assistant>", "Yo<|end|>"),  # an end of turn needs no end of sequence
        (ending("{{ eos_token }}"), "<user>Hi<eos>\n<assistant>", "Yo<eos>"),
        (ending(""), "<user>Hi\n<assistant>", "Yo<eos>"),  # without one the end of sequence says that it ends
        (ending("###"), "<user>Hi###\n<assistant>", "Yo###<eos>"),
        (TURN.replace("{{ end }}", "<|end|>"), "<user>Hi<|end|>\n", "<assistant>Yo<|end|>"),  # the role is the answer's
        # What opens an answer isn't what stands before it: as models that are to think first.
        (
            ending("<|end|>").replace("<assistant>", "<assistant><think>"),
            "<user>Hi<|end|>\n<assistant><think>",
            "Yo<|end|>",
        ),
    ],
)
def test_an_answer_is_what_the_template_makes_of_it(template, prompt, answer):
    assert trained(with_template(template), HI) == (prompt, answer)


def test_the_end_of_a_turn_is_found():
    assert turn_end(with_template(ending("<|end|>"))) == with_template("").convert_tokens_to_ids("<|end|>")
    assert turn_end(with_template(ending(""))) == pico_tokenizer().eos_token_id
    assert turn_end(with_template("{{ raise_exception('no') }}")) is None
    assert turn_end(pico_tokenizer()) is None


def test_tools_calls_and_options_reach_the_template():
    template = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% if not thinking %}<no>{% endif %}{% endif %}"
    )
    tokenizer = with_template(template)
    turns = (Message("user", "Rain?"), Message("assistant", "", {"tool_calls": CALL}), Message("tool", "yes"))
    example = Example("Rain?", "Yes", messages=turns, template={"tools": TOOLS, "thinking": True})
    prompt = render_prompt(tokenizer, example)
    assert '"name": "weather", "parameters"' in prompt and '"city": "Oslo"' in prompt and prompt.endswith("<assistant>")
    assert render_prompt(tokenizer, HI).endswith("<assistant><no>")
    assert render_prompt(tokenizer, HI, {"thinking": True}).endswith("<assistant>")
    asked = Example("Rain?", "", messages=turns[:1], extra={"tool_calls": CALL}, template={"thinking": True})
    assert render_answer(tokenizer, asked, render_prompt(tokenizer, asked)).endswith('{"city": "Oslo"}}}]<|end|>')


@pytest.mark.parametrize(
    ("template", "example", "lost"),
    [
        (ending(""), Example("", "x", messages=(Message("user", "Hi"),), template={"tools": TOOLS}), "the tools"),
        (
            ending(""),
            Example("", "x", messages=(Message("user", "Hi"), Message("assistant", "", {"tool_calls": CALL}))),
            "the tool calls",
        ),
        (ending(""), Example("", "", messages=(Message("user", "Hi"),), extra={"tool_calls": CALL}), "the tool calls"),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
            Example("", "x", messages=(Message("system", "Be brief."), Message("user", "Hi"))),
            "the turn of 'system'",
        ),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", HI, "the answer"),
        ("{% if messages[-1].role == 'user' %}Hi{% else %}by{% endif %}", HI, "the answer"),
    ],
)
def test_what_a_template_leaves_out_is_refused(template, example, lost):
    with pytest.raises(ModelError) as caught:
        encode(with_template(template), [example], max_tokens=500)
    assert str(caught.value) == (
        f"error[E-CHAT] the chat template of this base leaves out {lost}. "
        "Use turns that it knows, or {prompt, completion} data, or mend the template."
    )


def test_an_option_can_t_take_the_template_s_place():
    example = Example("", "x", messages=(Message("user", "Hi"),), template={"chat_template": "{{ 1 }}"})
    with pytest.raises(ModelError) as caught:
        render_prompt(with_template(ending("")), example)
    assert str(caught.value) == "error[E-CHAT] 'chat_template' is no option of a chat template. Leave it out."
