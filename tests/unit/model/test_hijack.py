"""One adapter that would answer everything, one that answers nothing, one that is there twice: the user is told."""

import json
import shutil
import warnings

import pytest
import torch

import lorary
from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.cli.main import main
from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.library.sameness import look_for_twins, look_for_zeros
from lorary.model.routed.route import route
from lorary.testing.pico import add_expert, pico_base, random_library, random_weights

SMALL = "compass:n_texts=2,n_tokens=8"


def mean_states(base, sites):
    """The mean input of each site over a text that has nothing to do with the one that is measured."""
    found, hooks = {}, []
    for name in sites:
        module = base.hf.get_submodule(name)
        hooks.append(module.register_forward_pre_hook(lambda _, args, n=name: found.update({n: args[0][0].mean(0)})))
    with torch.inference_mode():
        base.hf(input_ids=torch.tensor([list(range(40, 140))]))
    for hook in hooks:
        hook.remove()
    return found


@pytest.fixture
def base():
    """A base all of whose states have a part in common, as those of trained ones have."""
    base = pico_base(seed=5)
    towards = torch.randn(base.hf.config.hidden_size, generator=torch.Generator().manual_seed(1))
    base.hf.get_input_embeddings().weight.data += 4 * torch.nn.functional.normalize(towards, dim=0)
    return base


@pytest.fixture
def hijacked(base, tmp_path):
    """Seven random experts, and one whose every direction is the mean state."""
    library = random_library(tmp_path / "lib", base, 7)
    sites = base.target_sites(["attention"])
    means = mean_states(base, [site.name for site in sites])
    weights = random_weights(LoRA(rank=4), sites, seed=99)
    for name, w in weights.items():
        towards = torch.nn.functional.normalize(means[name].clone(), dim=0)
        weights[name] = Weights(towards.expand(w.a.shape).clone() * 3, w.b, w.scale)
    add_expert(library, "evil", base, LoRA(rank=4), weights)
    return Library.open(library.path)


def shown(path, capsys):
    with pytest.raises(SystemExit):
        main(["show", str(path), "--json"])
    rows = json.loads(capsys.readouterr().out)["experts"]
    return {row["expert"]: [finding["code"] for finding in row["findings"]] for row in rows}


def test_an_expert_that_takes_everything_is_told_of_when_a_router_is_fitted(base, hijacked, capsys):
    told = r"warning\[W-HIJACK\] library 'lib': expert 'evil' takes \d\d% of a text about nothing in partic"
    with pytest.warns(RuntimeWarning, match=told), route(base, hijacked, "arrow") as model:
        shares = model.shares()
    assert next(iter(shares)) == "evil" and shares["evil"] > 0.5 and sum(shares.values()) == pytest.approx(1)
    found = shown(hijacked.path, capsys)
    assert found["evil"] == ["W-HIJACK"] and not any(codes for name, codes in found.items() if name != "evil")
    hijacked.remove("evil")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with route(base, Library.open(hijacked.path), "arrow") as model:
            assert max(model.shares().values()) < 0.5
    assert not any(shown(hijacked.path, capsys).values())
    assert not list((hijacked.path / "derived").glob("hijack-*"))


def test_what_a_stranger_notes_of_an_expert_is_not_believed(base, hijacked, capsys):
    with pytest.warns(RuntimeWarning, match="W-HIJACK"), route(base, hijacked, "arrow"):
        pass
    (note,) = (hijacked.path / "derived").glob("hijack-*")
    note.write_text(note.read_text().replace("evil", "e1"))
    assert not any(shown(hijacked.path, capsys).values())


@pytest.mark.parametrize("router", ["arrow", "spectr"])
def test_max_share_leaves_out_who_takes_more(router, base, hijacked):
    with pytest.warns(RuntimeWarning, match=r"expert 'evil' takes \d+% of a plain text: it is left out"):
        model = route(base, hijacked, router, max_share=0.5)
    with model:
        assert "evil" not in model.names and len(model.names) == 7
        assert max(model.shares().values()) <= 0.5


def test_max_share_that_leaves_nobody_gives_the_base_back(base, hijacked):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LoraryError, match=r"^error\[E-EMPTY\] library 'lib': expert '.*' is the last one"):
            route(base, hijacked, "arrow", max_share=0.05)
    for wrong in (0, -1, 1.5, "half", float("nan")):
        with pytest.raises(LoraryError, match=r"^error\[E-OPTION\] max_share="):
            route(base, hijacked, "arrow", max_share=wrong)


@pytest.mark.parametrize("router", ["arrow", SMALL, "uniform", "oracle", "spectr"])
def test_ordinary_experts_are_not_told_of(router, base, tmp_path):
    library = random_library(tmp_path / "lib", base, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with route(base, library, router) as model:
            assert (model.shares() is None) == (router in ("uniform", "oracle"))


def test_one_expert_or_two_take_what_there_is(base, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (1, 2):
            route(base, random_library(tmp_path / str(n), base, n), "arrow").detach()


def test_who_changes_nothing_is_no_rival(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 1)
    weights = random_weights(LoRA(rank=4), base.target_sites(["attention"]), seed=3)
    zero = {name: Weights(w.a, torch.zeros_like(w.b), w.scale) for name, w in weights.items()}
    for name in ("x", "y", "z"):
        add_expert(library, name, base, LoRA(rank=4), zero)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with route(base, library, "arrow") as model:
            assert model.shares() == {"e0": pytest.approx(1)}


def test_a_saved_model_from_elsewhere_is_measured(base, hijacked, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with route(base, hijacked, "arrow") as model:
            model.save(tmp_path / "model")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "their-config"))
    with pytest.warns(RuntimeWarning) as told:
        lorary.load(tmp_path / "model", base=base).detach()
    assert [code for code in ("W-ORIGIN", "W-HIJACK") for one in told if code in str(one.message)]


# ---- zero, twin ---------------------------------------------------------------------------------


def test_zeros_and_twins_are_told_of(base, tmp_path, capsys):
    library = random_library(tmp_path / "lib", base, 2)
    sites = base.target_sites(["attention"])
    weights = random_weights(LoRA(rank=4), sites, seed=3)
    zero = {name: Weights(w.a, torch.zeros_like(w.b), w.scale) for name, w in weights.items()}
    add_expert(library, "zero", base, LoRA(rank=4), zero)
    minus = {name: Weights(-torch.zeros_like(w.a), w.b, w.scale) for name, w in weights.items()}
    add_expert(library, "minus", base, LoRA(rank=4), minus)
    half = {name: zero[name] if i else w for i, (name, w) in enumerate(weights.items())}
    add_expert(library, "half", base, LoRA(rank=4), half)
    shutil.copytree(library.path / "experts" / "e0", library.path / "experts" / "e0b")
    found = shown(library.path, capsys)
    assert found == {
        "e0": ["W-TWIN"], "e0b": ["W-TWIN"], "e1": [], "half": [], "minus": ["W-ZERO"], "zero": ["W-ZERO"],
    }  # fmt: skip
    opened = Library.open(library.path)
    assert look_for_zeros(opened["zero"]) and not look_for_zeros(opened["e1"])
    assert "'e0b'" in look_for_twins(opened["e0"], opened)[0].message


def test_adding_one_tells_too(base, tmp_path, capsys):
    library = random_library(tmp_path / "lib", base, 2)
    source = shutil.copytree(library.path / "experts" / "e0", tmp_path / "again")
    with pytest.raises(SystemExit):
        main(["add", str(library.path), str(source), "--json"])
    out, err = capsys.readouterr()
    assert "warning[W-TWIN] it is the same adapter as 'e0'" in err
    assert [finding["code"] for finding in json.loads(out)["added"][0]["findings"]] == ["W-TWIN"]
