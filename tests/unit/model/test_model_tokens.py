"""Examples become ids, and rows become batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from lorary.errors import ModelError
from lorary.model.text.chat_prompts import render_prompt
from lorary.model.text.tokens import Encoded, by_length, encode, encode_prompts, pad
from lorary.tasks.example import Example, Message
from lorary.testing.pico import pico_base, pico_tokenizer

TOKENIZER = pico_tokenizer()
EOS = TOKENIZER.eos_token_id


def text_of(ids):
    return TOKENIZER.decode(list(ids))


def one(example, max_tokens=100, tokenizer=TOKENIZER):
    return encode(tokenizer, [example], max_tokens=max_tokens)[0]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("a:", "b"),
        ("def f(", "x):"),
        ("法国的首都是", "巴黎"),
        ("<|user|>Hi<|assistant|>", "Yo"),
        ("a\n", "b"),
        ("a", ""),
    ],
)
def test_nothing_is_put_between_prompt_and_completion(prompt, completion):
    row = one(Example(prompt, completion))
    assert (text_of(row.prompt), text_of(row.completion[:-1])) == (prompt, completion)


@pytest.mark.parametrize(
    ("prompt", "shown", "answer"),
    [
        ("a: ", "a:", " b"),
        ("a:\t ", "a:", "\t b"),
        ("a:\n", "a:\n", "b"),
        ("a:\n ", "a:\n", " b"),
        (" ", "<eos>", " b"),
    ],
)
def test_blanks_at_a_prompt_s_end_are_the_answer_s(prompt, shown, answer):
    row = one(Example(prompt, "b"))
    assert (text_of(row.prompt), text_of(row.completion[:-1])) == (shown, answer)
    (asked,) = encode_prompts(TOKENIZER, [Example(prompt, "")], max_tokens=100)
    assert asked.prompt == row.prompt


def test_the_completion_ends_with_end_of_sequence():
    row = one(Example("say: ", "hé"))
    assert (text_of(row.prompt), text_of(row.completion[:-1]), row.completion[-1]) == ("say:", " hé", EOS)
    assert len(row) == 4 + 4 + 1


def test_an_end_of_sequence_that_the_completion_brings_isn_t_doubled():
    assert one(Example("say:", "hé<eos>")) == one(Example("say:", "hé"))


def test_only_the_start_of_the_prompt_is_cut():
    row = one(Example("0123456789", "abc"), max_tokens=8)
    assert (text_of(row.prompt), text_of(row.completion[:-1])) == ("6789", "abc")
    assert (len(row), row.n_cut) == (8, 6)


def with_start():
    tokenizer = pico_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    start = ("<bos>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[start])
    return tokenizer


def test_one_token_begins_a_text_also_where_the_text_brings_it_or_is_cut():
    tokenizer = with_start()
    plain = one(Example("0123456789", "abc"), tokenizer=tokenizer)
    assert tokenizer.decode(list(plain.prompt)) == "<bos>0123456789"
    assert one(Example("<bos>0123456789", "abc"), tokenizer=tokenizer) == plain
    cut = one(Example("0123456789", "abc"), max_tokens=9, tokenizer=tokenizer)
    assert (tokenizer.decode(list(cut.prompt)), len(cut), cut.n_cut) == ("<bos>6789", 9, 6)
    (asked,) = encode_prompts(tokenizer, [Example("0123456789", "")], max_tokens=5)
    assert asked.prompt == cut.prompt


def test_cuts_are_told_with_counts():
    base = pico_base()
    examples = [Example("x" * n, "y") for n in (10, 300, 400)]
    told = (
        r"2 of 3 prompts were cut at their start, by up to 146 tokens: a prompt and its answer may have 256 tokens "
        r"together \(max_tokens\)\."
    )
    with pytest.warns(RuntimeWarning, match=told):
        base.log_likelihood(examples)
    with pytest.warns(RuntimeWarning, match="2 of 3 prompts were cut"):
        base.generate_text(examples, max_new_tokens=2)
    base.log_likelihood(examples[:1])


def test_a_completion_that_fills_everything_is_refused():
    assert len(one(Example("x", "abc", "poems"), max_tokens=5)) == 5
    with pytest.raises(ModelError) as caught:
        one(Example("x", "abc", "poems"), max_tokens=4)
    assert str(caught.value) == "error[E-LENGTH] a completion of task 'poems' has 4 tokens, limit 4."


def test_an_empty_prompt_starts_from_end_of_sequence():
    assert one(Example("", "abc")).prompt == (EOS,)


class Merging:
    """A tokenizer that closes its texts and has one token for "b c"."""

    eos_token_id, bos_token_id = 9, 8
    words = {"a ": 1, "a": 6, "b": 2, " ": 3, "c": 4, "b c": 5, "\n": 7}

    def __call__(self, text, add_special_tokens):
        ids = []
        while text:
            word = max((w for w in self.words if text.startswith(w)), key=len)
            ids.append(self.words[word])
            text = text[len(word) :]
        return {"input_ids": [8, *ids, 9] if add_special_tokens else ids}


def test_a_token_across_the_seam_is_not_used():
    row = one(Example("a b", " c"), tokenizer=Merging())
    assert row == Encoded((8, 1, 2), (3, 4, 9))


def test_a_text_s_closing_token_is_not_part_of_the_prompt():
    assert one(Example("b", "b"), tokenizer=Merging()) == Encoded((8, 2), (2, 9))


@pytest.mark.parametrize("prompt", ["hello<eos>", "<eos>", "a<eos><eos>"])
def test_an_end_of_sequence_that_a_text_has_itself_stays(prompt):
    row = one(Example(prompt, "x"))
    assert list(row.prompt) == TOKENIZER(prompt)["input_ids"]
    assert (text_of(row.completion[:-1]), row.completion[-1]) == ("x", EOS)


TURNS = Example("hi", "yes", "chat", messages=(Message("system", "be short"), Message("user", "hi")))


def test_turns_go_through_the_chat_template():
    tokenizer = pico_tokenizer()
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}<bot>{% endif %}"
    assert render_prompt(tokenizer, TURNS) == "<system>be short\n<user>hi\n<bot>"
    row = one(TURNS, tokenizer=tokenizer)
    assert (text_of(row.prompt), text_of(row.completion[:-1])) == ("<system>be short\n<user>hi\n<bot>", "yes")


def test_turns_without_a_chat_template_are_refused():
    with pytest.raises(ModelError) as caught:
        render_prompt(TOKENIZER, TURNS)
    assert str(caught.value) == (
        "error[E-CHAT] the data has messages, but this base has no chat template. Use {prompt, completion} data."
    )
    assert render_prompt(TOKENIZER, Example("plain", "x")) == "plain"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('System role not supported') }}",
            "can't render turns system, user: System role not supported.",
        ),
        ("{% if %}", "can't render turns system, user: Expected an expression, got 'end of statement block'."),
        (
            "{{ messages[0].content + 1 }}",
            'can\'t render turns system, user: can only concatenate str (not "int") to str.',
        ),
        ("{# nothing #}", "makes nothing of turns system, user."),
    ],
)
def test_a_chat_template_that_makes_no_prompt_of_the_turns_is_told(template, message):
    base = pico_base()
    base.tokenizer.chat_template = template
    for ask in (lambda: base.log_likelihood([TURNS, TURNS]), lambda: base.generate_text([TURNS], max_new_tokens=2)):
        with pytest.raises(ModelError) as caught:
            ask()
        assert str(caught.value) == (
            f"error[E-CHAT] the chat template of this base {message} "
            "Use turns that it knows, or {prompt, completion} data, or mend the template."
        )


def test_rows_are_padded_on_the_left():
    batch = pad([Encoded((5, 6, 7), (8, 9)), Encoded((5,), (9,))])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [0, 0, 0, 5, 9]]
    assert batch.mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 0, 1]]
    assert batch.labels.tolist() == [[0, 0, 1], [3, 4, 4]]
    assert batch.n_labels.tolist() == [2, 1]


def test_prompts_alone_have_no_labels():
    batch = pad([Encoded((5, 6, 7), (8, 9)), Encoded((5,), (9,))], with_completion=False)
    assert batch.ids.tolist() == [[5, 6, 7], [0, 0, 5]]
    assert not batch.labels.numel()
    assert torch.equal(batch.n_labels, torch.zeros(2, dtype=torch.long))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 60)), st.integers(1, 100), st.integers(1, 8), st.none() | st.integers(1, 100))
def test_groups_hold_every_row_once_and_stay_small(lengths, max_tokens, max_rows, enough):
    rows = [Encoded((1,) * n, ()) for n in lengths]
    groups = list(by_length(rows, max_tokens=max_tokens, max_rows=max_rows, enough=enough))
    assert sorted(i for group in groups for i in group) == list(range(len(rows)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= max_tokens
        assert 1 <= len(group) <= max_rows
        shortest, longest = lengths[group[0]], lengths[group[-1]]
        assert enough is None or (len(group) - 1) * longest < enough or longest <= 1.25 * shortest
    assert [lengths[i] for group in groups for i in group] == sorted(lengths)
