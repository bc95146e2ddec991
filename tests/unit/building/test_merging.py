"""Merges in the space of the products: shares, truncation, lots, and what is refused."""

import pytest
import torch

from lorary.adapters.contract import Weights
from lorary.building.build import build
from lorary.building.builders.svd import Svd
from lorary.errors import LoraryError
from lorary.folder import BUILDERS
from lorary.formats.peft import read_weights
from lorary.library.library import Library
from lorary.tasks.task import Tasks
from lorary.testing.pico import pico_base, random_library

NOTHING = Tasks([])
NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, NAMES, ranks=[2, 4, 3])


def deltas(expert):
    return {site: w.delta() for site, w in read_weights(expert).items()}


def merge(spec, library, base, tmp_path):
    return build(spec, NOTHING, base, source=library, into=tmp_path / "merged")


def test_uniform_is_the_mean_and_says_where_it_comes_from(library, base, tmp_path):
    merged = merge("uniform:called=all", library, base, tmp_path)["all"]
    parts = [deltas(library[name]) for name in NAMES]
    for site, found in deltas(merged).items():
        torch.testing.assert_close(found, sum(part[site] for part in parts) / 3, atol=1e-6, rtol=1e-5)
    facts = merged.provenance
    assert merged.rank == 9 and facts.steps == 0
    assert facts.tasks == tuple(NAMES)
    assert facts.parents == tuple(f"{name}@{library[name].hash[:12]}" for name in NAMES)
    assert facts.builder == {"name": "uniform", "experts": [], "rank": None, "called": "all"}


def test_weights_go_with_the_experts_as_they_are_named(library, base, tmp_path):
    merged = merge("weighted:experts=[cat,ant],weights=[2,-1]", library, base, tmp_path)["merged"]
    cat, ant = deltas(library["cat"]), deltas(library["ant"])
    for site, found in deltas(merged).items():
        torch.testing.assert_close(found, 2 * cat[site] - ant[site], atol=1e-5, rtol=1e-5)
    assert merged.provenance.tasks == ("ant", "cat")


def test_a_rank_truncates_to_the_nearest_and_says_its_error(library, base, tmp_path):
    merged = merge("uniform:rank=3", library, base, tmp_path)["merged"]
    parts = [deltas(library[name]) for name in NAMES]
    lost = whole = 0.0
    for site, found in deltas(merged).items():
        full = sum(part[site] for part in parts) / 3
        u, s, vh = torch.linalg.svd(full.double(), full_matrices=False)
        torch.testing.assert_close(found, ((u[:, :3] * s[:3]) @ vh[:3]).float(), atol=1e-5, rtol=1e-4)
        lost, whole = lost + float((full - found).pow(2).sum()), whole + float(full.pow(2).sum())
    assert merged.rank == 3
    assert merged.provenance.metrics["relative_error"] == pytest.approx((lost / whole) ** 0.5, rel=1e-4)


def test_of_equal_entries_ties_keeps_the_share_that_it_says():
    """Rank 1 of ones: 20 of 100 stay, as in PEFT; a floor would keep none, or all."""
    kept = BUILDERS.parse("ties:density=0.2")._trimmed(Weights(torch.ones(1, 10), torch.ones(10, 1), 1.0))
    assert kept.tolist() == [[1.0] * 10] * 2 + [[0.0] * 10] * 8
    few = Weights(torch.tensor([[3.0, -2.0, 2.0, 2.0, 0.0]]), torch.ones(1, 1), 1.0)
    assert BUILDERS.parse("ties:density=0.6")._trimmed(few).tolist() == [[3.0, -2.0, 2.0, 0.0, 0.0]]


def test_ties_by_hand():
    """Three experts of one entry row; trimmed to 2 of 4, signs by the sum, mean of those that agree."""
    from lorary.adapters.contract import Weights

    rows = {"a": [3.0, -2.0, 1.0, 0.0], "b": [-1.0, -4.0, 0.5, 5.0], "c": [-6.0, 0.1, 0.2, 7.0]}
    parts = {name: Weights(torch.tensor([row]), torch.ones(1, 1), 1.0) for name, row in rows.items()}
    found = BUILDERS.parse("ties:density=0.5").combine(parts, sorted(parts), "site")
    # trimmed: a [3 -2 0 0], b [0 -4 0 5], c [-6 0 0 7]; sums -3 -6 0 12; agreeing: c; a and b; none; b and c
    expected = torch.tensor([[-6.0, -3.0, 0.0, 6.0]])
    torch.testing.assert_close((found.u * found.s @ found.v.T).float(), expected)


def test_dare_draws_by_name_and_keeps_the_mean(library, base, tmp_path):
    one = merge("dare:density=0.5,experts=[ant]", library, base, tmp_path / "one")["merged"]
    two = merge("dare:density=0.5,experts=[ant],seed=7", library, base, tmp_path / "two")["merged"]
    whole = deltas(library["ant"])
    kept = [(f, whole[site]) for site, f in deltas(one).items()]
    found, full = (torch.cat([pair[i].flatten() for pair in kept]) for i in range(2))
    is_kept = found.abs() > 1e-4
    torch.testing.assert_close(found[is_kept], 2 * full[is_kept], atol=1e-3, rtol=1e-3)
    assert 0.45 < is_kept.float().mean() < 0.55
    assert not torch.allclose(next(iter(deltas(one).values())), next(iter(deltas(two).values())))


def test_svd_gives_all_experts_one_rank(library, base, tmp_path):
    made = merge("svd:rank=2", library, base, tmp_path)
    assert {name: made[name].ranks[site] for name in made for site in made[name].ranks} == dict.fromkeys(NAMES, 2)
    assert made["ant"].provenance.metrics["relative_error"] < 1e-6 < made["bee"].provenance.metrics["relative_error"]
    for site, found in deltas(made["ant"]).items():
        torch.testing.assert_close(found, deltas(library["ant"])[site], atol=1e-6, rtol=1e-5)


def test_svd_fills_up_what_is_of_lower_rank(library, base, tmp_path):
    """So that they can be mixed by their factors, whatever the rank that was asked for."""
    made = merge("svd:rank=40", library, base, tmp_path)
    assert {name: made[name].ranks[site] for name in made for site in made[name].ranks} == dict.fromkeys(NAMES, 40)
    for name in NAMES:
        for site, found in deltas(made[name]).items():
            torch.testing.assert_close(found, deltas(library[name])[site], atol=1e-5, rtol=1e-4)
    (job,) = Svd(rank=40, experts=("ant",)).plan(Tasks([]), library)
    stored = sum(w.a.numel() + w.b.numel() for w in read_weights(made["ant"]).values())
    assert Svd(rank=40).n_numbers(job, base) == stored


def test_a_changed_source_is_another_job(library, base, tmp_path):
    merge("uniform", library, base, tmp_path)
    library.remove("cat")
    with pytest.raises(LoraryError, match=r"E-EXISTS\] library .* holds an expert 'merged' that was built with other"):
        merge("uniform", Library.open(library.path), base, tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("weighted:weights=[1,2]", "error[E-OPTION] weighted: 2 weights for 3 experts: ant, bee, cat."),
        ("uniform:experts=[dog]", "error[E-NAME] unknown expert 'dog'. Known: ant, bee, cat."),
        ("uniform:experts=[ant,ant]", "error[E-OPTION] experts: 'ant' is given twice."),
        ("uniform:rank=0", "error[E-OPTION] uniform: rank=0, expected more than 0."),
        ("uniform:rank=600", "error[E-OPTION] uniform: rank=600, expected at most 512."),
        ("ties:strength=nan", "error[E-OPTION] ties: strength=nan, expected a finite number."),
        ("dare:strength=inf", "error[E-OPTION] dare: strength=inf, expected a finite number."),
        ("dare:seed=-1", "error[E-OPTION] dare: seed=-1, expected a whole number from 0 to 4294967295."),
        ("weighted:weights=[1,nan,1]", "error[E-OPTION] weighted: weights=(1.0, nan, 1.0), expected a finite number."),
        ("ties:density=0", "error[E-OPTION] ties: density=0.0, expected a share above 0 and up to 1."),
        ("dare:density=1.5", "error[E-OPTION] dare: density=1.5, expected a share above 0 and up to 1."),
    ],
)
def test_what_can_not_be_merged_is_refused(spec, message, library, base, tmp_path):
    with pytest.raises(LoraryError) as caught:
        merge(spec, library, base, tmp_path)
    assert str(caught.value) == message


@pytest.mark.parametrize("spec", ["weighted:weights=[1e80,1,1]", "weighted:weights=[1e308,1,1]", "ties:strength=1e37"])
def test_a_sum_that_no_adapter_may_hold_is_refused(spec, library, base, tmp_path):
    with pytest.raises(LoraryError, match=r"^error\[E-NONFINITE\] .*site 'model.layers.0.self_attn.k_proj'"):
        merge(spec, library, base, tmp_path)
    assert not Library.open(tmp_path / "merged")


def test_a_merge_is_the_same_whatever_the_base_s_precision(library, base, tmp_path):
    merge("uniform", library, base, tmp_path)
    merge("uniform", library, pico_base(dtype=torch.bfloat16), tmp_path)


def test_merging_nothing_is_refused(base, tmp_path):
    with pytest.raises(LoraryError) as caught:
        build("ties", NOTHING, base, into=tmp_path / "merged")
    assert str(caught.value) == "error[E-SOURCE] ties starts from a library. Pass source=..., or --from LIBRARY."
    empty = Library.create(tmp_path / "empty", base=base.fingerprint)
    with pytest.raises(LoraryError, match=r"E-EMPTY\] ties: library .* holds no experts\. Add or build some\."):
        build("ties", NOTHING, base, source=empty, into=tmp_path / "merged")


def test_a_sum_of_too_high_a_rank_is_refused(library, base, tmp_path, monkeypatch):
    monkeypatch.setattr("lorary.building.merging.merge.MAX_RANK", 8)
    with pytest.raises(LoraryError) as caught:
        merge("uniform", library, base, tmp_path)
    assert str(caught.value) == (
        "error[E-LIMIT] expert 'merged': the sum at 'model.layers.0.self_attn.k_proj' has rank 9, the limit is 8. "
        "Give a rank to truncate to, as in rank=16."
    )


def test_experts_of_another_base_are_refused(library, tmp_path):
    other = pico_base(seed=1)
    with pytest.raises(
        LoraryError, match=r"E-BASE\] library .* was made on another base: weights, embedding_signs differ"
    ):
        merge("uniform", library, other, tmp_path)
    gpt2 = pico_base("gpt2")
    strange = Library.create(tmp_path / "strange")
    library["ant"].copy_to(tmp_path / "ant")
    (tmp_path / "ant" / "expert.json").unlink()
    strange.add(tmp_path / "ant", "ant")
    with pytest.raises(LoraryError, match=r"E-TARGET\] expert 'ant' adapts 'model.layers.0.self_attn.k_proj'"):
        build("svd:rank=2", NOTHING, gpt2, source=strange, into=tmp_path / "merged2")


# ---- what is common, taken out ------------------------------------------------------------------


def test_what_general_experts_add_is_subtracted(library, base, tmp_path):
    """In the space of the products: where a general expert isn't, it is zero; whose tasks they are stays."""
    other = random_library(tmp_path / "other", base, ["wiki"], seed=5, targets=["q_proj", "down_proj"])
    library.add(other["wiki"].directory, "wiki")
    library = Library.open(library.path)
    made = merge("gen_know_sub:general=[ant,wiki],share=0.5", library, base, tmp_path)
    assert list(made) == ["bee", "cat"]
    ant, wiki = deltas(library["ant"]), deltas(library["wiki"])
    for name in made:
        own, found = deltas(library[name]), deltas(made[name])
        assert found.keys() == own.keys() | ant.keys() | wiki.keys()
        for site, delta in found.items():
            expected = sum(
                (factor * part[site] for factor, part in ((1, own), (-0.25, ant), (-0.25, wiki)) if site in part),
                torch.zeros_like(delta),
            )
            torch.testing.assert_close(delta, expected, atol=1e-6, rtol=1e-5)
        facts = made[name].provenance
        assert facts.tasks == (name,) and len(facts.parents) == 3


def test_without_general_experts_the_mean_of_all_is_subtracted(library, base, tmp_path):
    made = merge("gen_know_sub", library, base, tmp_path)
    parts = {name: deltas(library[name]) for name in NAMES}
    left = {name: deltas(made[name]) for name in NAMES}
    for site in left["ant"]:
        mean = sum(part[site] for part in parts.values()) / 3
        for name in NAMES:
            torch.testing.assert_close(left[name][site], parts[name][site] - mean, atol=1e-6, rtol=1e-5)
        assert sum(part[site] for part in left.values()).abs().max() < 1e-5
    assert made["ant"].rank == 9
    again = build("gen_know_sub:rank=2", NOTHING, base, source=library, into=tmp_path / "again")
    assert {expert.rank for expert in again.values()} == {2}
    assert all(0 < expert.provenance.metrics["relative_error"] < 1 for expert in again.values())


@pytest.mark.parametrize(
    ("spec", "code"),
    [("gen_know_sub:experts=[ant]", "E-OPTION"), ("gen_know_sub:general=[ant,bee,cat]", "E-OPTION"),
     ("gen_know_sub:general=[dog]", "E-NAME"), ("gen_know_sub:experts=[ant,ant]", "E-OPTION")],
)  # fmt: skip
def test_nothing_is_left_of_nothing(spec, code, library, base, tmp_path):
    with pytest.raises(LoraryError) as caught:
        merge(spec, library, base, tmp_path)
    assert caught.value.code == code
