"""Answers made together are those made alone, whoever joins and leaves meanwhile."""

from dataclasses import replace

import pytest
import torch

from lorary.errors import OptionError
from lorary.evaluation.sampling import Sampling
from lorary.model.decoding.answer import bare, stops_of
from lorary.model.decoding.decoder import Decoder, Request
from lorary.model.routed.route import route
from lorary.routing.routers.compass import Compass
from lorary.tasks.example import Example
from lorary.testing.families import pico_family
from lorary.testing.pico import pico_base, random_library

TEXTS = ("swap: red fox", "x", "a longer prompt than these: ant bee", "copy: q", "and one more")
LENGTHS = (9, 3, 6, 12, 5)
ROUTERS = {
    "base": None,
    "arrow": "arrow:top_k=2",
    "uniform": "uniform",
    "oracle": "oracle",
    "compass": Compass(along=2.0, now=1.0, top_k=2, n_texts=4, n_tokens=8),
}


@pytest.fixture(params=ROUTERS)
def model(request, tmp_path):
    base = pico_base()
    router = ROUTERS[request.param]
    if router is None:
        yield base, bare(base.hf)
        return
    library = random_library(tmp_path / "lib", base, 4)
    with route(base, library, router) as model:
        yield base, model.caller


class Heard:
    def __init__(self, until=None):
        self.tokens, self.until = [], until

    def __call__(self, token):
        self.tokens.append(token)
        return self.until is None or len(self.tokens) < self.until

    @property
    def numbers(self):
        return [token.number for token in self.tokens]


def requests_of(base, heard, **options):
    names = sorted(f"e{i}" for i in range(4))
    return [
        Request(Example(text, "", names[i % 4]), base.tokenizer(text)["input_ids"], n, listener, **options)
        for i, (text, n, listener) in enumerate(zip(TEXTS, LENGTHS, heard, strict=True))
    ]


@torch.inference_mode()
def alone(base, caller, request):
    heard = Heard()
    decoder = Decoder(caller, base.device)
    decoder.join(read(decoder, [replace(request, listener=heard)]))
    while decoder.n_rows:
        decoder.step()
    return heard.numbers


def read(decoder, requests, n_tokens=None):
    arriving = decoder.arriving(requests)
    while not arriving.read(n_tokens):
        pass
    return arriving


@pytest.mark.slow
@torch.inference_mode()
def test_who_joins_and_leaves_changes_no_answer(model):
    base, caller = model
    heard = [Heard() for _ in TEXTS]
    requests = requests_of(base, heard)
    decoder = Decoder(caller, base.device)
    decoder.join(read(decoder, requests[:2]))
    decoder.step()
    decoder.join(read(decoder, [requests[2]], n_tokens=4))  # its prompt in pieces
    decoder.step()
    decoder.step()  # the second has left
    decoder.join(read(decoder, requests[3:]))
    while decoder.n_rows:
        decoder.step()
    assert [h.numbers for h in heard] == [alone(base, caller, request) for request in requests]
    assert [len(h.tokens) for h in heard] == list(LENGTHS)
    assert [h.tokens[-1].ending for h in heard] == ["length"] * len(TEXTS)


@torch.inference_mode()
def test_the_cache_forgets_who_left(model):
    base, caller = model
    heard = [Heard() for _ in TEXTS]
    requests = requests_of(base, heard)
    decoder = Decoder(caller, base.device)
    decoder.join(read(decoder, requests))
    longest = decoder.n_tokens
    decoder.drop(lambda request: len(request.prompt) == longest)
    assert decoder.n_rows == 4
    assert decoder.n_tokens < longest, "what is padding in all rows goes"
    while decoder.n_rows:
        decoder.step()
    kept = [i for i, request in enumerate(requests) if len(request.prompt) < longest]
    assert [heard[i].numbers for i in kept] == [alone(base, caller, requests[i]) for i in kept]


@torch.inference_mode()
def test_an_answer_ends_where_it_is_to_end():
    base = pico_base()
    caller, heard = bare(base.hf), [Heard(), Heard(until=2), *(Heard() for _ in TEXTS[2:])]
    requests = requests_of(base, heard)
    first = alone(base, caller, requests[0])
    requests[0] = replace(requests[0], stops=frozenset({first[3]}))
    decoder = Decoder(caller, base.device)
    decoder.join(read(decoder, requests))
    while decoder.n_rows:
        decoder.step()
    assert heard[0].numbers == first[: first.index(first[3]) + 1]
    assert heard[0].tokens[-1].ending == "stop"
    assert len(heard[1].tokens) == 2 and heard[1].tokens[-1].ending is None, "its listener wants no more"


@torch.inference_mode()
def test_a_seed_draws_the_same_in_any_company():
    base = pico_base()
    caller = bare(base.hf)
    drawn = Sampling(temperature=1.5, top_p=0.95, top_k=50, seed=3)
    heard = [Heard() for _ in TEXTS]
    requests = requests_of(base, heard, sampling=drawn)
    decoder = Decoder(caller, base.device)
    decoder.join(read(decoder, requests))
    while decoder.n_rows:
        decoder.step()
    together = [h.numbers for h in heard]
    assert together == [alone(base, caller, request) for request in requests_of(base, heard, sampling=drawn)]
    greedy = [alone(base, caller, request) for request in requests_of(base, heard)]
    other = replace(drawn, seed=4)
    assert together != greedy
    assert together != [alone(base, caller, request) for request in requests_of(base, heard, sampling=other)]


@torch.inference_mode()
def test_logprobs_are_those_of_the_whole_text():
    base = pico_base()
    heard = [Heard() for _ in TEXTS]
    (request, *_) = requests_of(base, heard, n_logprobs=3)
    decoder = Decoder(bare(base.hf), base.device)
    decoder.join(read(decoder, [request]))
    while decoder.n_rows:
        decoder.step()
    ids = torch.tensor([[*request.prompt, *heard[0].numbers]])
    nats = base.hf(input_ids=ids).logits.float().log_softmax(-1)[0, len(request.prompt) - 1 : -1]
    for token, row in zip(heard[0].tokens, nats, strict=True):
        assert token.logprob == pytest.approx(float(row[token.number]), abs=1e-4)
        assert [number for number, _ in token.likeliest] == row.topk(3).indices.tolist()


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}]
)
def test_sampling_that_means_nothing_is_refused(options):
    with pytest.raises(OptionError, match="E-OPTION"):
        Sampling(**options)


@pytest.mark.parametrize("family", [None, "gemma2", "mamba"])
def test_answers_are_drawn_with_seeds_of_their_own(family):
    base = pico_family(family) if family else pico_base()
    examples = [Example(text, "", "t") for text in TEXTS]
    drawn = [Sampling(temperature=1.5, top_p=0.95, seed=n) for n in range(len(TEXTS))]
    together = base.generate_text(examples, max_new_tokens=6, sampling=drawn)
    alone = [base.generate_text([e], max_new_tokens=6, sampling=[s])[0] for e, s in zip(examples, drawn, strict=True)]
    assert together == alone
    assert together != base.generate_text(examples, max_new_tokens=6, sampling=drawn[::-1])
    assert base.generate_text(examples, max_new_tokens=6, sampling=[Sampling()] * len(TEXTS)) == base.generate_text(
        examples, max_new_tokens=6
    )


def test_white_space_around_an_answer_stays_if_wanted(tmp_path):
    base = pico_base()
    examples = [Example("x", "", "t")] * 300
    with route(base, random_library(tmp_path / "lib", base, 3), "uniform") as model:
        drawn = [Sampling(temperature=2.0, seed=n) for n in range(len(examples))]
        bare_texts, whole = (
            model.generate_text(examples, max_new_tokens=2, sampling=drawn, strip=strip) for strip in (True, False)
        )
    assert [text.strip() for text in whole] == bare_texts
    assert whole != bare_texts


def test_each_answer_has_its_sampling():
    base = pico_base()
    examples = [Example(text, "", "t") for text in TEXTS]
    with pytest.raises(OptionError, match=r"E-OPTION.*sampling has 1 entries, expected one for each of 5"):
        base.generate_text(examples, max_new_tokens=2, sampling=[Sampling()])
    with pytest.raises(OptionError, match=r"E-OPTION.*sampling\[0\] is 0.7"):
        base.generate_text(examples[:1], max_new_tokens=2, sampling=[0.7])


def test_a_chat_ends_at_its_turn():
    base = pico_base()
    assert stops_of(base, [Example("a", "b", "t")]) == list(base.stop_tokens)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma2", "mamba", "falcon_h1"])
@torch.inference_mode()
def test_where_rows_cannot_leave_or_join_a_batch_ends_together(family, tmp_path):
    base = pico_family(family)
    with route(base, random_library(tmp_path / "lib", base, 4, targets=("all-linear",)), "arrow:top_k=2") as model:
        heard = [Heard() for _ in TEXTS]
        requests = requests_of(base, heard)
        if not base.calls.hides_padding:
            requests = [replace(request, prompt=[*requests[1].prompt, i]) for i, request in enumerate(requests)]
        decoder = Decoder(model.caller, base.device)
        decoder.join(read(decoder, requests))
        assert not decoder.is_open
        while decoder.n_rows:
            decoder.step()
        assert decoder.is_open
        assert [h.numbers for h in heard] == [alone(base, model.caller, request) for request in requests]
