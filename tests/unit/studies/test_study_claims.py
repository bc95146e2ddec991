"""Claims that one row is better than another, judged over examples, tasks and seeds."""

import math
from dataclasses import dataclass, replace

import pytest
from fake_scores import fake_scores, on_tasks

from lorary.studies.comparing.paper_claims import Claim, over_tasks
from lorary.studies.contract import Results, Study, Verdict
from lorary.studies.seeds import joined, judged_by_seed, over_seeds

CLAIM = Claim("C1", "one is better", "they found so", "take it", "all", "one", "two")
ALIKE = replace(CLAIM, margin=0.1)
EVEN = [0.0] * 8


def judged(claim, one, two, **how):
    rows = {"one": fake_scores("one", on_tasks(one), **how), "two": fake_scores("two", on_tasks(two), **how)}
    return claim.judge(Results({"all": rows}))


@pytest.mark.parametrize(
    ("one", "higher", "outcome"),
    [
        ([-1.0] * 8, False, "holds"),
        ([1.0] * 8, False, "fails"),
        ([1.0] * 8, True, "holds"),
        ([-1.0, 1.0] * 4, False, "can't tell"),
        ([-9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], False, "holds in sign"),
    ],
)
def test_a_claim_holds_over_examples_and_over_tasks(one, higher, outcome):
    assert judged(CLAIM, one, EVEN, higher=higher).outcome == outcome


def test_fewer_than_six_tasks_say_nothing_of_others():
    found = judged(CLAIM, [-1.0] * 5, [0.0] * 5)
    assert (found.outcome, found.only_in_sign) == ("holds in sign", True)
    assert "too few tasks" in found.numbers
    assert math.isnan(over_tasks(*(fake_scores("x", on_tasks([0.0] * 5)) for _ in range(2)))[0])


def test_better_is_more_in_the_interval_whatever_the_metric():
    lower, higher = judged(CLAIM, [-1.0] * 8, EVEN), judged(CLAIM, [1.0] * 8, EVEN, higher=True)
    assert lower.interval == pytest.approx((1, 1, 1))
    assert higher.interval == pytest.approx((1, 1, 1))
    assert (lower.paper, lower.meaning) == ("they found so", "take it")


@pytest.mark.parametrize(("shift", "outcome"), [(0.05, "holds"), (0.5, "fails"), (-0.5, "fails")])
def test_that_neither_is_better_needs_an_interval_inside_the_margin(shift, outcome):
    assert judged(ALIKE, [shift] * 8, EVEN).outcome == outcome


def test_an_interval_that_crosses_the_margin_tells_nothing():
    one = {f"t{i}": [x + (0.4 if x % 2 else -0.35) for x in range(8)] for i in range(8)}
    rows = {"one": fake_scores("one", one), "two": fake_scores("two", on_tasks(EVEN))}
    assert ALIKE.judge(Results({"all": rows})).outcome == "can't tell"


def test_a_row_that_was_not_measured_is_named():
    found = CLAIM.judge(Results({"all": {"two": fake_scores("two", on_tasks(EVEN))}}))
    assert (found.outcome, found.numbers) == ("can't tell", "one on all was not measured.")


# ---- seeds --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judging(Study):
    """Judges one claim."""

    def plan(self, subject):
        raise NotImplementedError

    def judge(self, results):
        return [CLAIM.judge(results)]


def run_of(shift):
    rows = {"one": fake_scores("one", on_tasks([shift] * 8)), "two": fake_scores("two", on_tasks(EVEN))}
    return Results({"all": rows})


def test_a_claim_on_whose_sign_the_seeds_do_not_agree_can_not_be_told():
    (agreed,) = judged_by_seed(_Judging(), run_of(-1.0), [run_of(-0.5), run_of(-1.5)])
    assert agreed.outcome == "holds"
    assert "By seed: +0.5, +1.5." in agreed.numbers
    (split,) = judged_by_seed(_Judging(), run_of(-1.0), [run_of(0.5), run_of(-2.5)])
    assert split.outcome == "can't tell"
    assert split.numbers.endswith("By seed: -0.5, +2.5. The seeds don't agree.")


def test_a_single_run_is_judged_as_it_is():
    assert judged_by_seed(_Judging(), run_of(-1.0), [run_of(-1.0)]) == _Judging().judge(run_of(-1.0))


def test_rows_that_only_the_first_seed_has_stay_as_they_are():
    first, second = run_of(-1.0), Results({"all": {"one": run_of(-3.0)["all"]["one"]}})
    means = over_seeds([first, second])["all"]
    assert means["one"].per_task() == pytest.approx(run_of(-2.0)["all"]["one"].per_task())
    assert means["two"].outcomes == first["all"]["two"].outcomes
    (verdict,) = judged_by_seed(_Judging(), over_seeds([first, second]), [first, second])
    assert verdict.numbers.endswith("By seed: +1.")


def test_scores_on_several_tasks_join_into_a_row():
    parts = [fake_scores("row", {"b": [1.0, 2.0]}), fake_scores("row", {"a": [3.0]})]
    whole = joined(parts)
    assert (list(whole.header["tasks"]), whole.metric, whole.mean) == (["a", "b"], "perplexity", 2.25)
    mixed = joined([parts[0], fake_scores("row", {"c": [0.0]}, metric="rouge_l")])
    assert mixed.metric == "score"
    assert joined(parts[:1]) is parts[0]


def test_a_verdict_says_where_it_holds():
    assert str(Verdict("x", True, "n.", only_in_sign=True)) == "x: true here on these tasks, perhaps not on others. n."
