"""Experts come and go while the server answers: over HTTP, and with the library on disk. No answer is of two kinds."""

import gc
import shutil
import time
import weakref
from threading import Event

import httpx
import openai
import pytest
from running_server import serving

from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.model.decoding.decoder import Decoder
from lorary.model.routed.route import route
from lorary.model.routed.twin import twin_base
from lorary.serving.app import Options
from lorary.serving.shelf import shelf
from lorary.tasks.example import Example
from lorary.testing.pico import random_library

COMPASS = "compass:n_texts=4,n_tokens=8,top_k=2"
PROMPTS = ["swap: red fox", "a longer prompt than these: ant bee"]


@pytest.fixture
def edited(base, library, tmp_path):
    """A library of its own, and other experts: e1 is another e1."""
    shutil.copytree(library.path, tmp_path / "skills")
    spare = random_library(tmp_path / "spare", base, ["e1", "new"], seed=7)
    return Library.open(tmp_path / "skills"), spare


@pytest.fixture
def told():
    return []


@pytest.fixture
def standing(base, edited):
    with shelf(base, [edited[0]], [COMPASS, "arrow:top_k=2"], "factors") as on:
        yield on


@pytest.fixture
def server(standing, told):
    options = Options(api_key="secret", allow_edits=True, watch_s=0.05, tell=told.append)
    key = {"Authorization": "Bearer secret"}
    with serving(standing, options) as address, httpx.Client(base_url=address, headers=key, timeout=240) as http:
        yield http


def ask(http, prompt, model="skills", **options):
    asked = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, **options}
    answer = http.post("/v1/completions", json=asked)
    return answer.json()["choices"][0]["text"].strip() if answer.status_code == 200 else answer.status_code


def anew(base, library, router=COMPASS):
    with route(twin_base(base), library, router) as model:
        return model.generate_text([Example(prompt, "") for prompt in PROMPTS], max_new_tokens=8)


def load(http, name, path, **more):
    return http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path), **more})


def until(holds):
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_experts_come_and_go_over_http_and_answers_are_as_of_a_model_built_anew(server, base, edited, tmp_path):
    library, spare = edited
    whole = random_library(tmp_path / "whole", base, 4)  # the same four, by the same seed
    before = anew(base, library)
    loaded = load(server, "skills/new", spare["new"].directory)
    assert (loaded.status_code, "Success" in loaded.text) == (200, True)
    whole.add(spare["new"].directory, "new")
    assert [ask(server, prompt) for prompt in PROMPTS] == anew(base, whole) != before
    assert [ask(server, p, "skills:arrow:top_k=2") for p in PROMPTS] == anew(base, whole, "arrow:top_k=2")
    assert "skills/new" in [card["id"] for card in server.get("/v1/models").json()["data"]]
    assert load(server, "e1", spare["e1"].directory, load_inplace=True).status_code == 200
    whole.replace(spare["e1"].directory, "e1")
    assert [ask(server, prompt) for prompt in PROMPTS] == anew(base, whole)
    assert server.post("/v1/unload_lora_adapter", json={"lora_name": "new"}).status_code == 200
    whole.remove("new")
    assert [ask(server, prompt) for prompt in PROMPTS] == anew(base, whole)
    assert ask(server, "x", "skills/new") == 404
    assert sorted(Library.open(library.path)) == sorted(library)  # on disk all is as it was


@pytest.mark.slow
def test_an_answer_under_way_is_of_the_experts_that_were_there(server, standing, base, edited, monkeypatch):
    """Whoever asked before the change has the old answer, whole; then the old models go."""
    library, spare = edited
    wanted, old, step, may_go_on = anew(base, library)[0], weakref.ref(standing.stands["skills"]), Decoder.step, Event()

    def wait(decoder):
        if decoder.n_rows:
            may_go_on.wait(120)
        step(decoder)

    monkeypatch.setattr(Decoder, "step", wait)
    asked = {"model": "skills", "prompt": PROMPTS[0], "max_tokens": 8, "temperature": 0, "stream": True}
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="secret", max_retries=0) as client:
        stream = client.completions.create(**asked)
        pieces = [next(stream).choices[0].text]
        assert load(server, "skills/e1", spare["e1"].directory, load_inplace=True).status_code == 200
        assert server.post("/v1/unload_lora_adapter", json={"lora_name": "e0"}).status_code == 200
        assert (ask(server, "x", "skills/e0"), server.get("/health").json()["answering"]) == (404, 1)
        may_go_on.set()
        pieces += [piece.choices[0].text for piece in stream]
    assert "".join(pieces).strip() == wanted != ask(server, PROMPTS[0])
    until(lambda: gc.collect() < 0 or old() is None)


@pytest.mark.parametrize(
    ("name", "path", "status", "code"),
    [
        ("e1", "{spare}/experts/e1", 400, "E-EXISTS"),
        ("E1", "{spare}/experts/e1", 400, "E-EXISTS"),
        ("../out", "{spare}/experts/new", 404, "model_not_found"),
        ("a b", "{spare}/experts/new", 400, "E-NAME"),
        ("new", "hf://someone/something", 400, "E-PATH"),
        ("new", "relative", 400, "E-PATH"),
        ("new", "{spare}", 400, "E-FILE"),
        ("new", "{spare}/experts/bad", 400, "E-FILE"),
    ],
)
def test_what_cannot_be_loaded_is_refused_and_nothing_changes(server, edited, name, path, status, code):
    spare = edited[1].path
    shutil.copytree(spare / "experts" / "new", spare / "experts" / "bad")
    (spare / "experts" / "bad" / "adapter_model.safetensors").write_bytes(b"nothing")
    before = server.get("/v1/models").json()
    refused = load(server, name, path.format(spare=spare))
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code), refused.text
    assert server.get("/v1/models").json() == before


@pytest.mark.slow
def test_who_is_unknown_or_the_last_cannot_be_unloaded(server):
    def unload(name):
        return server.post("/v1/unload_lora_adapter", json={"lora_name": name})

    assert unload("e9").status_code == 404
    assert [unload(f"e{i}").status_code for i in range(4)] == [200, 200, 200, 400]
    assert isinstance(ask(server, "x"), str)


@pytest.mark.slow
def test_a_watched_library_is_followed(server, base, edited, told):
    library, spare, arrow = Library.open(edited[0].path), edited[1], "skills:arrow:top_k=2"

    def is_followed():
        wanted = anew(base, library, "arrow:top_k=2")
        until(lambda: [ask(server, prompt, arrow) for prompt in PROMPTS] == wanted)

    library.add(spare["new"].directory, "new")
    until(lambda: ask(server, "x", "skills/new") != 404)
    library.replace(spare["e1"].directory, "e1")
    is_followed()
    library.remove("e0")
    until(lambda: ask(server, "x", "skills/e0") == 404)
    is_followed()
    damaged = shutil.copytree(spare["e1"].directory, spare.path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"nothing")
    damaged.rename(library.path / "experts" / "odd")
    until(lambda: any(line.startswith("skills/odd: ") for line in told))
    is_followed()
    changes = [line for line in told if not line.startswith("skills/odd")]
    assert changes == ["skills: +new", "skills: +e1", "skills: -e0"]


def test_edits_take_a_key_and_are_off_unless_they_are_wanted(server, http):
    assert load(http, "new", "/nowhere").status_code == 404
    anonymous = httpx.post(f"{server.base_url}/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "/x"})
    assert anonymous.status_code == 401
    for options in ({"allow_edits": True}, {"api_key": ""}):
        with pytest.raises(OptionError):
            Options(**options)


def test_what_takes_long_at_the_start_is_told(base, tmp_path):
    library = random_library(tmp_path / "new", base, 2)
    told = []
    for wanted in (["fitting compass:n_texts=4,n_tokens=8 to new ..."], []):
        with shelf(base, [Library.open(library.path)], ["compass:n_texts=4,n_tokens=8"], "factors", told.append):
            assert told == wanted
        told.clear()
