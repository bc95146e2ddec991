"""Which strategy is taken: the rule, what was measured, what the environment says."""

import json
from dataclasses import replace

import pytest
import torch

from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing import tuning
from lorary.adapters.mixing.tuning import STRATEGIES, TOKENS, Plan
from lorary.errors import OptionError

FLOAT, HALF = torch.float32, torch.bfloat16


@pytest.mark.parametrize(
    ("n_rows", "n_tokens", "n_kept", "dtype", "expected"),
    [
        (32, 1, 4, FLOAT, "dense"),
        (32, 512, 4, FLOAT, "dense"),
        (1024, 1, 4, FLOAT, "gathered"),
        (1024, 8, 4, FLOAT, "chosen"),
        (1024, 512, 4, FLOAT, "chosen"),
        (1024, 512, 256, FLOAT, "dense"),
        (256, 512, 4, HALF, "dense_in"),
        (256, 8, 4, HALF, "chosen"),
        (1024, 512, 4, HALF, "chosen"),
    ],
)
def test_the_rule(n_rows, n_tokens, n_kept, dtype, expected):
    assert Plan(n_rows, rank=4).choose(n_tokens, n_kept, dtype) == expected


def test_what_was_measured_comes_before_the_rule_for_the_number_kept():
    plan = Plan(1024, rank=4, n_kept=4, measured=("dense", "gathered", "dense_in", "chosen"))
    found = [plan.choose(n, 4, FLOAT) for n in (1, 2, 3, 22, 23, 181, 182, 10**6)]
    assert found == ["dense", "dense", "gathered", "gathered", "dense_in", "dense_in", "chosen", "chosen"]
    assert plan.choose(1, 2, FLOAT) == "gathered", "measured for four"


def bank(n=64, d=40):
    return LowRankBank([Weights(torch.randn(4, d), torch.randn(d, 4), 1.0)] * n, Site("layer", d, d))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "strategies-2.json"


def slow_but(best):
    return lambda run, strategy, n_tokens, device, warm=False: 1.0 if strategy == best[n_tokens] else 2.0


def test_a_bank_is_measured_once(cache, monkeypatch):
    best = dict(zip(TOKENS, ("dense", "gathered", "dense_in", "chosen"), strict=True))
    monkeypatch.setattr(tuning, "_seconds", slow_but(best))
    first = bank()
    first.tune(4)
    assert first.plan.measured == tuple(best.values())
    (kept,) = json.loads(cache.read_bytes()).items()
    assert "rows=256 rank=4 kept=4 40->40 torch.float32" in kept[0] and kept[1] == list(best.values())

    monkeypatch.setattr(tuning, "_seconds", None)  # whoever measures again fails
    for n in (64, 60):
        again = bank(n)
        again.tune(4)
        assert again.plan.measured == first.plan.measured


def test_the_rule_stands_unless_another_is_clearly_faster(cache, monkeypatch):
    seconds = {"dense": 0.95, "dense_in": 2.0, "chosen": 1.0, "gathered": 1.0}
    monkeypatch.setattr(tuning, "_seconds", lambda run, strategy, n_tokens, device, warm=False: seconds[strategy])
    one = bank()
    one.tune(4)
    assert one.plan.measured == ("gathered", "chosen", "chosen", "chosen")


def test_measuring_for_real_names_known_strategies_and_changes_nothing(cache):
    one = bank()
    before = one.a.clone()
    one.tune(2)
    assert one.plan.measured is not None and set(one.plan.measured) <= set(STRATEGIES)
    assert torch.equal(one.a, before)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}', '{"x": ["dense"]}', '{"x": ["?", "?", "?", "?"]}'])
def test_a_damaged_cache_counts_as_empty(content, cache, monkeypatch):
    monkeypatch.setattr(tuning, "_seconds", slow_but(dict.fromkeys(TOKENS, "dense")))
    cache.parent.mkdir()
    cache.write_text(content)
    one = bank()
    one.tune(4)
    assert one.plan.measured == ("dense",) * len(TOKENS)
    assert len(json.loads(cache.read_bytes())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "file"))
    one = bank()
    one.tune(4)
    assert one.plan.measured is not None


@pytest.mark.parametrize("reason", ["small", "rule", "all experts"])
def test_what_is_not_worth_it_is_not_measured(reason, cache, monkeypatch):
    monkeypatch.setattr(tuning, "_seconds", None)
    monkeypatch.setenv("LORARY_STRATEGY", "rule" if reason == "rule" else "auto")
    one = bank(2, 8) if reason == "small" else bank()
    one.tune(None if reason == "all experts" else 2)
    assert one.plan.measured is None
    assert not cache.exists()


def test_the_environment_can_prescribe_a_strategy(monkeypatch):
    monkeypatch.setenv("LORARY_STRATEGY", "dense_in")
    plan = replace(bank().plan, n_kept=4, measured=("dense",) * len(TOKENS))
    assert plan.choose(1, 4, FLOAT) == "dense_in"


def test_an_unknown_prescription_is_an_error(monkeypatch):
    monkeypatch.setenv("LORARY_STRATEGY", "chosn")
    with pytest.raises(OptionError) as caught:
        bank()
    assert str(caught.value) == (
        "error[E-OPTION] unknown LORARY_STRATEGY 'chosn'. Did you mean 'chosen'? "
        "Known: auto, rule, dense, dense_in, chosen, gathered, kernel."
    )
