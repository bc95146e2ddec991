"""The harness over our engine answers as over its own, item by item, for a base and for a routed model."""

import os

os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
import torch

pytest.importorskip("lm_eval")

import lm_eval
from harness_tasks import QUESTIONS, write_tasks
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lorary.errors import EvaluationError, ModelError
from lorary.evaluation.evaluators.choice import Choice
from lorary.harness.language_model import HarnessModel
from lorary.harness.run_harness import run_harness
from lorary.model.routed.route import route
from lorary.tasks.example import Example
from lorary.testing.pico import pico_base, random_library

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and its packages


@pytest.fixture(autouse=True)
def _datasets_here(tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # seconds, to list all packages
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(params=["base", "compass:n_texts=4,n_tokens=8"])
def model(request, base, toy_library, toy):
    if request.param == "base":
        yield base
    else:
        with route(base, toy_library, request.param, tasks=toy) as routed:
            yield routed


def theirs(model):
    """The harness's own model over the same modules."""
    base = model if hasattr(model, "hf") else model.base
    return HFLM(pretrained=base.hf, tokenizer=base.tokenizer, batch_size=2, max_length=base.max_tokens)


def asked(pairs, kind="loglikelihood"):
    return [Instance(kind, {}, tuple(pair), number, ("asked", number, 1)) for number, pair in enumerate(pairs)]


def test_a_choice_is_scored_as_by_the_harness_item_by_item(model, tmp_path):
    (file,) = write_tasks(tmp_path)
    found = lm_eval.simple_evaluate(
        model=theirs(model), tasks=[file], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0
    )["samples"]["asked"]
    nats = {one["doc_id"]: [float(pair[0][0]) for pair in one["resps"]] for one in found}
    examples = [Example(f"Question: {q}?\nAnswer: ", c[label], choices=tuple(c)) for q, c, label in QUESTIONS]
    scores = {one.metric: one for one in run_harness(model, [file], name="x")}
    for metric, rule in (("acc", "none"), ("acc_norm", "character")):
        assert [one.value for one in scores[f"lm-eval {metric}"].outcomes] == [one[metric] for one in found]
        ours = Choice(rule, open_end=True).score(model, examples)
        assert [one.value / 100 for one in ours] == [one[metric] for one in found]
        for i, (outcome, (_, choices, _)) in enumerate(zip(ours, QUESTIONS, strict=True)):
            per = [len(choice) if rule == "character" else 1 for choice in choices]
            expected = [value / n for value, n in zip(nats[i], per, strict=True)]
            assert outcome.details["scores"] == pytest.approx(expected, abs=2e-4)


PAIRS = [
    ("a b c", " d"), ("a b c", " d e f"), ("a b c ", "d e f"), ("", "first"), ("x" * 400, " y z"), ("same", "same\n"),
    ("y" * 255, "zz"),
]  # fmt: skip


@pytest.mark.slow
def test_each_question_is_answered_as_by_the_harness_s_own_model(model):
    ours, own = HarnessModel(model), theirs(model)
    found, expected = ours.loglikelihood(asked(PAIRS)), own.loglikelihood(asked(PAIRS), disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=1e-3)
    texts = [("a text",), ("longer than is read " * 30,), ("x" * 256,), ("x" * 257,)]
    found, expected = (m.loglikelihood_rolling(asked(texts, "loglikelihood_rolling"), True) for m in (ours, own))
    assert found == pytest.approx(expected, rel=1e-5)
    options = {"until": ["e"], "max_gen_toks": 12, "do_sample": False}
    written = [(text, options) for text in ("one two", "three", "z" * 300)] + [("four", {"max_gen_toks": 3})]
    found, expected = (m.generate_until(asked(written, "generate_until"), True) for m in (ours, own))
    assert found == expected and any(found)


def test_a_greedy_continuation_is_known_as_such(base):
    ours = HarnessModel(base)
    with torch.inference_mode():
        likeliest = int(base.hf(torch.tensor([ours.tok_encode("a b c")])).logits[0, -1].argmax())
    other = (likeliest + 1) % 256
    rows = [(("a b c", ""), ours.tok_encode("a b c"), [token]) for token in (likeliest, other)]
    assert [greedy for _, greedy in ours._loglikelihood_tokens(rows)] == [True, False]


def test_sampled_answers_are_of_their_seeds_and_unknown_options_are_refused(base):
    ours, options = HarnessModel(base), {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
    requests = asked([("one", options)] * 3, "generate_until")
    found = ours.generate_until(requests)
    assert found == ours.generate_until(requests) and len(set(found)) > 1
    with pytest.raises(EvaluationError, match=r"E-EVAL.*num_beams=4 is not known here"):
        ours.generate_until(asked([("one", {"num_beams": 4})], "generate_until"))
    with pytest.raises(ModelError, match="E-LENGTH.*max_gen_toks=256"):
        ours.generate_until(asked([("one", {"max_gen_toks": 256})], "generate_until"))


def test_the_oracle_hears_the_name_of_the_harness_s_task(base, toy_library):
    with route(base, toy_library, "oracle") as model:
        request = Instance("loglikelihood", {}, ("a b", " c"), 0, ("copy", 0, 1))
        (found,) = HarnessModel(model).loglikelihood([request])
        assert found[0] == pytest.approx(model.log_likelihood([Example("a b", " c", "copy")], open_end=True)[0].nats)


def test_results_are_written_as_the_harness_writes_them(base, tmp_path):
    files = write_tasks(tmp_path, ("asked", "written", "rolled"))
    scores = run_harness(base, files, name="plain", into=tmp_path / "out", limit=2)
    assert sorted(s.metric for s in scores) == ["lm-eval acc", "lm-eval acc_norm", "lm-eval exact_match"]
    assert {s.name for s in scores} == {"plain"} and {s.unit for s in scores} == {"0-1"}
    assert scores[0].header["tasks"]["asked"]["n_examples"] == 2
    written = sorted(path.name.partition("_2")[0] for path in (tmp_path / "out" / "plain").iterdir())
    assert written == ["results", "samples_asked", "samples_rolled", "samples_written"]


def test_tasks_that_the_harness_does_not_know_are_told(base, tmp_path):
    with pytest.raises(EvaluationError, match=r"E-EVAL.*absent\.yaml: there is no such file"):
        run_harness(base, [tmp_path / "absent.yaml"], name="x")
    (file,) = write_tasks(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"E-EVAL.*harness failed on .*asked\.yaml: .*rows\.jsonl"):
        run_harness(base, [file], name="x")
    (tmp_path / "asked.yaml").write_text("task: [", "utf-8")
    with pytest.raises(EvaluationError, match="E-EVAL.*harness failed on"):
        run_harness(base, [file], name="x")


@pytest.mark.slow
def test_the_embedded_base_scores_as_under_the_harness(tmp_path):
    from lorary.model.base.base_model import load_base

    base = load_base(dtype="float32")
    pairs = [(f"Question: {q}?\nAnswer:", f" {choice}") for q, choices, _ in QUESTIONS for choice in choices]
    with route(base, random_library(tmp_path / "lib", base, 3), "arrow") as routed:
        for model in (base, routed):
            found, expected = HarnessModel(model).loglikelihood(asked(pairs)), theirs(model).loglikelihood(asked(pairs))
            assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=2e-3)
            assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        examples = [Example(f"Question: {q}?\nAnswer: ", c[label], choices=tuple(c)) for q, c, label in QUESTIONS]
        flat = [nats for one in Choice("none", open_end=True).score(routed, examples) for nats in one.details["scores"]]
        assert flat == pytest.approx([nats for nats, _ in expected], abs=2e-3)


def test_a_family_without_shared_prompts_scores_the_same_too():
    base = pico_base("mistral")
    found, expected = (m.loglikelihood(asked(PAIRS[:4]), True) for m in (HarnessModel(base), theirs(base)))
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=1e-3)
