"""Experts whose q, k and v share one A: from the first training to what starts from them."""

import pytest
import torch

from lorary.building.build import build
from lorary.building.builders.lib_mu import LibMu
from lorary.building.builders.lib_poly import LibPoly
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.errors import OptionError
from lorary.formats.peft import read_experts

QKV = ("q_proj", "k_proj", "v_proj")
QUICK = {"steps": 3, "batch_size": 2, "n_evaluations": 1, "lr": 0.01}


def is_tied(expert):
    sites = [site for site in expert if site.endswith("q_proj")]
    others = [site.replace("q_proj", name) for site in sites for name in QKV[1:]]
    same = {torch.equal(expert[site].a, expert[f"{site.rpartition('.')[0]}.q_proj"].a) for site in others}
    assert len(same) == 1
    return same.pop()


@pytest.fixture(scope="module")
def tied(_pico, toy, tmp_path_factory):
    return build(Private(**QUICK, tie=QKV), toy.only(["copy", "swap"]), _pico, into=tmp_path_factory.mktemp("t") / "l")


def test_a_tied_library_stays_tied_where_it_is_said(tied, base, toy, tmp_path):
    new = toy.only(["upper"])
    assert all(map(is_tied, read_experts(tied).values()))
    mean, apart = (
        read_experts(build(LibMu(**QUICK, tie=tie), new, base, source=tied, into=tmp_path / f"mu{len(tie)}"))["upper"]
        for tie in (QKV, ())
    )
    assert is_tied(mean) and not is_tied(apart)
    poly = build(LibPoly(**QUICK, tie=QKV), new, base, source=tied, into=tmp_path / "poly")
    assert all(map(is_tied, read_experts(poly).values()))


def test_skills_are_tied_too(base, toy, tmp_path):
    experts = read_experts(build(Poly(**QUICK, n_skills=2, tie=QKV), toy.only(["copy"]), base, into=tmp_path / "lib"))
    assert all(map(is_tied, experts.values()))
    assert not torch.equal(*[next(iter(expert.values())).a for expert in experts.values()])


def test_experts_with_a_s_of_their_own_are_not_tied(base, toy, tmp_path):
    apart = build(Private(**QUICK), toy.only(["copy"]), base, into=tmp_path / "apart")
    assert not is_tied(read_experts(apart)["copy"])
    with pytest.raises(OptionError, match="an expert that this starts from has another A at 'model.layers.0.self_attn"):
        build(LibMu(**QUICK, tie=QKV), toy.only(["swap"]), base, source=apart, into=tmp_path / "mu")


def test_a_tie_of_layers_that_aren_t_there_is_refused_before_anything_runs(base, toy, tmp_path):
    with pytest.raises(OptionError, match="'k_proj' is no layer beside another of these"):
        build(Private(**QUICK, targets=("q_proj",), tie=QKV[:2]), toy.only(["copy"]), base, into=tmp_path / "lib")
    assert not (tmp_path / "lib").exists()
