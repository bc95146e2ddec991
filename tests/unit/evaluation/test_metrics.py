import math
from dataclasses import replace
from typing import ClassVar

import pytest

from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.contract import LogLikelihood, Place
from lorary.evaluation.evaluators.choice import Choice
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.folder import EVALUATORS
from lorary.options import as_dict, to_spec
from lorary.tasks.example import Example, Message


class Scripted:
    """A fake model that says what it is told to, and notes what it was asked."""

    def __init__(self, answers=(), likelihoods=()):
        self.answers, self.likelihoods = list(answers), [LogLikelihood(*pair) for pair in likelihoods]
        self.identity = {}
        self.asked = []

    def generate_text(self, examples, *, max_new_tokens):
        self.asked.append((len(examples), max_new_tokens))
        return self.answers

    def log_likelihood(self, examples, **options):
        self.asked.append([example.completion for example in examples])
        self.scored, self.options = list(examples), options
        return self.likelihoods


def test_rouge_l_stems_and_takes_the_best_reference():
    example = Example("?", "no", "t", references=("nothing alike", "the cats were running"))
    [outcome] = RougeL().score(model := Scripted(["the cat running"]), [example])
    assert outcome.value == pytest.approx(100 * 2 * (3 / 3) * (3 / 4) / (3 / 3 + 3 / 4))
    assert outcome.details == {
        "prediction": "the cat running",
        "references": ["nothing alike", "the cats were running"],
    }
    assert model.asked == [(1, 64)]


@pytest.mark.parametrize(
    ("answer", "plain", "normalised"),
    [("yes", 100, 100), (" Yes. ", 0, 100), ("the  YES", 0, 0), ("no", 0, 0), ("Paris, France", 0, 100), ("", 0, 0)],
)
def test_exact_match_takes_any_reference(answer, plain, normalised):
    example = Example("?", "yes", "t", references=("yes", "paris france"))
    assert ExactMatch().score(Scripted([answer]), [example])[0].value == normalised
    assert ExactMatch(normalise=False).score(Scripted([answer]), [example])[0].value == plain


DIFFERENT = [
    ("-5", "5"), ("1.5", "15"), ("3/4", "34"), ("2-1", "21"), ("x<y", "x>y"), ("a+b", "a-b"), ("5%", "5"), ("C++", "C"),
    ("C#", "C"), (".5", "5"), ("$5", "5"), ("1,000", "1000"), ("1, 2", "1 2"), ("5!", "5"), ("n!", "n"), ("[1]", "1"),
    ("x'", "x"), ("} ]", "} )"), (".", "?"), ("", "."), ('"', ""), ("(a)(b)", "ab"), ("a.b", "ab"), ("don't", "dont"),
]  # fmt: skip
ALIKE = [
    ("Paris.", "paris"), ("The  answer", "the answer"), ("(A)", "a"), ("(12)", "12"), ("-5.", "-5"),
    ('"Paris."', "Paris"),
    ('"Paris".', "Paris"), ("“Oui!”", "oui"), ("C++.", "c++"), ("Yes!", "yes"), ("Paris, France.", "paris france"),
    ("Wait ...", "wait"), ("1.5.", "1.5"), ("\nParis\n", "Paris"), ("'(b).'", "b"),
]  # fmt: skip


def test_exact_match_keeps_what_makes_a_number_or_a_symbol_another():
    judge, bbh = ExactMatch().judge, ExactMatch(normalise="bbh").judge
    assert [pair for pair in DIFFERENT if judge(pair[0], [pair[1]]) or judge(pair[1], [pair[0]])] == []
    assert [pair for pair in ALIKE if not (judge(pair[0], [pair[1]]) and judge(pair[1], [pair[0]]))] == []
    assert bbh("-5", ["5"]) and bbh("(a) Paris,  France.", ["A paris france"]) and not bbh("-", ["+"])


def test_exact_match_has_a_rule_for_each_way_to_write_it():
    specs = {"true": "text", "True": "text", "false": "none", "text": "text", "bbh": "bbh", "none": "none"}
    for written, rule in specs.items():
        assert EVALUATORS.parse(f"exact_match:normalise={written}").normalise == rule
    assert ExactMatch(normalise=True) == ExactMatch() and to_spec(ExactMatch(normalise=True)) == "exact_match"
    with pytest.raises(OptionError, match="expected true or false or text or bbh or none"):
        ExactMatch(normalise="mttl")


def test_exact_match_tells_punctuation_from_punctuation():
    assert ExactMatch().score(Scripted(["-"]), [Example("?", "+")])[0].value == 0
    assert ExactMatch().score(Scripted([""]), [Example("?", "+")])[0].value == 0
    assert ExactMatch().score(Scripted([" + "]), [Example("?", "+")])[0].value == 100


@pytest.mark.parametrize(
    ("normalise", "prediction"), [("token", "long word"), ("byte", "øøøøø"), ("character", "long word"), ("none", "a")]
)
def test_choice_normalises_by_tokens_bytes_characters_or_nothing(normalise, prediction):
    example = Example("?", prediction, "t", choices=("a", "long word", "øøøøø"))
    model = Scripted(likelihoods=[(-2.0, 2), (-3.6, 6), (-2.1, 3)])
    [outcome] = Choice(normalise).score(model, [example])
    assert (outcome.details["prediction"], outcome.value) == (prediction, 100.0)
    assert model.asked == [["a", "long word", "øøøøø"]]


def test_byte_normalisation_counts_utf8_bytes():
    [outcome] = Choice("byte").score(
        Scripted(likelihoods=[(-3.0, 1), (-3.0, 1)]), [Example("?", "aa", choices=("aa", "øø"))]
    )
    assert outcome.details["scores"] == [-1.5, -0.75]


def test_choice_gives_a_tie_to_the_first():
    example = Example("?", "a", "t", choices=("a", "b"))
    [outcome] = Choice().score(Scripted(likelihoods=[(-2.0, 1), (-4.0, 2)]), [example])
    assert outcome.details["prediction"] == "a"


def test_choice_scores_contexts_by_the_completion_they_share():
    contexts = ("Ann was late since Ann", "Ann was late since Eve")
    examples = [Example(contexts[1], " slept.", "wino", contexts=contexts), Example("?", "b", choices=("a", "b"))]
    model = Scripted(likelihoods=[(-4.0, 2), (-3.0, 2), (-1.0, 1), (-2.0, 1)])
    outcomes = Choice().score(model, examples)
    assert [outcome.value for outcome in outcomes] == [100.0, 0.0]
    assert outcomes[0].details == {"prediction": contexts[1], "scores": [-2.0, -1.5]}
    assert model.scored[:2] == [Example(context, " slept.", "wino") for context in contexts]
    assert Choice().score(model, [replace(examples[0], prompt=contexts[0]), examples[1]])[0].value == 0.0


def test_choice_asks_for_an_open_end_only_where_it_is_wanted():
    example, model = Example("?", "a", choices=("a", "b")), Scripted(likelihoods=[(-1.0, 1), (-2.0, 1)])
    for evaluator, options in ((Choice(), {}), (Choice(open_end=True), {"open_end": True})):
        evaluator.score(model, [example])
        assert model.options == options
    assert as_dict(Choice()) == {"name": "choice", "normalise": "token"}  # runs from before are continued
    assert as_dict(Choice("none", open_end=True)) == {"name": "choice", "normalise": "none", "open_end": True}


def test_choice_asks_for_all_examples_at_once():
    examples = [Example("1", "a", choices=("a", "b", "c")), Example("2", "d", choices=("c", "d"))]
    model = Scripted(likelihoods=[(-1, 1), (-2, 1), (-3, 1), (-1, 1), (-9, 1)])
    assert [outcome.value for outcome in Choice().score(model, examples)] == [100.0, 0.0]
    assert len(model.asked) == 1


def test_choice_refuses_what_is_no_choice():
    with pytest.raises(EvaluationError) as caught:
        Choice().score(Scripted(), [Example("Why?", "so", "riddles")])
    assert str(caught.value) == (
        "error[E-EVAL] task 'riddles': metric 'choice' needs at least two choices, found 0 at 'Why?'. "
        "Give the examples `choices`, or use exact_match."
    )
    with pytest.raises(EvaluationError, match=r"prompt 'Why\?' is not among the contexts \['Who\?', 'How\?'\]"):
        Choice().check([Example("Why?", "so", contexts=("Who?", "How?"))])
    for other in ({"choices": ("so", "no")}, {"messages": (Message("user", "Why?"),)}):
        with pytest.raises(EvaluationError, match="contexts and " + next(iter(other))):
            Choice().check([Example("Why?", "so", contexts=("Why?", "How?"), **other)])
    with pytest.raises(EvaluationError) as caught:
        Choice().score(Scripted(), [Example("Why?", "so", "riddles", choices=("So", "no"))])
    assert str(caught.value) == (
        "error[E-EVAL] task 'riddles': completion 'so' is not among the choices ['So', 'no'] at 'Why?'. "
        "Make `completion` one of `choices`, letter for letter."
    )


def test_perplexity_is_nats_per_token():
    [outcome] = Perplexity().score(Scripted(likelihoods=[(-6.0, 3)]), [Example("?", "yes")])
    assert outcome.value == 2.0
    assert outcome.details == {"nats": -6.0, "n_tokens": 3}


@pytest.mark.parametrize("evaluator", [Perplexity(), Choice()])
def test_values_that_are_no_numbers_name_task_and_example(evaluator):
    example = Example("?", "a", choices=("a", "b"))
    model = Scripted(likelihoods=[(math.nan, 1)] * (2 if isinstance(evaluator, Choice) else 1))
    with pytest.raises(EvaluationError) as caught:
        evaluator.score_places(model, [Place("odd", 2, example)])
    assert str(caught.value) == (
        "error[E-EVAL] task 'odd', example 2: value is nan, expected a finite number. "
        "Look for NaN in the experts' weights (`lorary show`), or load the base in a wider dtype."
    )


@pytest.mark.parametrize("metric", ["rouge_l", "exact_match"])
@pytest.mark.parametrize("n", [0, -5])
def test_answers_without_a_token_are_refused(metric, n):
    with pytest.raises(OptionError) as caught:
        EVALUATORS.parse(f"{metric}:max_new_tokens={n}")
    assert str(caught.value) == f"error[E-OPTION] {metric}: max_new_tokens={n}, expected 1 or more."


@pytest.mark.parametrize("name", ["exact_match", "rouge_l"])
def test_answers_end_at_stop_texts(name):
    class Model:
        identity: ClassVar = {}

        def generate_text(self, examples, **asked):
            self.asked = asked
            return [example.completion for example in examples]

    model, examples = Model(), [Example("a", "b")]
    EVALUATORS.parse(name).score(model, examples)
    assert model.asked == {"max_new_tokens": 64}  # a model that knows no stop texts serves
    EVALUATORS.parse(f'{name}:stop=("\\n\\n","Q:")').score(model, examples)
    assert model.asked == {"max_new_tokens": 64, "stop": ("\n\n", "Q:")}
