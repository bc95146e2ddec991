"""What is streamed is what is answered whole, and what is explained of it is that answer."""

import warnings

import pytest

import lorary as lo
from lorary.asking.stream import explain
from lorary.testing.families import pico_family
from lorary.testing.pico import pico_base, random_library

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
)


@pytest.fixture(scope="module")
def base():
    base = pico_base()
    base.tokenizer.chat_template = TEMPLATE
    return base


@pytest.fixture(scope="module")
def library(base, tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("asking") / "lib", base, 3)


@pytest.mark.slow
@pytest.mark.parametrize("router", [None, "arrow:top_k=2", "compass:n_texts=4,n_tokens=8"])
@pytest.mark.parametrize("sampling", [lo.Sampling(), lo.Sampling(1.0, top_k=90, seed=3)])
def test_pieces_are_the_whole_answer(base, library, router, sampling):
    model = base if router is None else lo.route(base, library, router)
    with model:
        whole = model.generate_text([lo.Example("swap: red", "")], max_new_tokens=24, sampling=[sampling])[0]
        pieces = list(lo.stream(model, "swap: red", max_new_tokens=24, sampling=sampling))
        assert ("".join(pieces), len(pieces) > 3, all(pieces)) == (whole, True, True)
        stop = whole[len(whole) // 2]
        cut = "".join(lo.stream(model, "swap: red", max_new_tokens=24, sampling=sampling, stop=[stop]))
        assert cut == whole.partition(stop)[0].strip()


def test_a_base_that_transformers_answers_for_gives_all_at_once():
    base = pico_family("rwkv")
    whole = base.generate_text([lo.Example("swap: red", "")], max_new_tokens=8)[0]
    answer = lo.stream(base, "swap: red", max_new_tokens=8)
    assert (list(answer), len(answer.tokens)) == ([whole], 8)


def test_what_is_left_is_made_no_further_and_explained_so_far(base, library):
    with lo.route(base, library, "arrow:top_k=2") as model:
        answer = lo.stream(model, "swap: red", max_new_tokens=24, sampling=lo.Sampling(1.0, seed=3))
        next(answer)
        n_made = len(answer.tokens)
        assert 0 < n_made < 24
        trace = explain(model, answer)
        n_prompt = len(base.tokenizer("swap: red")["input_ids"])
        assert len(trace.tokens) == n_prompt + n_made
        assert "".join(trace.tokens[n_prompt:]) == "".join(map(base.tokenizer.decode, ([n] for n in answer.tokens)))
    with pytest.raises(lo.OptionError, match="bare base"):
        explain(base, answer)


def test_a_conversation_goes_with_every_question(base):
    chat = lo.Chat(base, max_new_tokens=4, system="be kind")
    first = "".join(chat.say("hi"))
    assert [(turn.role, turn.content) for turn in chat.turns] == [("user", "hi"), ("assistant", first)]
    asked = lo.Example("", "", messages=(_turn("system", "be kind"), *chat.turns, _turn("user", "and?")))
    assert "".join(chat.say("and?")) == base.generate_text([asked], max_new_tokens=4)[0]
    chat.reset()
    assert "".join(chat.say("hi")) == first


def _turn(role, text):
    from lorary.tasks.example import Message

    return Message(role, text)


def test_an_answer_that_is_left_counts_as_far_as_it_was_given(base):
    chat = lo.Chat(base, max_new_tokens=24)
    answer = chat.say("hi")
    piece = next(answer)
    answer.close()
    assert [turn.content for turn in chat.turns] == ["hi", piece]


def test_what_does_not_fit_is_forgotten_oldest_first(base):
    n = base.max_tokens - 4
    chat = lo.Chat(base, max_new_tokens=4)
    for text in ("a" * (n // 2), "b" * (n // 3)):
        list(chat.say(text))
    with pytest.warns(RuntimeWarning, match="the first question and answer were forgotten"):
        list(chat.say("c" * (n // 3)))
    assert [turn.content[0] for turn in chat.turns if turn.role == "user"] == ["b", "c"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chat.reset()
        list(chat.say("d"))


def test_a_base_without_a_template_is_told():
    with pytest.raises(lo.ModelError, match="has no chat template") as told:
        lo.Chat(pico_base())
    assert told.value.code == "E-CHAT"
