"""The server answers OpenAI's own client as the model does in Python, whoever else asks meanwhile."""

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from running_server import serving

from lorary.model.decoding.decoder import Decoder
from lorary.model.routed.route import route
from lorary.serving.app import Options
from lorary.serving.scheduler import Limits
from lorary.tasks.example import Example, Message

PROMPTS = ["swap: red fox", "x", "a longer prompt than these: ant bee", "copy: q"]


@pytest.fixture(scope="module")
def routed(base, library):
    from lorary.model.routed.twin import twin_base

    with route(twin_base(base), library, "compass:n_texts=4,n_tokens=8,top_k=2") as model:
        yield model


def greedy(client, prompt, model="skills", **options):
    return client.completions.create(model=model, prompt=prompt, temperature=0, **{"max_tokens": 8, **options})


@pytest.mark.slow
def test_it_answers_as_the_model_does(client, routed):
    wanted = routed.generate_text([Example(prompt, "") for prompt in PROMPTS], max_new_tokens=8)
    answers = [greedy(client, prompt).choices[0] for prompt in PROMPTS]
    assert [answer.text.strip() for answer in answers] == wanted
    assert {answer.finish_reason for answer in answers} <= {"length", "stop"}


def test_several_prompts_and_answers_in_one_request(client):
    both = greedy(client, PROMPTS[:2], n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == both.choices[1].text == greedy(client, PROMPTS[0]).choices[0].text
    assert both.choices[2].text == greedy(client, PROMPTS[1]).choices[0].text
    assert both.usage.total_tokens == both.usage.prompt_tokens + both.usage.completion_tokens


def test_a_chat_goes_through_the_template(client, routed):
    asked = Example("who?", "", messages=(Message("system", "brief"), Message("user", "who?")))
    wanted = routed.generate_text([asked], max_new_tokens=8)[0]
    turns = [{"role": "system", "content": "brief"}, {"role": "user", "content": [{"type": "text", "text": "who?"}]}]
    made = client.chat.completions.create(model="skills", messages=turns, temperature=0, max_tokens=8)
    assert made.choices[0].message.content.strip() == wanted
    assert made.choices[0].message.role == "assistant"
    assert made.model_extra["lorary"]["router"].startswith("compass")


def test_a_stream_brings_the_same_text(client):
    whole = greedy(client, PROMPTS[2], logprobs=2)
    stream = list(greedy(client, PROMPTS[2], stream=True, logprobs=2, stream_options={"include_usage": True}))
    choices = [piece.choices[0] for piece in stream if piece.choices]
    assert "".join(choice.text for choice in choices) == whole.choices[0].text
    assert choices[-1].finish_reason == whole.choices[0].finish_reason
    assert stream[-1].usage == whole.usage
    told = [value for choice in choices for value in choice.logprobs.token_logprobs]
    assert told == pytest.approx(whole.choices[0].logprobs.token_logprobs)


def test_a_chat_streams_too(client):
    asked = {"model": "skills", "messages": [{"role": "user", "content": "who?"}], "temperature": 0, "max_tokens": 8}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2).choices[0]
    pieces = [piece.choices[0] for piece in client.chat.completions.create(**asked, stream=True)]
    assert pieces[0].delta.role == "assistant"
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.message.content
    assert len(whole.logprobs.content) == 8
    assert all(len(token.top_logprobs) == 2 for token in whole.logprobs.content)


def test_each_name_is_a_model_of_its_own(client, base, library):
    names = [model.id for model in client.models.list()]
    assert {"base", "skills", "skills:arrow:top_k=2", "skills/e0", "skills/e3"} <= set(names)
    answers = {
        name: greedy(client, PROMPTS[2], model=name).choices[0].text for name in ("base", "skills/e0", "skills/e1")
    }
    assert answers["base"].strip() == base.generate_text([Example(PROMPTS[2], "")], max_new_tokens=8)[0]
    from lorary.model.routed.twin import twin_base

    with route(twin_base(base), library, "oracle") as model:
        for name in ("e0", "e1"):
            wanted = model.generate_text([Example(PROMPTS[2], "", name)], max_new_tokens=8)[0]
            assert answers[f"skills/{name}"].strip() == wanted


def test_a_stop_text_ends_an_answer_and_is_not_in_it(client):
    whole = greedy(client, PROMPTS[2], max_tokens=12).choices[0].text
    word = whole[4:6]
    cut = greedy(client, PROMPTS[2], max_tokens=12, stop=[word, "never"]).choices[0]
    assert cut.text == whole[: whole.index(word)]
    assert cut.finish_reason == "stop"
    pieces = list(greedy(client, PROMPTS[2], max_tokens=12, stop=word, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == cut.text


def test_a_seed_repeats_an_answer(client):
    def draw(seed):
        return (
            client.completions.create(model="skills", prompt="x", temperature=1.5, seed=seed, max_tokens=8)
            .choices[0]
            .text
        )

    assert draw(3) == draw(3) != draw(4)


def test_prompts_of_one_request_are_each_drawn_as_if_sent_alone(client):
    def draw(prompt, n=1):
        asked = {"model": "skills", "temperature": 1.5, "max_tokens": 8, "seed": 3, "n": n}
        return [choice.text for choice in client.completions.create(prompt=prompt, **asked).choices]

    (one,), (other,) = draw("x"), draw("swap: red")
    assert draw(["x", "swap: red", "x"]) == [one, other, one]
    first, second, *rest = draw(["x", "swap: red"], n=2)
    assert (first, rest[0]) == (one, other) and second != first


def test_several_answers_are_drawn_apart_from_those_of_the_next_seeds(client):
    def draw(seed, n):
        asked = {"model": "skills", "prompt": "x", "temperature": 1.5, "max_tokens": 8}
        return [choice.text for choice in client.completions.create(seed=seed, n=n, **asked).choices]

    several = draw(3, 3)
    assert several == draw(3, 3) and several[0] == draw(3, 1)[0]
    assert not {*several[1:]} & {several[0], *draw(4, 1), *draw(5, 1)}


def test_an_echoed_prompt_is_scored(client, base, library):
    from lorary.model.routed.twin import twin_base

    told = client.completions.create(model="skills:arrow:top_k=2", prompt="swap: red fox", max_tokens=1, echo=True,
                                     logprobs=1, temperature=0).choices[0].logprobs  # fmt: skip
    assert told.token_logprobs[0] is None
    ids = base.tokenizer("swap: red fox", return_tensors="pt")["input_ids"]
    with route(twin_base(base), library, "arrow:top_k=2") as model:
        nats = model(ids).logits.float().log_softmax(-1)[0]
    wanted = [float(nats[i, number]) for i, number in enumerate(ids[0, 1:].tolist())]
    assert told.token_logprobs[1 : len(wanted) + 1] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"model": "skill"}, 404, "Did you mean 'skills'"),
        ({"max_tokens": 100_000}, 400, "tokens"),
        ({"temperature": 9}, 400, "temperature"),
        ({"stop": [""]}, 400, "stop"),
        ({"extra_body": {"fast": True}}, 400, "fast"),
        ({"frequency_penalty": 1.0}, 400, "frequency_penalty"),
        ({"prompt": [10**9]}, 400, "tokens from 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_openais_form(client, options, status, words):
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(**{"model": "skills", "prompt": "x", "max_tokens": 4, **options})
    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


def test_fields_that_change_nothing_are_taken(client):
    assert greedy(client, "x", user="me", frequency_penalty=0, logit_bias={}).choices


def test_not_json_and_too_much_are_refused(http):
    assert http.post("/v1/completions", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert http.post("/v1/completions", content=b"x" * (5 << 20)).status_code == 413


def test_health_and_metrics(client, http):
    greedy(client, "x")
    assert http.get("/health").json()["status"] == "ok"
    assert 'lorary_requests_total{model="skills"}' in http.get("/metrics").text


@pytest.mark.parametrize(("n_requests", "n_clients"), [(24, 8), pytest.param(200, 32, marks=pytest.mark.slow)])
def test_many_clients_who_come_and_go(client, http, routed, n_requests, n_clients):
    """Every fourth request is cancelled: the others get what they get alone, and nothing stays."""
    prompts = [f"{PROMPTS[i % 4]} {i % 7}" for i in range(28)]
    wanted = dict(zip(prompts, routed.generate_text([Example(p, "") for p in prompts], max_new_tokens=8), strict=True))

    def ask(i):
        time.sleep(random.Random(i).random() / 4)
        prompt = prompts[i % len(prompts)]
        if i % 4:
            return prompt, patient(lambda: greedy(client, prompt)).choices[0].text.strip()
        stream = patient(lambda: greedy(client, prompt, stream=True))
        next(iter(stream))
        stream.close()
        return None

    with ThreadPoolExecutor(n_clients) as pool:
        found = [pair for pair in pool.map(ask, range(n_requests)) if pair]
    assert [text for _, text in found] == [wanted[prompt] for prompt, _ in found]
    deadline = time.monotonic() + 120
    while (left := http.get("/health").json())["answering"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def patient(call, hurry=20):
    while True:
        try:
            return call()
        except openai.RateLimitError as error:
            time.sleep(float(error.response.headers["retry-after"]) / hurry)


@pytest.fixture
def steps(monkeypatch):
    """Those made so far, of which each takes a while."""
    made, step = [], Decoder.step

    def slow(decoder):
        if decoder.n_rows:
            time.sleep(0.02)
            made.append(decoder.n_rows)
        step(decoder)

    monkeypatch.setattr(Decoder, "step", slow)
    return made


@pytest.mark.slow
def test_a_full_queue_refuses_and_says_when_to_try_again(shelved, steps):
    """One is answered, two wait, and whoever else comes is refused; later all are answered."""
    with (
        serving(shelved, Options(limits=Limits(rows=1, waiting=2, tokens=4096))) as address,
        httpx.Client(base_url=address) as http,
    ):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.RateLimitError, match="wait already") as refused:
            greedy(client, "x", n=3)
        assert refused.value.response.headers["retry-after"] == "1"
        assert greedy(client, "x", n=2).choices
        n_refused, waiting = [], []

        def ask(_):
            def once():
                try:
                    return greedy(client, "x")
                except openai.RateLimitError:
                    n_refused.append(1)
                    raise
                finally:
                    waiting.append(http.get("/health").json()["waiting"])

            return patient(once, hurry=4).choices[0].text

        with ThreadPoolExecutor(5) as pool:
            assert set(pool.map(ask, range(5))) == {greedy(client, "x").choices[0].text}
    assert n_refused
    assert max(waiting) <= 2
    assert set(steps) == {1}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_who_leaves_frees_its_place(http, client, steps, stream):
    with contextlib.suppress(openai.APITimeoutError):
        answer = greedy(client, "x", model="base", stream=stream, max_tokens=200, timeout=0.2)
        next(iter(answer))
        answer.close()
    while http.get("/health").json()["answering"]:
        time.sleep(0.01)
    assert len(steps) < 190


def test_a_key_is_needed_where_one_is_set(shelved):
    with serving(shelved, Options(api_key="secret")) as address:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{address}/v1", api_key="guess", max_retries=0).models.list()
        assert openai.OpenAI(base_url=f"{address}/v1", api_key="secret").models.list().data


@pytest.mark.slow
def test_other_sites_pages_may_ask_only_if_they_are_named(shelved):
    asked = {"Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    named, other = "https://a.example", "https://b.example"
    for origins, origin, allowed in (((), named, None), ((named,), named, named), ((named,), other, None)):
        with serving(shelved, Options(origins=origins)) as address, httpx.Client(base_url=address) as http:
            found = http.options("/v1/completions", headers={**asked, "Origin": origin})
            assert found.headers.get("access-control-allow-origin") == allowed
            plain = http.get("/v1/models", headers={"Origin": origin})
            assert plain.status_code == 200 and plain.headers.get("access-control-allow-origin") == allowed
