"""A server over a pico library, on a port of its own, asked as its users ask it."""

import httpx
import openai
import pytest
from running_server import serving

from lorary.library.library import Library
from lorary.serving.app import Options
from lorary.serving.scheduler import Limits
from lorary.serving.shelf import shelf
from lorary.testing.pico import pico_base, random_library

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def base():
    base = pico_base()
    base.tokenizer.chat_template = TEMPLATE
    return base


@pytest.fixture(scope="module")
def library(base, tmp_path_factory):
    return random_library(tmp_path_factory.mktemp("libs") / "skills", base, 4)


@pytest.fixture(scope="module")
def shelved(base, library):
    routers = ["compass:n_texts=4,n_tokens=8,top_k=2", "arrow:top_k=2"]
    with shelf(base, [Library.open(library.path)], routers, "factors") as on:
        yield on


@pytest.fixture(scope="module")
def address(shelved):
    with serving(shelved, Options(limits=Limits(rows=8, waiting=64, piece=8))) as address:
        yield address


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(address):
    with httpx.Client(base_url=address) as http:
        yield http
