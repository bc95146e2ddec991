"""Libraries of mttl: read as data alone, and the same function as there; each that can't be read says why."""

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lorary as lo
from lorary.formats.mttl.read import read_mttl
from lorary.formats.peft import read_weights
from lorary.library.adapter.expert import read_expert

MADE = Path(__file__).parents[2] / "golden" / "mttl_1_0_2"
"""One expert as mttl 1.0.2's own LocalExpertLibrary wrote it, and what its LoRA gave for x on a layer of zeros."""
SITES = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def weights(rank=2, sites=SITES, **more):
    torch.manual_seed(0)
    factors = {f"{s}.lora_a": torch.randn(6, rank) for s in sites} | {
        f"{s}.lora_b": torch.randn(rank, 4) for s in sites
    }
    return {**factors, **more}


def meta(name, config="mttl.models.modifiers.lora.LoRAConfig", tie_params=None, **more):
    """Say what mttl says of an expert: ExpertInfo.asdict(), whose config has the name of its class."""
    known = {"class_name": config, "lora_rank": 2, "lora_alpha": 16.0, "modify_modules": ".*", "tie_params": tie_params}
    facts = {"expert_name": name, "expert_task_name": "one,two", "parent_node": None, "expert_deleted": False}
    return {**facts, "expert_config": known, "training_config": {"model": "b/ase"}, "expert_model": None, **more}


def legacy(name):
    """The same in the words of older versions."""
    return meta(name) | {"expert_config": {"__model_modifier__": "lora", "lora_rank": 2, "lora_alpha": 16}}


def packed(value):
    """Write a file that unpacks to a thousand times its size."""
    plain, small = io.BytesIO(), io.BytesIO()
    torch.save(value, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return small.getvalue()


TIED = weights() | {f"{SITES[0].replace('q_proj', 'k_proj')}.lora_b": torch.ones(2, 4)}
SOUND = {
    "new": (weights(), meta("new")),
    "old": (weights(), legacy("old")),
    "tied": (TIED, meta("tied", tie_params="q_proj.*\\.lora_a|k_proj.*\\.lora_a")),
    "half": ({name: tensor.half() for name, tensor in weights().items()}, meta("half")),
}  # fmt: skip
BAD = {
    "evil_meta": (weights(), {**meta("x"), "more": Evil()}, "E-PICKLE"),
    "evil_ckpt": ({**weights(), "x": Evil()}, meta("x"), "E-PICKLE"),
    "ia3": (weights(), meta("x", "mttl.models.modifiers.ia3.IA3Config"), "E-FEATURE"),
    "nothing": (weights(), {**meta("x"), "expert_config": None}, "E-FEATURE"),
    "skills": ({f"{SITES[0]}.lora_a": torch.zeros(3, 1, 6, 2)}, meta("x"), "E-FEATURE"),
    "others": (weights(more=torch.zeros(1)), meta("x"), "E-KEYS"),
    "rank": (weights(rank=3), meta("x"), "E-RANK"),
    "list": ([1, 2], meta("x"), "E-PICKLE"),
    "large": ({f"{SITES[0]}.lora_a": torch.zeros(1).expand(2**16, 2**18)}, meta("x"), "E-LIMIT"),
    "bomb": (packed(weights(x=torch.zeros(10**6))), meta("x"), "E-LIMIT"),
    "text": (b"no zip", meta("x"), "E-PICKLE"),
    "alone": (None, meta("x"), "E-FILE"),
}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """All of them in one directory, read by one process."""
    place = tmp_path_factory.mktemp("mttl")
    (place / "lib").mkdir()
    for name, (ckpt, told, *_) in {**SOUND, **BAD, "gone": (weights(), {**meta("x"), "expert_deleted": True})}.items():
        if isinstance(ckpt, bytes):
            (place / "lib" / f"{name}.ckpt").write_bytes(ckpt)
        elif ckpt is not None:
            torch.save(ckpt, place / "lib" / f"{name}.ckpt")
        torch.save(told, place / "lib" / f"{name}.meta")
    found = {one.name: one for one in read_mttl(place / "lib", place / "made")}
    assert sorted(found) == sorted([*SOUND, *BAD])
    assert not list(place.rglob("was_run")) and not Path("was_run").exists()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_the_function_is_the_same(name, read):
    assert read[name].error is None
    expert, given = read_expert(read[name].directory, name), SOUND[name][0]
    x = torch.randn(5, 6)
    found = read_weights(expert)
    assert set(found) == {key.rpartition(".lora_")[0] for key in given}
    for site, one in found.items():
        a = given.get(f"{site}.lora_a", given[f"{SITES[0]}.lora_a"]).float()
        wanted = x @ a @ given[f"{site}.lora_b"].float() * 16 / 2
        torch.testing.assert_close(x @ one.a.float().T @ one.b.float().T * one.scale, wanted, rtol=1e-5, atol=1e-5)
        assert one.a.dtype == given[f"{site}.lora_b"].dtype
    assert (expert.provenance.tasks, expert.config["base_model_name_or_path"]) == (("one", "two"), "b/ase")


@pytest.mark.parametrize("name", BAD)
def test_what_can_t_be_read_says_why(name, read):
    assert read[name].error is not None and read[name].error.code == BAD[name][2]
    assert str(read[name].error).startswith(f"error[{BAD[name][2]}] expert '{name}': ")


@pytest.mark.slow
def test_what_mttl_itself_wrote_becomes_an_expert(tmp_path):
    done = lo.add(tmp_path / "lib", MADE)
    assert [one.expert for one in done.added] == ["wiqa_effect"] and not done.refused
    expert = lo.Library.open(tmp_path / "lib")["wiqa_effect"]
    expected = load_file(MADE / "expected.safetensors")
    x = expected.pop("x")
    found = read_weights(expert)
    assert set(found) == set(expected)
    for site, one in found.items():
        torch.testing.assert_close(x @ one.a.T @ one.b.T * one.scale, expected[site], rtol=1e-5, atol=1e-6)
    assert (expert.provenance.tasks, expert.config["base_model_name_or_path"]) == (("wiqa_effect",), "microsoft/phi-2")
    assert b"somewhere" not in b"".join(p.read_bytes() for p in expert.directory.iterdir())
