"""What is read from and written to PEFT directories, beyond what the golden tests compare."""

import json
import os

import pytest
import torch
from safetensors.torch import save

from lorary.adapters.contract import Weights
from lorary.adapters.lora import LoRA
from lorary.errors import AdapterError, LibraryError, OptionError
from lorary.formats.peft import read_experts, read_weights, write_weights
from lorary.library.adapter.expert import read_expert

SITE = "model.layers.0.self_attn.q_proj"


def write(directory, a, b, **options):
    directory.mkdir()
    kind = LoRA(rank=a.shape[0], **options)
    write_weights(directory, kind, {SITE: Weights(a, b, kind.scale)}, base_name="pico")
    return read_expert(directory, directory.name)


def test_the_scale_is_alpha_over_rank_or_its_root(tmp_path):
    a, b = torch.randn(4, 3), torch.randn(5, 4)
    assert read_weights(write(tmp_path / "plain", a, b, alpha=8))[SITE].scale == 2.0
    assert read_weights(write(tmp_path / "rslora", a, b, alpha=8, rslora=True))[SITE].scale == 4.0
    assert (LoRA(rank=4, alpha=8).scale, LoRA(rank=4, alpha=8, rslora=True).scale) == (2.0, 4.0)


def test_the_config_is_what_peft_reads(tmp_path):
    write(tmp_path / "x", torch.randn(4, 3), torch.randn(5, 4), alpha=8)
    config = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert config == {
        "base_model_name_or_path": "pico", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": 8, "lora_dropout": 0.0, "peft_type": "LORA", "r": 4,
        "target_modules": [SITE], "task_type": "CAUSAL_LM", "use_rslora": False,
    }  # fmt: skip


def test_half_precision_is_written_as_float32(tmp_path):
    a, b = torch.randn(2, 3).bfloat16(), torch.randn(5, 2).bfloat16()
    found = read_weights(write(tmp_path / "x", a, b))[SITE]
    assert found.a.dtype == found.b.dtype == torch.float32
    assert torch.equal(found.a, a.float()) and torch.equal(found.b, b.float())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e5])
def test_a_diverged_expert_is_refused_with_its_place(number, tmp_path):
    b = torch.randn(5, 2)
    b[3, 1] = number
    with pytest.raises(AdapterError) as caught:
        read_weights(write(tmp_path / "poems", torch.randn(2, 3), b))
    assert str(caught.value) == (
        f"error[E-NONFINITE] expert 'poems': tensor 'base_model.model.{SITE}.lora_B.weight' has 1 entries that are not "
        "numbers below 10000, the first at (3, 1). Its training diverged; leave it out or train it again."
    )


def test_a_file_that_changed_since_it_was_opened_is_refused(tmp_path):
    expert = write(tmp_path / "poems", torch.randn(2, 3), torch.randn(5, 2))
    with expert.weights_path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(LibraryError) as caught:
        read_weights(expert)
    assert str(caught.value) == (
        "error[E-FILE] expert 'poems': adapter_model.safetensors was changed since it was opened. Retry."
    )


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)])
@pytest.mark.parametrize("shift", [0, 1])
def test_any_dtype_and_alignment_is_read_as_it_stands(dtypes, shift, tmp_path):
    expert = write(tmp_path / "x", torch.randn(2, 3), torch.randn(5, 2))
    tensors = {key: torch.randn(2, 3) if "lora_A" in key else torch.randn(5, 2) for key in sorted(expert.header)}
    tensors = {key: t.to(dtype) for (key, t), dtype in zip(tensors.items(), dtypes, strict=True)}
    data = save(tensors)
    n = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + n].rstrip() + b" " * (n - len(data[8 : 8 + n].rstrip()) + shift)
    expert.weights_path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + n :])
    found = read_weights(read_expert(expert.directory, "x"))[SITE]
    assert torch.equal(found.a, next(t for key, t in tensors.items() if "lora_A" in key))
    assert torch.equal(found.b, next(t for key, t in tensors.items() if "lora_B" in key))


def test_experts_come_in_order_of_their_names(tmp_path):
    found = {n: write(tmp_path / n, torch.randn(2, 3), torch.randn(5, 2)) for n in ("poems", "ants", "maths")}
    assert list(read_experts(found)) == ["ants", "maths", "poems"]


def test_weights_know_their_widths():
    weights = Weights(torch.randn(2, 3), torch.randn(5, 2), 0.5)
    assert (weights.d_in, weights.d_out, weights.rank) == (3, 5, 2)
    a, b = weights.factors()
    torch.testing.assert_close(b @ a, weights.delta())


@pytest.mark.parametrize("options", [{"rank": -1}, {"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}])
def test_a_rank_and_an_alpha_are_above_zero(options):
    with pytest.raises(OptionError, match=r"E-OPTION\] LoRA: .*, expected more than 0\."):
        LoRA(**options)


def test_the_umask_says_who_may_read_an_expert(tmp_path):
    before = os.umask(0o022)
    try:
        expert = write(tmp_path / "x", torch.randn(4, 3), torch.randn(5, 4))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in expert.directory.iterdir()} == {0o644}
