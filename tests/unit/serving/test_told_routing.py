"""What an answer says of its routing is what the model alone says of it, whoever else is answered meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lorary.model.attached.spoken import Spoken
from lorary.model.routed.route import route
from lorary.model.routed.twin import twin_base
from lorary.serving.told_routing import Heard
from lorary.tasks.example import Example

FULL = {"X-Lorary-Trace": "full"}
PROMPTS = ["swap: red fox", "x", "a longer prompt than these: ant bee", "copy: it"]


@pytest.fixture(scope="module", params=["skills", "skills:arrow:top_k=2", "skills/e2"])
def named(request, base, library):
    router = {"skills": "compass:n_texts=4,n_tokens=8,top_k=2", "skills/e2": "oracle"}.get(
        request.param, "arrow:top_k=2"
    )
    with route(twin_base(base), library, router) as model:
        yield request.param, model


def ask(http, prompt, model="skills", headers=None, **options):
    asked = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, **options}
    answer = http.post("/v1/completions", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def spread(trace):
    weights = torch.zeros(len(trace["sites"]), len(trace["tokens"]), len(trace["experts"]))
    for token, by_site in enumerate(trace["weights"]):
        for site, pairs in enumerate(by_site):
            for expert, weight in pairs:
                weights[site, token, expert] = weight
    return weights


@pytest.mark.slow
def test_each_of_a_batch_is_told_its_own_routing(http, named):
    """They are equal to `explain` at the place from which each token was chosen."""
    name, model = named
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda prompt: ask(http, prompt, name, FULL), PROMPTS))
    seen = []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        wanted = model.explain(Example(prompt, "", "e2"), max_new_tokens=8)
        begin, n = answer["usage"]["prompt_tokens"] - 1, answer["usage"]["completion_tokens"]
        weights = wanted.weights[:, begin : begin + n]
        trace = answer["choices"][0]["trace"]
        assert (tuple(trace["sites"]), tuple(trace["experts"])) == (wanted.sites, wanted.names)
        assert "".join(trace["tokens"]) == "".join(wanted.tokens[begin + 1 : begin + 1 + n])
        assert torch.allclose(spread(trace), weights, atol=1e-4)
        assert ("evidence" in trace) == (name == "skills")  # the compass
        if wanted.evidence is not None:
            told = torch.tensor([[dict(pairs)[i] for i in range(len(wanted.names))] for pairs in trace["evidence"]])
            assert torch.allclose(told, wanted.evidence[begin : begin + n], atol=1e-4)
        shares = dict(zip(wanted.names, weights.mean((0, 1)).tolist(), strict=True))
        told = answer["choices"][0]["routing"]
        assert told == pytest.approx({name: share for name, share in shares.items() if share}, abs=1e-4)
        seen.append(told)
    assert name == "skills/e2" or any(told != seen[0] for told in seen[1:])


def test_it_is_told_only_to_who_asks_and_changes_no_answer(http):
    plain, told = ask(http, PROMPTS[2], logprobs=0), ask(http, PROMPTS[2], logprobs=0, routing=True)
    assert "routing" not in plain["choices"][0]
    assert "trace" not in told["choices"][0]
    assert sum(told["choices"][0].pop("routing").values()) == pytest.approx(1, abs=1e-3)
    assert plain["choices"] == told["choices"]


def test_chats_and_streams_tell_it_too(client):
    asked = {"model": "skills", "messages": [{"role": "user", "content": "who?"}], "temperature": 0, "max_tokens": 8}
    whole = client.chat.completions.create(**asked, extra_body={"routing": True}).choices[0]
    pieces = [piece.choices[0] for piece in client.chat.completions.create(**asked, stream=True, extra_headers=FULL)]
    assert all("routing" not in piece.model_extra for piece in pieces[:-1])
    assert pieces[-1].model_extra["routing"] == pytest.approx(whole.model_extra["routing"], abs=1e-4)
    assert len(pieces[-1].model_extra["trace"]["weights"]) == 8


def test_the_base_has_none_and_another_header_is_refused(http):
    assert ask(http, "x", "base", FULL)["choices"][0]["routing"] == {}
    answer = http.post("/v1/completions", json={"model": "skills", "prompt": "x"}, headers={"X-Lorary-Trace": "some"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "E-OPTION")


def test_a_full_trace_is_bounded_and_shares_are_of_all_tokens():
    class Letters:
        def decode(self, numbers):
            return "ab"[numbers[0]]

    heard = Heard(room=5)
    for number in (0, 1, 0):
        heard.hear(number, Spoken(("q", "v"), ("e0", "e1"), torch.tensor([[1.0, 0.0], [0.25, -0.75 * number]])))
    body = heard.body(Letters())
    assert body["trace"]["weights"] == [[[(0, 1.0)], [(0, 0.25)]], [[(0, 1.0)], [(1, -0.75), (0, 0.25)]]]
    assert (body["trace"]["tokens"], body["trace"]["left_out"]) == (["a", "b"], 1)
    assert body["routing"] == {"e0": 0.625, "e1": -0.125}
