"""The server answers curl and the evaluation harness as it answers OpenAI's own client."""

import json
import shutil
import subprocess

import pytest

from lorary.model.routed.route import route
from lorary.model.routed.twin import twin_base
from lorary.tasks.example import Example

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
