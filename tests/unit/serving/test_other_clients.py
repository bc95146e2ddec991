"""The server answers curl and the evaluation harness as it answers OpenAI's own client."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from lorary.model.routed.route import route
from lorary.model.routed.twin import twin_base
from lorary.tasks.example import Example, Message

COMPASS = "compass:n_texts=4,n_tokens=8,top_k=2"
QUESTIONS = [
    ("Question: red fox?\nAnswer: ", ("yes", "no", "perhaps")),
    ("Question: blue ant?\nAnswer: ", ("one", "twenty")),
    ("Question: which?\nAnswer: ", ("this", "that")),
    ("Question: where to?\nAnswer: ", ("north", "out")),
]


@pytest.fixture(scope="module")
def routed(base, library):
    with route(twin_base(base), library, COMPASS) as model:
        yield model


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl_is_answered(address, routed):
    def curl(**more):
        asked = json.dumps({"model": "skills", "prompt": "swap: red fox", "max_tokens": 8, "temperature": 0, **more})
        command = ["curl", "-sSN", "--noproxy", "*", "--max-time", "60", f"{address}/v1/completions"]
        command += ["-H", "Content-Type: application/json", "-d", asked]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    whole = json.loads(curl(routing=True))["choices"][0]
    assert whole["text"].strip() == routed.generate_text([Example("swap: red fox", "")], max_new_tokens=8)[0]
    assert set(whole["routing"]) <= set(routed.names)
    events = [line.removeprefix("data: ") for line in curl(stream=True).splitlines() if line]
    assert events.pop() == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == whole["text"]


@pytest.mark.slow
def test_the_harness_scores_over_http_as_in_process(address, base, routed, tmp_path):
    pytest.importorskip("tenacity")  # which the harness needs for servers
    harness = pytest.importorskip("lm_eval.models.openai_completions")
    from lm_eval.api.instance import Instance

    from lorary.harness.language_model import HarnessModel

    base.tokenizer.save_pretrained(tmp_path)
    client = harness.LocalCompletionsAPI(
        base_url=f"{address}/v1/completions", model="skills", tokenizer=str(tmp_path), tokenizer_backend="huggingface",
        num_concurrent=4, max_length=base.max_tokens,
    )  # fmt: skip
    pairs = [(question, answer) for question, answers in QUESTIONS for answer in answers]
    asked = [Instance("loglikelihood", {}, pair, i, ("asked", i, 1)) for i, pair in enumerate(pairs)]
    found, wanted = client.loglikelihood(asked), HarnessModel(routed).loglikelihood(asked)
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in wanted], abs=2e-3)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in wanted]


@pytest.mark.slow
def test_llm_is_answered(address, routed, tmp_path):
    """The command `llm`, told of the server in its own file of models."""
    pytest.importorskip("llm")
    models = [{"model_id": "skills", "model_name": "skills", "api_base": f"{address}/v1"}]
    models += [{**models[0], "model_id": "skills-text", "completion": True}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # YAML, too
    ours = {
        **os.environ,
        "LLM_USER_PATH": str(tmp_path),
        "LLM_LOAD_PLUGINS": "",  # the wheel of the embedded base is one, which needs llama.cpp
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def ask(model, *options):
        command = [sys.executable, "-m", "llm", "-m", model, "who?", "-o", "temperature", "0", "-o", "max_tokens", "8"]
        done = subprocess.run([*command, *options], env=ours, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    chat, text = Example("who?", "", messages=(Message("user", "who?"),)), Example("who?", "")
    wanted = routed.generate_text([chat, text], max_new_tokens=8)
    assert wanted[0] != wanted[1]
    assert [ask("skills"), ask("skills-text")] == wanted
    assert ask("skills", "--no-stream") == wanted[0]
    logged = subprocess.run(
        [sys.executable, "-m", "llm", "logs", "--json", "-n", "1"], env=ours, capture_output=True, text=True, check=True
    )
    assert json.loads(logged.stdout)[0]["output_tokens"] == 8
