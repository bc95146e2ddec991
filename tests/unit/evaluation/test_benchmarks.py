"""Each benchmark's prompts, letter by letter, and what is scored of its rows."""

import pytest

from benchmark_rows import HUB, OURS
from lorary.errors import EvaluationError, LoraryError
from lorary.evaluation.benchmarks.arc_easy import ArcEasy
from lorary.evaluation.benchmarks.bbh import BBH
from lorary.evaluation.benchmarks.boolq import BoolQ
from lorary.evaluation.benchmarks.hellaswag import HellaSwag
from lorary.evaluation.benchmarks.piqa import PIQA
from lorary.evaluation.benchmarks.winogrande import WinoGrande
from lorary.evaluation.evaluators.choice import Choice
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.folder import BENCHMARKS
from lorary.tasks.rows.fields import Row


def rows(values):
    return [Row(row, f"rows.jsonl:{number}", "sums", None) for number, row in enumerate(values, start=1)]


def first_of(benchmark, *values):
    return benchmark.examples(rows(values))[0]


def texts(example):
    """The texts whose likelihoods are compared, as prompt and answer."""
    if example.contexts:
        return [(context, example.completion) for context in example.contexts]
    return [(example.prompt, choice) for choice in example.choices]


# ---- prompts, as microsoft/mttl and lm-evaluation-harness write them, and one blank before the answer -----

PROMPTS = {
    "piqa": [
        ("Question: dry a cup\nAnswer: ", "rub it with a towel"),
        ("Question: dry a cup\nAnswer: ", "fill it with tea"),
    ],
    "boolq": [
        ("Tea is a drink.\nQuestion: is tea a drink?\nAnswer: ", "no"),
        ("Tea is a drink.\nQuestion: is tea a drink?\nAnswer: ", "yes"),
    ],
    "winogrande": [
        ("The cup was full because the cup ", "had been emptied."),
        ("The cup was full because the jug ", "had been emptied."),
    ],
    "hellaswag": [("Tea: A man boils water. He ", end) for end in ("pours it.", "eats it.", "sings.", "sleeps.")],
    "arc_easy": [("Question: What is ice?\nAnswer: ", end) for end in ("water", "sand", "iron")],
    "openbookqa": [("Ice melts when ", end) for end in ("it is warm", "it is cold", "it sings", "it is dark")],
}
PROMPTS["arc_challenge"] = PROMPTS["arc_easy"]
RIGHT = {"piqa": 0, "boolq": 1, "winogrande": 1, "hellaswag": 0, "arc_easy": 0, "arc_challenge": 0, "openbookqa": 0}


@pytest.mark.parametrize("prompts", ["paper", "harness"])
@pytest.mark.parametrize("shape", [OURS, HUB], ids=["ours", "hub"])
@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_a_question_is_asked_as_the_reference_asks_it(name, shape, prompts):
    example = BENCHMARKS.load(name)(prompts=prompts).examples(rows(shape[name]))[0]
    assert texts(example) == PROMPTS[name]
    assert texts(example).index((example.prompt, example.completion)) == RIGHT[name]


WIKIHOW = {
    "activity_label": "Home and Garden",
    "ctx_a": "[header] How to wash a cup [title] Fill it. [step] Use hot water.",
    "ctx_b": "",
    "endings": ["[step] Dry it [title] With a towel.", "Paint  it.", " Break it. [substeps] Twice.", "Sell it."],
    "label": 0,
}


@pytest.mark.parametrize(
    ("prompts", "prompt", "endings"),
    [
        (
            "paper",
            "Home and Garden:  How to wash a cup. Fill it. Use hot water. ",
            ("Dry it. With a towel.", "Paint it.", "Break it. Twice.", "Sell it."),
        ),
        (
            "harness",
            "Home and Garden: How to wash a cup. Fill it. Use hot water. ",
            (" Dry it. With a towel.", "Paint it.", "Break it. Twice.", "Sell it."),
        ),
    ],
)
def test_hellaswag_is_cleaned_as_each_reference_cleans_it(prompts, prompt, endings):
    example = first_of(HellaSwag(prompts=prompts), WIKIHOW)
    assert (example.prompt, example.choices) == (prompt, endings)


def test_the_second_half_of_a_scene_begins_with_the_only_capital():
    row = {**WIKIHOW, "activity_label": "Tea", "ctx_a": "A man boils.", "ctx_b": "the Man McAdam"}
    assert first_of(HellaSwag(), row).prompt == "Tea: A man boils. The man mcadam "


def test_blanks_that_join_are_not_doubled_in_the_papers_prompts():
    row = {"goal": "go", "sol1": " by foot", "sol2": "by car", "label": 0}
    assert texts(first_of(PIQA(), row))[0] == ("Question: go\nAnswer: ", "by foot")
    assert texts(first_of(PIQA(prompts="harness"), row))[0] == ("Question: go\nAnswer: ", " by foot")
    open_row = {"contexts": ["Ann ", "Bob "], "continuation": "left.", "label": 0}
    assert texts(first_of(WinoGrande(), open_row))[0] == ("Ann ", "left.")
    assert texts(first_of(WinoGrande(prompts="harness"), open_row))[0] == ("Ann  ", "left.")


def test_the_rest_of_a_sentence_begins_after_its_first_gap():
    row = {"sentence": "So _ won _ prizes .", "option1": "Ann", "option2": "Bob", "answer": "2"}
    example = first_of(WinoGrande(), row)
    assert (example.contexts, example.prompt, example.completion) == (
        ("So Ann ", "So Bob "),
        "So Bob ",
        "won _ prizes .",
    )


def test_boolq_leaves_the_hubs_question_as_it_is():
    assert "is it tea??" in first_of(BoolQ(), {"passage": "Tea.", "question": "is it tea?", "answer": True}).prompt


# ---- scoring ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "evaluator"),
    [
        ("piqa", Choice()),
        ("winogrande:score=acc", Choice(normalise="none", open_end=True)),
        ("hellaswag:score=acc_norm", Choice(normalise="character", open_end=True)),
        ("bbh", ExactMatch(max_new_tokens=128, normalise="bbh", stop=("\n\n",))),
        ("bbh:prompts=harness,max_new_tokens=3",
         ExactMatch(max_new_tokens=3, normalise="none", stop=("</s>", "Q", "\n\n"))),
    ],
)  # fmt: skip
def test_the_metric_follows_from_the_options(spec, evaluator):
    assert BENCHMARKS.parse(spec).evaluator == evaluator


# ---- few shots ----------------------------------------------------------------------------------------


def test_shots_are_the_first_rows_and_are_not_scored():
    found = PIQA(shots=2).examples(rows(OURS["piqa"]))
    assert [example.prompt for example in found] == [
        "Question: dry a cup\nAnswer: rub it with a towel\n\n"
        "Question: open a jar.\nAnswer: turn the lid\n\n"
        "Question: cool soup\nAnswer: "
    ]


def test_shots_come_from_rows_to_train_on_where_there_are_some():
    found = WinoGrande(shots=1).examples(rows(OURS["winogrande"]), rows(OURS["winogrande"][2:]))
    assert len(found) == 3
    assert found[0].contexts == tuple(
        f"Ann paid Bob as Ann owed tea.\n\nThe cup was full because the {name} " for name in ("cup", "jug")
    )


@pytest.mark.parametrize(("n", "train"), [(3, 0), (2, 1)])
def test_too_few_rows_for_the_shots_are_refused(n, train):
    with pytest.raises(EvaluationError) as caught:
        PIQA(shots=n).examples(rows(OURS["piqa"]), rows(OURS["piqa"][:train]))
    found = "1 rows to train on" if train else "3 rows in all, and those shown aren't scored"
    assert str(caught.value) == (
        f"error[E-EVAL] rows.jsonl:1: piqa: shots={n}, but there are {found}. Ask for fewer shots, or give more rows."
    )


# ---- BBH ----------------------------------------------------------------------------------------------


def two_subtasks(n):
    return rows(
        [{"subtask": name, "input": f"{name} {i}", "target": str(i)} for i in range(n) for name in ("add", "sub")]
    )


@pytest.mark.parametrize(
    ("prompts", "prompt"),
    [
        ("paper", "Solve the following problem: add 0\nAnswer: 0\n\nSolve the following problem: add 1\nAnswer: "),
        ("harness", "Q: add 0\nA: 0\n\nQ: add 1\nA: "),
    ],
)
def test_bbh_shows_the_subtasks_first_rows(prompts, prompt):
    found = BBH(shots=1, prompts=prompts).examples(two_subtasks(3))
    assert found[0].prompt == prompt
    assert [example.completion for example in found] == ["1", "2", "1", "2"]


def test_bbh_can_score_what_it_shows_as_the_papers_code_does():
    found = BBH(shots=1, score_shots=True).examples(two_subtasks(2))
    assert [example.completion for example in found] == ["0", "1", "0", "1"]
    assert found[0].prompt.endswith("add 0\nAnswer: 0\n\nSolve the following problem: add 0\nAnswer: ")


def test_bbh_draws_by_its_seed_and_never_what_it_shows():
    whole = BBH(shots=2, n_examples=None).examples(two_subtasks(50))
    drawn = [BBH(shots=2, n_examples=20, seed=seed).examples(two_subtasks(50)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(whole) == 96
    assert all(len(set(found)) == 20 and set(found) < set(whole) for found in drawn)
    assert list(drawn[0]) == [example for example in whole if example in drawn[0]], "in the order of the rows"


def test_braces_of_a_question_are_no_template():
    assert "{x} {}" in BBH(shots=0).examples(rows([{"input": "{x} {}", "target": "x"}]))[0].prompt


# ---- rows that are none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("benchmark", "change", "message"),
    [
        (PIQA(), {"label": -1}, "'label' is -1, expected a number from 0 to 1. Fix the row; a part whose answers are "
         "kept back can't be scored: use another part."),
        (PIQA(), {"choices": ["a"]}, "'choices' must be a list of at least two texts, found list ['a']. Fix the row."),
        (PIQA(), {"question": None}, "'question' is empty. Fill it, or leave the row out."),
        (ArcEasy(), {"choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"},
         "'answerKey' is 'C', expected one of A, B. Fix the row; a part whose answers are kept back can't be scored: "
         "use another part."),
        (ArcEasy(), {"choices": {"text": ["a", "b"], "label": ["A", "B", "C"]}, "answerKey": "C"},
         "'choices' has 2 texts and 3 labels. Give each option one letter."),
        (BoolQ(), {"passage": "Tea.", "choices": ["yes", "no"]}, "'choices' is ['yes', 'no'], expected ['no', 'yes']. "
         "Order them so."),
        (WinoGrande(), {"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"},
         "'sentence' has no gap '_' with text after it. Fix the row."),
        (HellaSwag(), {**WIKIHOW, "endings": ["[a]", "b"]},
         "a text is empty once what stands in brackets is taken out. Leave the row out."),
    ],
)  # fmt: skip
def test_a_row_that_is_none_is_refused(benchmark, change, message):
    with pytest.raises(LoraryError) as caught:
        benchmark.examples(rows([{**OURS["piqa"][0], **change}]))
    assert str(caught.value) == f"error[E-DATA] rows.jsonl:1: {message}"


def test_the_wrong_number_of_shots_is_refused():
    with pytest.raises(LoraryError, match=r"E-OPTION\] piqa: shots=-1, expected 0 or more"):
        PIQA(shots=-1)
