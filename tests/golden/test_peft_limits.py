"""What PEFT can't open is said when it is made; what is not said to be closed, PEFT opens to the same answer."""

import warnings

import pytest
import torch
from golden_peft import assert_same
from peft import PeftModel

import lorary as lo
from lorary.model.base.peft_limits import closed_to_peft, model_type_of
from lorary.model.routed.route import route
from lorary.testing.families import pico_family, pico_family_hf
from lorary.testing.pico import random_library

IDS = torch.randint(10, 250, (2, 9), generator=torch.Generator().manual_seed(3))


def peft_agrees(family, base, library):
    """Tell whether PEFT opens a lone expert and answers as lorary does."""
    with route(base, library, "uniform") as model, torch.inference_mode():
        ours = model(IDS).logits
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            theirs = PeftModel.from_pretrained(pico_family_hf(family), library.path, subfolder="experts/e0")
        except ValueError:
            return False
    if any("missing adapter keys" in str(warning.message) for warning in told):
        return False
    with torch.inference_mode():
        assert_same(ours, theirs(input_ids=IDS).logits, atol=1e-4)
    return True


@pytest.mark.parametrize("family", ["mamba", "falcon_h1", "glm4_moe", "deepseek_v3", "qwen3_next", "llama"])
def test_exactly_what_is_said_to_be_closed_is(family, tmp_path):
    base = pico_family(family)
    leaves = sorted({site.name.rpartition(".")[2] for site in base.target_sites(["all-linear"])})
    closed = closed_to_peft(base.hf.config.model_type, base.sites)
    opened = [name for name in leaves if name not in closed]
    assert peft_agrees(family, base, random_library(tmp_path / "open", base, 1, targets=opened))
    for name in closed:
        assert not peft_agrees(family, base, random_library(tmp_path / name, base, 1, targets=[name]))
    assert bool(closed) == (family != "llama")


def test_it_is_said_before_training_and_at_an_export(toy, tmp_path):
    base = pico_family("mamba")
    tasks = toy.only(["copy"])
    with pytest.warns(
        RuntimeWarning, match=r"^warning\[W-PEFT\] PEFT can't open an adapter on 'out_proj' of a 'mamba'"
    ):
        library = lo.build(
            lo.Private(rank=2, steps=1, targets=("in_proj", "out_proj")), tasks, base, into=tmp_path / "l"
        )
    with pytest.warns(RuntimeWarning, match="W-PEFT"):
        lo.export(library, into=tmp_path / "out")
    lo.build(lo.Private(rank=2, steps=1, targets=("in_proj",)), tasks, base, into=tmp_path / "quiet")  # no warning


def test_a_merge_says_it_too(tmp_path):
    base = pico_family("mamba")
    closed = random_library(tmp_path / "closed", base, 2, targets=["in_proj", "out_proj"])
    with pytest.warns(
        RuntimeWarning, match=r"^warning\[W-PEFT\] PEFT can't open an adapter on 'out_proj' of a 'mamba'"
    ):
        lo.build("uniform", lo.Tasks([]), base, source=closed, into=tmp_path / "merged")
    opened = random_library(tmp_path / "opened", base, 2, targets=["in_proj"])
    lo.build("uniform", lo.Tasks([]), base, source=opened, into=tmp_path / "quiet")  # no warning


def test_a_model_type_is_found_by_its_architecture():
    assert model_type_of("MambaForCausalLM") == "mamba"
    assert model_type_of("Glm4MoeForCausalLM") == "glm4_moe"
    assert model_type_of("Nonsense") is None
