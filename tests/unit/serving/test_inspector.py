"""The inspector's page over HTTP: what anybody may see, what takes the key, and what a browser is told."""

import re

import httpx
import pytest
from running_server import serving

from lorary.serving.app import Options
from lorary.serving.stand import Changes


@pytest.fixture(scope="module")
def locked(shelved):
    with serving(shelved, Options(api_key="secret")) as address, httpx.Client(base_url=address) as http:
        yield http


def test_the_page_and_its_files_need_no_key_and_are_guarded(locked):
    page = locked.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    places = re.findall(r'(?:src|href)="(inspector/[^"]+)"', page.text)
    assert len(places) > 3
    for answer in [page, *(locked.get(f"/{place}") for place in places)]:
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    kinds = [locked.get(f"/{place}").headers["content-type"].partition(";")[0] for place in places]
    assert set(kinds) == {"text/css", "text/javascript"}


@pytest.mark.parametrize("name", ["saved.js", "page.css", "..%2fescape.py", "%2e%2e/escape.py", "x"])
def test_no_other_file_is_given(locked, name):
    assert locked.get(f"/inspector/{name}").status_code == 404


def test_what_tells_of_the_libraries_takes_the_key(locked):
    for path in ("/inspector/about", "/inspector/map?library=skills"):
        assert locked.get(path).status_code == 401
        assert locked.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert "skills" not in locked.get("/").text


def test_each_model_is_named_once_the_default_first(http):
    about = http.get("/inspector/about").json()
    (library,) = about["libraries"]
    assert about["has_chat"] is True
    assert (library["name"], library["experts"]) == ("skills", ["e0", "e1", "e2", "e3"])
    assert [model["router"].partition(":")[0] for model in library["models"]] == ["compass", "arrow"]
    assert [model["name"] for model in library["models"]] == ["skills", "skills:arrow:top_k=2"]
    known = {model["id"] for model in http.get("/v1/models").json()["data"]}
    assert {model["name"] for model in library["models"]} <= known


def test_the_map_is_of_the_experts_that_answer_now(http, shelved):
    whole = http.get("/inspector/map", params={"library": "skills"}).json()
    assert sorted(whole["experts"]) == ["e0", "e1", "e2", "e3"]
    assert [row[i] for i, row in enumerate(whole["cosines"])] == pytest.approx([1] * 4)
    before = shelved.stands["skills"]
    shelved.put(before.edited(Changes(leaving=["e1"])))
    try:
        fewer = http.get("/inspector/map", params={"library": "skills"}).json()
        assert sorted(fewer["experts"]) == ["e0", "e2", "e3"]
    finally:
        shelved.put(before).close()
    missing = http.get("/inspector/map", params={"library": "<b>"})
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/json")
