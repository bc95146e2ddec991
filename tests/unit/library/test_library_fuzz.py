"""Whatever the bytes, the answer is findings: never another exception, never a hang."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_pico import BASE, CONFIG, safetensors_bytes, tensors, write_adapter

from lorary.errors import LoraryError
from lorary.library.adapter.check import check
from lorary.library.adapter.expert import read_expert

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SOUND = write_adapter(Path(tempfile.mkdtemp()) / "sound")
CONFIG_BYTES = (SOUND / "adapter_config.json").read_bytes()
WEIGHTS_BYTES = (SOUND / "adapter_model.safetensors").read_bytes()

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(["q_proj", "^x$", "(a+)+", "(a|aa)+[XY]", ".*_proj", "\ud800", "", "r"])
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(names, scalars | st.lists(scalars), max_size=2)
fields = st.sampled_from(
    [*CONFIG, "rank_pattern", "alpha_pattern", "bias", "use_dora", "init_lora_weights", "exclude_modules",
     "layers_to_transform", "layers_pattern", "auto_mapping", "target_parameters"]
)  # fmt: skip
keys = st.sampled_from(
    [
        *tensors(),
        *("_orig_mod." + key for key in tensors()),
        "__metadata__",
        "base_model.model.x.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.mlp.experts.base_layer.lora_B.weight",
    ]
) | st.text(max_size=10)


def judge(config: bytes = CONFIG_BYTES, weights: bytes = WEIGHTS_BYTES, provenance: bytes | None = None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        (path / "adapter_config.json").write_bytes(config)
        (path / "adapter_model.safetensors").write_bytes(weights)
        if provenance is not None:
            (path / "expert.json").write_bytes(provenance)
        for finding in check(path, base=BASE):
            finding.message.encode()
            assert finding.message.isprintable()
            assert finding.level == ("error" if finding.code.startswith("E-") else "warning")
        try:
            expert = read_expert(path, "poems")
            assert len(expert.hash) == 64
        except LoraryError as error:
            str(error).encode()


@quick
@given(st.binary(max_size=200))
def test_any_bytes(data):
    judge(config=data)
    judge(weights=data)
    judge(weights=safetensors_bytes(data))
    judge(provenance=data)


@quick
@given(st.dictionaries(fields, values, max_size=4))
def test_any_config(changes):
    judge(config=json.dumps({**CONFIG, **changes}).encode())


@quick
@given(st.dictionaries(keys, values | st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", "I8"]) | scalars, "shape": st.lists(st.integers(-1, 2**65)) | scalars,
     "data_offsets": st.lists(st.integers(-1, 2**65), max_size=3)})))  # fmt: skip
def test_any_header(header):
    judge(weights=safetensors_bytes(header, bytes(16)))


@quick
@given(st.integers(0, len(WEIGHTS_BYTES) - 1), st.integers(0, 255))
def test_any_byte_changed(position, byte):
    judge(weights=WEIGHTS_BYTES[:position] + bytes([byte]) + WEIGHTS_BYTES[position + 1 :])


@pytest.mark.slow
@quick
@given(values)
def test_any_provenance(value):
    for field in ("tasks", "metrics", "builder", "seed", "base_fingerprint", "parents", "other"):
        judge(provenance=json.dumps({field: value}).encode())
