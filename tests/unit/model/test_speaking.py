"""Scores and answers, against the plainest computation, for every architecture."""

from dataclasses import replace

import pytest
import torch

from lorary.errors import ModelError
from lorary.model.routed.route import route
from lorary.model.text.tokens import encode, pad
from lorary.tasks.example import Example, Message
from lorary.testing.pico import ARCHITECTURES, pico_base, random_library

EXAMPLES = [
    Example("swap: red fox", "fox red", "a"), Example("x", "y", "b"),
    Example("a much longer prompt than the others, truly", "done", "a"), Example("empty answer:", "", "b"),
]  # fmt: skip


@pytest.fixture(params=ARCHITECTURES)
def any_base(request):
    return pico_base(request.param)


@pytest.fixture
def model(any_base, tmp_path):
    with route(any_base, random_library(tmp_path / "lib", any_base, 3), "arrow:top_k=2") as model:
        yield model


def naive_likelihood(model, example):
    """Alone, unpadded, all logits, all in float64."""
    row = encode(model.base.tokenizer, [example], max_tokens=200)[0]
    ids = torch.tensor([[*row.prompt, *row.completion]])
    with torch.inference_mode():
        logs = torch.log_softmax(model(ids).logits[0].double(), -1)
    return sum(float(logs[t - 1, ids[0, t]]) for t in range(len(row.prompt), ids.shape[1])), len(row.completion)


def test_log_likelihood_is_the_sum_over_the_completion_and_its_end(model):
    found = model.log_likelihood(EXAMPLES)
    for (nats, n_tokens), example in zip(found, EXAMPLES, strict=True):
        expected, n = naive_likelihood(model, example)
        assert nats == pytest.approx(expected, abs=1e-3, rel=1e-5)
        assert n_tokens == n == len(example.completion) + 1 + (example.prompt[-1] == " ")


def test_with_an_open_end_the_end_of_sequence_is_not_scored():
    base = pico_base("llama")
    examples = [Example("swap: red fox", "fox red"), Example("x ", "y<eos>", "b")]  # an end that the text itself holds
    rows = base.encode(examples, open_end=True)
    closed = base.encode(examples)
    assert [row.completion for row in rows] == [closed[0].completion[:-1], closed[1].completion]
    found, ended = base.log_likelihood(examples, open_end=True), base.log_likelihood(examples)
    assert found[1] == pytest.approx(ended[1]) and found[0].n_tokens == ended[0].n_tokens - 1
    batch = pad(
        [replace(closed[0], prompt=closed[0].prompt + rows[0].completion, completion=closed[0].completion[-1:])]
    )
    end = base.hf(batch.ids).logits[0, -2].log_softmax(-1)[base.tokenizer.eos_token_id]
    assert found[0].nats == pytest.approx(ended[0].nats - float(end), abs=1e-4)
    turns = Example("hi", "yes", messages=(Message("user", "hi"),))
    base.tokenizer.chat_template = "{% for m in messages %}{{ m.role }}:{{ m.content }}<eos>{% endfor %}" + (
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    (row,), (open_row,) = base.encode([turns]), base.encode([turns], open_end=True)
    assert open_row.completion == row.completion[:-1] and len(open_row.completion) == 3
    with pytest.raises(ModelError, match="E-LENGTH.*nothing to score"):
        base.log_likelihood(EXAMPLES, open_end=True)


def test_a_batch_with_padding_generates_what_single_runs_do(model):
    prompts = [e.prompt for e in EXAMPLES]
    batch = model.base.tokenizer(prompts, return_tensors="pt", padding=True)
    together = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch["input_ids"].shape[1] :]
    for prompt, found in zip(prompts, together, strict=True):
        ids = model.base.tokenizer(prompt, return_tensors="pt")["input_ids"]
        alone = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert found.tolist()[: len(alone)] == alone.tolist()
        assert not any(found.tolist()[len(alone) :])
    assert len({tuple(row.tolist()) for row in together}) > 1


def test_the_cache_changes_nothing(model):
    ids = model.base.tokenizer("swap: red fox", return_tensors="pt")["input_ids"]
    cached, plain = (model.generate(ids, max_new_tokens=12, use_cache=u, do_sample=False) for u in (True, False))
    assert torch.equal(cached, plain)


def test_texts_are_answered_as_ids_are(base, toy_library):
    with route(base, toy_library, "arrow") as model:
        found = model.generate_text(EXAMPLES, max_new_tokens=6)
        for text, example in zip(found, EXAMPLES, strict=True):
            ids = base.tokenizer(example.prompt, return_tensors="pt")["input_ids"]
            new = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
            assert text == base.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_the_known_answer_does_not_change_what_is_generated(base):
    prompt = "0123456789" * 30  # longer than the base reads
    asked = [Example(prompt, ""), Example(prompt, "an answer of some length"), Example(prompt, "z" * 240)]
    with pytest.warns(RuntimeWarning, match="3 of 3 prompts were cut"):
        assert len(set(base.generate_text(asked, max_new_tokens=8))) == 1


def test_scores_come_in_the_order_of_the_examples(base):
    forward, backward = base.log_likelihood(EXAMPLES), base.log_likelihood(EXAMPLES[::-1])
    for a, b in zip(forward, backward[::-1], strict=True):
        assert a.nats == pytest.approx(b.nats, abs=1e-4)
    assert base.log_likelihood([]) == []
    assert base.generate_text([], max_new_tokens=3) == []


def test_the_head_runs_only_where_it_is_asked(base):
    batch = pad(encode(base.tokenizer, EXAMPLES, max_tokens=100))
    with torch.inference_mode():
        whole = base.hf(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits
        with base.head_at(tuple(batch.labels)):
            some = base.hf(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits
    assert some.shape[:2] == (1, int(batch.n_labels.sum()))
    torch.testing.assert_close(some[0], whole[tuple(batch.labels)])


def test_a_bfloat16_base_runs_and_agrees_roughly(tmp_path):
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        base = pico_base(dtype=dtype)
        library = random_library(tmp_path / str(dtype), base, 3)
        with route(base, library, "arrow", mix="outputs") as model:
            found[dtype] = torch.tensor([s.nats / s.n_tokens for s in model.log_likelihood(EXAMPLES)])
            assert model(torch.tensor([[5, 6]])).logits.dtype == dtype
            assert model.generate_text(EXAMPLES[:1], max_new_tokens=2)
    assert (found[torch.float32] - found[torch.bfloat16]).abs().max() < 0.3


@pytest.mark.slow
def test_prompt_and_answer_fill_the_context_and_no_more():
    base = pico_base()
    texts = ["x", "a prompt that is cut", ""]
    alone = [base.generate_text([Example(text[-1:], "")], max_new_tokens=255)[0] for text in texts]
    with pytest.warns(RuntimeWarning, match="1 of 3 prompts were cut"):
        assert base.generate_text([Example(text, "") for text in texts], max_new_tokens=255) == alone
    with pytest.raises(ModelError) as caught:
        base.generate_text([Example("x", "")], max_new_tokens=256)
    assert str(caught.value) == (
        "error[E-LENGTH] max_new_tokens=256: prompt and answer are 256 tokens at most on this base. "
        "Ask for 255 or fewer."
    )


def test_a_prompt_that_ends_in_the_end_of_sequence_is_another_prompt():
    base = pico_base()
    (with_end, without) = base.log_likelihood([Example("hello<eos>", "x"), Example("hello", "x")])
    assert with_end.n_tokens == without.n_tokens == 2
    assert with_end.nats != without.nats
