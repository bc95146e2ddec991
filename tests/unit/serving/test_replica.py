"""One of several replicas: what it serves is said in names and paths, and what would be of all it refuses."""

import os

import httpx
import pydantic
import pytest
from running_server import serving

from lorary.cli.main import main
from lorary.errors import LoraryError, OptionError
from lorary.serving.app import Options
from lorary.serving.ray_serve import Served


def test_a_replica_answers_and_refuses_what_is_of_all(shelved):
    with serving(shelved, Options(is_replica=True)) as address, httpx.Client(base_url=address) as http:
        asked = {"model": "skills", "prompt": "x", "max_tokens": 2, "temperature": 0}
        assert http.post("/v1/completions", json=asked).json()["usage"]["completion_tokens"] == 2
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            refused = http.post(path, json={"lora_name": "e0", "lora_path": "/adapters/e0"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "E-OPTION")
            assert "--watch" in refused.json()["error"]["message"]
        assert "counts for itself" in http.get("/metrics").json()["error"]["message"]
    with pytest.raises(OptionError, match="--watch"):
        Options(is_replica=True, api_key="secret", allow_edits=True)


def test_what_is_served_is_settled_before_it_is_sent(base, library, tmp_path, monkeypatch):
    base.write(tmp_path / "pico")
    monkeypatch.chdir(tmp_path)
    served = Served(libraries=[os.path.relpath(library.path)], base="pico", rows=4, waiting=9)
    settled = served.settled()
    assert os.path.isabs(settled.libraries[0]) and library.path.samefile(settled.libraries[0])
    assert settled.base == str(tmp_path / "pico")
    assert settled.settled() == settled
    assert settled.options(print).limits.rows == 4
    assert settled.n_at_once >= 9 + 4 * 3  # those that wait, and those of the base, the library and its experts


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"libraries": ["/nowhere"]}, "E-LIBRARY"), ({"routers": ["compas"]}, "E-NAME"), ({"api_key": ""}, "E-OPTION")],
)
def test_what_is_wrong_is_said_before_anything_is_started(library, wrong, code):
    with pytest.raises(LoraryError) as caught:
        Served(**{"libraries": [str(library.path)], "base": "pico", **wrong}).settled()
    assert caught.value.code == code


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"libraries": []}, {"allow_edits": True}, {"gpus": -1}])
def test_fields_that_mean_nothing_are_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        Served(**{"libraries": ["lib"], **wrong})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replicas", "2"], "--backend ray"),
        (["--backend", "local"], "runs no replicas"),
        (["--backend", "ray:hang_s=5"], "hang_s is of builds"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(library, capfd, options, words):
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(library.path), "--base", "pico", *options])
    assert ended.value.code == 2
    assert words in " ".join(capfd.readouterr().err.replace("│", " ").split())
