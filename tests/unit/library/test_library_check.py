import json
import os
import socket
import stat
import time

import numpy as np
import pytest
from library_pico import BASE, CONFIG, SITES, D, safetensors_bytes, tensors, write_adapter

from lorary.errors import AdapterError
from lorary.library.adapter.check import Finding, check, raise_errors
from lorary.library.adapter.header import read_header
from lorary.library.adapter.numbers import check_numbers

KEY = "base_model.model.model.layers.0.self_attn.q_proj"


def codes(findings):
    return [(f.code, f.message) for f in findings]


def one(directory, **kwargs):
    findings = check(directory, **kwargs)
    assert len(findings) == 1, findings
    return findings[0]


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "poems")


def config_of(tmp_path, **fields):
    return write_adapter(tmp_path / "poems", **fields)


def with_weights(adapter, data):
    (adapter / "adapter_model.safetensors").write_bytes(data)
    return adapter


def test_a_sound_adapter_has_no_findings(adapter):
    assert check(adapter) == []
    assert check(adapter, base=BASE) == []


# ---- the weights file ---------------------------------------------------------------------------


def test_truncated_file(adapter):
    path = adapter / "adapter_model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    assert one(adapter).code == "E-FILE"
    assert one(adapter).message == (
        f"adapter_model.safetensors is damaged: header says {size:,} bytes, file has {size - 100:,}."
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has 0 bytes, a header needs more than 8"),
        ((2**60).to_bytes(8, "little") + b"{}", "header says 1,152,921,504,606,846,984 bytes, file has 10"),
        (safetensors_bytes(b"[]"), "the header is not a JSON object"),
        (safetensors_bytes({"t": {"dtype": "F32"}}), "tensor 't' needs dtype, shape and data_offsets"),
        (
            safetensors_bytes({"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
            "tensor 't' has an ill-typed dtype, shape or data_offsets",
        ),
        (
            safetensors_bytes({"t": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}}),
            "tensor 't' is empty (shape [0, 4])",
        ),
        (
            safetensors_bytes({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
            "tensor 't' of shape [2] in F32 does not fit its data_offsets",
        ),
        (
            safetensors_bytes({"t": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
            "a hole in the data at byte 0",
        ),
        (
            safetensors_bytes(
                {
                    "t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                    "u": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
                },
                b"123456",
            ),
            "an overlap in the data at byte 4",
        ),
        (safetensors_bytes({"__metadata__": {"a": 1}}), "__metadata__ must map strings to strings"),
    ],
)
def test_damaged_file(adapter, data, message):
    finding = one(with_weights(adapter, data))
    assert (finding.code, finding.message) == ("E-FILE", f"adapter_model.safetensors is damaged: {message}.")


def test_trailing_bytes_are_refused(adapter):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes() + b"PK")
    assert one(adapter).code == "E-FILE"


def test_key_twice_in_header(adapter):
    entry = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    finding = one(with_weights(adapter, safetensors_bytes(f'{{"t": {entry}, "t": {entry}}}'.encode(), b"1234")))
    assert codes([finding]) == [("E-FILE", "adapter_model.safetensors header: key 't' is given twice.")]


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I64", "BOOL", "F64"])
def test_dtype(adapter, dtype):
    finding = one(
        with_weights(adapter, safetensors_bytes({"t": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}))
    )
    assert codes([finding]) == [("E-DTYPE", f"tensor 't' has dtype '{dtype}', expected one of F32, F16, BF16.")]


def test_header_limits(adapter):
    many = {f"t{i}": {"dtype": "F16", "shape": [1], "data_offsets": [2 * i, 2 * i + 2]} for i in range(20_001)}
    finding = one(with_weights(adapter, safetensors_bytes(many, bytes(40_002))))
    assert codes([finding]) == [("E-LIMIT", "adapter_model.safetensors has 20,001 tensors, the limit is 20,000.")]
    finding = one(with_weights(adapter, safetensors_bytes(b"{" + b" " * 4_000_000)))
    assert codes([finding]) == [
        ("E-LIMIT", "adapter_model.safetensors has a header of 4,000,001 bytes, the limit is 4,000,000.")
    ]
    huge = {"t": {"dtype": "F32", "shape": [2**63 - 1, 2], "data_offsets": [0, 4]}}
    assert one(with_weights(adapter, safetensors_bytes(huge, b"1234"))).code == "E-LIMIT"


@pytest.mark.parametrize("start", [b"PK\x03\x04" + bytes(20), b"\x80\x02" + bytes(20), b"\x80\x05" + bytes(20)])
def test_pickle_renamed(adapter, start):
    finding = one(with_weights(adapter, start))
    assert codes([finding]) == [("E-PICKLE", "adapter_model.safetensors is a pickle or zip with another name.")]


def test_pickle_only(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    finding = one(adapter)
    assert (finding.code, finding.message) == (
        "E-PICKLE",
        "only adapter_model.bin is there, a pickle that could run code; it is never opened.",
    )
    assert "weights_only=True" in finding.hint


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_file(adapter, name):
    (adapter / name).unlink()
    assert codes(check(adapter)) == [("E-FILE", f"{name} is missing.")]


def _bind(path, monkeypatch):
    monkeypatch.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def _make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: it never ends
    except OSError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("what", ["symlink", "fifo", "directory", "socket", "device"])
def test_not_a_regular_file(adapter, tmp_path, name, what, monkeypatch):
    (adapter / name).rename(tmp_path / "outside")
    make = {
        "symlink": lambda p: p.symlink_to(tmp_path / "outside"), "fifo": os.mkfifo, "directory": os.mkdir,
        "socket": lambda p: _bind(p, monkeypatch), "device": _make_device,
    }[what]  # fmt: skip
    make(adapter / name)
    assert codes(check(adapter)) == [("E-PATH", f"{name} is not a regular file.")]


def test_not_a_directory(adapter, tmp_path):
    (tmp_path / "link").symlink_to(adapter)
    assert codes(check(tmp_path / "link")) == [("E-PATH", "'link' is not a plain directory.")]
    assert codes(check(tmp_path / "nowhere")) == [("E-FILE", f"there is no directory '{tmp_path}/nowhere'.")]
    file = adapter / "adapter_config.json"
    assert codes(check(file)) == [("E-PATH", f"'{file}' is a file, expected an adapter's directory.")]


# ---- sizes --------------------------------------------------------------------------------------


LONG = [f"x{i}" for i in range(40_000)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"rank_pattern": dict.fromkeys(LONG, 1)},
        {"alpha_pattern": dict.fromkeys(LONG, 1)},
        {"target_modules": ["q", *LONG]},
        {"exclude_modules": LONG},
        {"layers_to_transform": list(range(100_000)), "target_modules": ["q"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_long_lists_cost_no_more_than_they_are_long(tmp_path, fields):
    keys = [f"base_model.model.model.layers.{i}.q.lora_{factor}.weight" for i in range(4000) for factor in "AB"]
    arrays = dict.fromkeys(keys, np.ones((1, 1), np.float16))
    adapter = write_adapter(tmp_path / "long", arrays, **{"r": 1, "target_modules": ["q"], **fields})
    start = time.process_time()
    assert not [finding for finding in check(adapter) if finding.level == "error"]
    assert time.process_time() - start < 15  # each list with each site would take minutes


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_the_last_of_many_keys_given_twice_is_found_soon(adapter, file):
    content = ("{" + "".join(f'"{i:x}":0,' for i in range(90_000)) + '"z":0,"z":0}').encode()
    (adapter / file).write_bytes(safetensors_bytes(content) if file.endswith("tensors") else content)
    start = time.process_time()
    assert one(adapter).message.endswith("key 'z' is given twice.")
    assert time.process_time() - start < 15


def test_patterns_of_absurdly_many_forms_are_refused(tmp_path):
    adapter = config_of(tmp_path, alpha_pattern={"a" * n: 2 for n in range(1, 300)})
    assert codes(check(adapter)) == [
        ("E-LIMIT", "alpha_pattern: 299 patterns of more than 256 forms: lengths, and places of dots.")
    ]


# ---- the config ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"r": 4,\n  "x"}', "adapter_config.json:2:6 is not JSON: expecting ':' delimiter."),
        (b"[1]", "adapter_config.json holds a list, expected an object."),
        (b"[" * 100_000, "adapter_config.json is nested deeper than 32 levels."),
        (b'{"r":' + b"[" * 50 + b"]" * 50 + b"}", "adapter_config.json is nested deeper than 32 levels."),
        (b" " * 1_000_001, "adapter_config.json has 1,000,001 bytes, the limit is 1,000,000."),
        (b'{"r": 4, "r": 8}', "adapter_config.json: key 'r' is given twice."),
        (b"\xef\xbb\xbf{}", "adapter_config.json starts with a byte order mark (BOM)."),
        (b'{"r": "\xff"}', "adapter_config.json is not UTF-8 (byte 7)."),
        (b'{"lora_alpha": NaN}', "adapter_config.json: NaN is not a number."),
        (b'{"lora_alpha": 1e999}', "adapter_config.json: '1e999' is not a finite number."),
        (b'{"r": ' + b"9" * 5000 + b"}", "adapter_config.json holds an integer with too many digits."),
        (b'{"r": "\\ud800"}', "adapter_config.json holds half of a surrogate pair (\\ud800 to \\udfff)."),
    ],
)
def test_config_is_not_strict_json(adapter, data, message):
    (adapter / "adapter_config.json").write_bytes(data)
    assert codes(check(adapter)) == [("E-CONFIG", message)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "r is 0, expected a whole number from 1 to 512."),
        ({"r": -4}, "r is -4, expected a whole number from 1 to 512."),
        ({"r": 4.0}, "r is 4.0, expected a whole number from 1 to 512."),
        ({"r": "4"}, "r is '4', expected a whole number from 1 to 512."),
        ({"r": True}, "r is True, expected a whole number from 1 to 512."),
        ({"lora_alpha": 1e38}, "lora_alpha is 1e+38, expected a number above 0, at most 1,000,000."),
        ({"lora_alpha": -1}, "lora_alpha is -1, expected a number above 0, at most 1,000,000."),
        ({"lora_alpha": "16"}, "lora_alpha is '16', expected a number above 0, at most 1,000,000."),
        ({"use_rslora": 1}, "use_rslora is 1, expected true or false."),
        (
            {"rank_pattern": {"q_proj": "2"}},
            "rank_pattern is {'q_proj': '2'}, expected a mapping to a whole number from 1 to 512.",
        ),
        ({"target_modules": 3}, "target_modules is 3, expected a list of names or a string."),
        ({"peft_type": "EVIL"}, "peft_type 'EVIL' unsupported; LORA only."),
        ({"peft_type": None}, "peft_type None unsupported; LORA only."),
    ],
)
def test_config_field(tmp_path, fields, message):
    assert codes(check(config_of(tmp_path, **fields))) == [("E-CONFIG", message)]


def test_config_field_missing(adapter):
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    assert codes(check(adapter)) == [("E-CONFIG", "lora_alpha is missing.")]


def test_rank_limit_costs_nothing(tmp_path):
    directory = config_of(tmp_path, r=10**7)
    start = time.process_time()
    assert codes(check(directory)) == [("E-LIMIT", "r is 10000000, the limit is 512.")]
    assert time.process_time() - start < 0.05
    wide = {
        f"{KEY}.lora_A.weight": np.zeros((513, 2), np.float16),
        f"{KEY}.lora_B.weight": np.zeros((2, 513), np.float16),
    }
    finding = check(write_adapter(tmp_path / "wide", wide, r=512))[0]
    assert (finding.code, finding.message) == (
        "E-LIMIT",
        "site 'model.layers.0.self_attn.q_proj': tensors have rank 513, the limit is 512.",
    )


FEATURES = {
    "use_dora": (True, "DoRA"),
    "lora_bias": (True, "biases beside the factors"),
    "modules_to_save": (["lm_head"], "whole trained modules"),
    "trainable_token_indices": ([1], "trained tokens"),
    "layer_replication": ([[0, 2]], "replicated layers"),
    "alora_invocation_tokens": ([1], "activated LoRA"),
    "use_qalora": (True, "QALoRA"),
    "use_bdlora": ({"nblocks": 2}, "block-diagonal LoRA"),
    "arrow_config": ({"top_k": 2}, "PEFT's own Arrow"),
}


@pytest.mark.parametrize("field", FEATURES)
def test_features_are_refused_by_name(tmp_path, field):
    value, meaning = FEATURES[field]
    assert codes(check(config_of(tmp_path, **{field: value}))) == [
        ("E-FEATURE", f"{field} ({meaning}) can't be mixed with other experts.")
    ]


def test_bias_feature(tmp_path):
    assert codes(check(config_of(tmp_path, bias="all"))) == [
        ("E-FEATURE", "bias='all' changes the base; expected 'none'.")
    ]


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("lora_magnitude_vector.weight", "DoRA can't be mixed with other experts: "),
        ("lora_B.bias", "lora_bias can't be mixed with other experts: "),
    ],
)
def test_feature_tensors(tmp_path, ending, message):
    extra = {**tensors(), f"{KEY}.{ending}": np.zeros(D, np.float32)}
    assert codes(check(write_adapter(tmp_path / "poems", extra))) == [("E-FEATURE", f"{message}'{KEY}.{ending}'.")]


CONVERT = "Save it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...): plain LoRA again."


@pytest.mark.parametrize(
    ("init", "name", "hint"),
    [
        ("pissa", "PiSSA", CONVERT),
        ("pissa_niter_4", "PiSSA", CONVERT),
        ("olora", "OLoRA", CONVERT),
        ("OLoRA", "OLoRA", CONVERT),
        ("corda", "CorDA", CONVERT),
        ("loftq", "LoftQ", "PEFT can't convert it: train it without."),
    ],
)
def test_init_that_changed_the_base_is_refused(tmp_path, init, name, hint):
    finding = one(config_of(tmp_path, init_lora_weights=init))
    assert (finding.code, finding.level, finding.hint) == ("E-FEATURE", "error", hint)
    assert finding.message == (
        f"init_lora_weights='{init}' ({name}) changed the base it was trained on; on the unchanged base it would "
        "answer differently."
    )


def test_init_that_nobody_knows_is_refused(tmp_path):
    finding = one(config_of(tmp_path, init_lora_weights="of_tomorrow"))
    assert (finding.code, finding.level) == ("E-FEATURE", "error")
    assert (
        finding.message == "init_lora_weights='of_tomorrow' is unknown, it may have changed the base it was trained on."
    )


def test_init_whose_changed_base_peft_forgets_is_a_warning(tmp_path):
    finding = one(config_of(tmp_path, init_lora_weights="lora_ga"))
    assert (finding.code, finding.level, finding.hint) == ("W-INIT", "warning", CONVERT)
    assert finding.message == (
        "init_lora_weights='lora_ga' changed the base it was trained on; PEFT opens it on the unchanged one, "
        "and so does lorary."
    )


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "eva", "mica"])
def test_init_that_is_harmless(tmp_path, init):
    assert check(config_of(tmp_path, init_lora_weights=init)) == []


def test_unknown_fields_and_foreign_code(tmp_path):
    findings = check(config_of(tmp_path, frobnicate=3, nothing=None, auto_mapping={"parent_library": "os"}))
    assert {f.level for f in findings} == {"warning"}
    assert codes(findings) == [
        ("W-FIELD", "auto_mapping would import code or modules; it is ignored, and dropped by `add`."),
        ("W-FIELD", "unknown field 'frobnicate' is ignored."),
    ]


# ---- keys and shapes ----------------------------------------------------------------------------


def test_rank_differs_from_tensors(tmp_path):
    finding = one(config_of(tmp_path, r=8))
    assert finding.code == "E-RANK"
    assert finding.message == (
        "site 'model.layers.0.self_attn.q_proj' (and 3 more sites): config r=8, tensors have rank 2."
    )


def test_rank_pattern_is_believed_when_the_tensors_agree(tmp_path):
    assert check(config_of(tmp_path, r=8, rank_pattern={"q_proj": 2, "v_proj": 2})) == []


def test_factors_that_do_not_share_a_rank(tmp_path):
    arrays = tensors()
    arrays[f"{KEY}.lora_B.weight"] = np.zeros((D, 3), np.float32)
    finding = one(write_adapter(tmp_path / "poems", arrays))
    assert codes([finding]) == [
        (
            "E-SHAPE",
            "site 'model.layers.0.self_attn.q_proj': lora_A [2, 6], lora_B [6, 3] don't share a rank.",
        )
    ]


def test_convolution_is_refused(tmp_path):
    arrays = tensors()
    arrays[f"{KEY}.lora_A.weight"] = np.zeros((2, D, 1, 1), np.float32)
    assert one(write_adapter(tmp_path / "poems", arrays)).code == "E-SHAPE"


def test_shapes_of_another_base(adapter):
    finding = one(adapter, base={**BASE, SITES[1]: (D, 9)})
    assert codes([finding]) == [("E-SHAPE", f"site '{SITES[1]}': the adapter maps 6 to 6, the base 6 to 9.")]


def test_half_a_pair(tmp_path):
    arrays = tensors()
    del arrays[f"{KEY}.lora_B.weight"]
    findings = check(write_adapter(tmp_path / "poems", arrays))
    assert codes(findings) == [
        ("E-KEYS", f"1 factors lack their partner (lora_A without lora_B, or the reverse): '{KEY}.lora_A.weight'.")
    ]


def test_half_of_the_keys(tmp_path):
    arrays = {key: value for key, value in tensors().items() if "layers.0" in key}
    finding = one(write_adapter(tmp_path / "poems", arrays), base=BASE)
    assert codes([finding]) == [("E-KEYS", f"2 of 4 targeted sites have no tensors: '{SITES[2]}', '{SITES[3]}'.")]


def test_layers_to_transform_explains_missing_keys(tmp_path):
    arrays = {key: value for key, value in tensors().items() if "layers.0" in key}
    assert check(write_adapter(tmp_path / "poems", arrays, layers_to_transform=[0]), base=BASE) == []


def test_tensors_that_target_modules_does_not_name(tmp_path):
    finding = one(config_of(tmp_path, target_modules=["q_proj"]))
    assert finding.code == "E-KEYS"
    assert finding.message == (
        "site 'model.layers.0.self_attn.v_proj' (and 1 more sites): tensors for layers that target_modules "
        "doesn't name."
    )


def test_target_without_tensors_is_a_warning(tmp_path):
    finding = one(config_of(tmp_path, target_modules=["q_proj", "v_proj", "k_proj"]))
    assert (finding.code, finding.level) == ("W-KEYS", "warning")
    assert finding.message == "target_modules names 'k_proj', but no tensor is for it."


def test_wrong_prefix_with_a_base(tmp_path):
    arrays = {key.replace("model.layers", "transformer.h"): value for key, value in tensors().items()}
    finding = one(write_adapter(tmp_path / "poems", arrays), base=BASE)
    assert codes([finding]) == [("E-KEYS", "0 of 8 tensors match the base.")]
    assert finding.hint.startswith("Nearest: 'model.layers.0.self_attn.q_proj' for 'transformer.h.0.self_attn.q_proj'.")


def test_no_module_matches(tmp_path):
    arrays = {key.replace("q_proj", "c_attn").replace("v_proj", "c_proj"): v for key, v in tensors().items()}
    finding = one(write_adapter(tmp_path / "poems", arrays, target_modules=["c_attn", "c_proj"]), base=BASE)
    assert codes([finding]) == [
        ("E-TARGET", "site 'model.layers.0.self_attn.c_attn' (and 3 more sites): the base has no such layer.")
    ]
    assert finding.hint == "The base has: q_proj, v_proj."


@pytest.mark.parametrize("key", ["base_model.model.lm_head.weight", "base_model.model.model.norm.weight"])
def test_base_weights_in_the_adapter(tmp_path, key):
    findings = check(write_adapter(tmp_path / "poems", {**tensors(), key: np.zeros(D, np.float32)}), base=BASE)
    assert codes(findings) == [("E-BASEKEY", f"tensors of the base itself, which loading would overwrite: '{key}'.")]


def test_strange_tensor(tmp_path):
    findings = check(write_adapter(tmp_path / "poems", {**tensors(), "x\n\u202ey": np.zeros(1, np.float32)}))
    assert codes(findings) == [("E-KEYS", r"1 of 9 tensors are not LoRA factors: 'x\n\u202ey'.")]


def test_no_tensors(tmp_path):
    assert codes(check(write_adapter(tmp_path / "poems", {}))) == [
        ("E-KEYS", "adapter_model.safetensors holds no tensors.")
    ]


# ---- findings -----------------------------------------------------------------------------------


def test_errors_come_first_and_are_all_told(tmp_path):
    directory = config_of(tmp_path, init_lora_weights="lora_ga", use_dora=True, bias="all")
    findings = check(directory)
    assert [f.code for f in findings] == ["E-FEATURE", "E-FEATURE", "W-INIT"]
    with pytest.raises(AdapterError) as caught:
        raise_errors(findings, "poems")
    assert str(caught.value) == (
        "error[E-FEATURE] expert 'poems': use_dora (DoRA) can't be mixed with other experts. "
        "Train it without, or merge it into plain LoRA with PEFT first. "
        "Also E-FEATURE: bias='all' changes the base; expected 'none'."
    )


def test_warnings_do_not_raise():
    raise_errors([Finding("W-INIT", "warning", "x")], "poems")


def test_a_warning_free_config_has_all_fields_of_peft(tmp_path):
    # As PEFT 0.21 writes it for LoraConfig(r=2, lora_alpha=4, target_modules=[...]).
    fields = json.loads(
        """{"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
        "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 4, "lora_bias": false, "lora_dropout": 0.0,
        "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 2,
        "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "v_proj"], "target_parameters": null,
        "task_type": null, "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
        "use_qalora": false, "use_rslora": false, "velora_config": null}"""
    )
    assert check(config_of(tmp_path, **fields), base=BASE) == []
    assert CONFIG["r"] == fields["r"]


# ---- numbers ------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")  # of dictionaries the key: a NaN is found only as the same object
BF16 = {1.0: 0x3F80, 9984.0: 0x461C, 10048.0: 0x461D, INF: 0x7F80, NAN: 0x7FC0, -1e30: 0xF149}


def bytes_of(dtype, value):
    if dtype == "BF16":
        return BF16[value].to_bytes(2, "little")
    return np.array(value, {"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def numbers_file(path, dtype, values):
    data = b"".join(bytes_of(dtype, value) for value in values)
    entry = {"dtype": dtype, "shape": [len(values) // 2, 2], "data_offsets": [0, len(data)]}
    path.write_bytes(safetensors_bytes({"x": entry}, data))
    return check_numbers(path, read_header(path))


@pytest.mark.parametrize(
    ("dtype", "sane", "absurd"),
    [
        ("F32", [0.0, -1.0, 8192.0, -10000.0], [10000.001, -1e30, INF, -INF, NAN]),
        ("F16", [0.0, -1.0, 8192.0, -10000.0], [10008.0, -65504.0, INF, NAN]),
        ("BF16", [1.0, 9984.0], [10048.0, -1e30, INF, NAN]),
    ],
)
def test_numbers_are_told_from_what_is_none(tmp_path, dtype, sane, absurd):
    assert numbers_file(tmp_path / "file", dtype, [*sane, *sane]) == []
    for value in absurd:
        (finding,) = numbers_file(tmp_path / "file", dtype, [*sane, *sane, sane[0], value])
        place = (len(sane), 1)
        assert finding.message == (
            f"tensor 'x' has 1 entries that are not numbers below 10000, the first at {place}."
        ), value


def test_a_nan_is_an_error(tmp_path):
    arrays = tensors()
    arrays[min(arrays)][1, 2] = np.nan
    found = one(write_adapter(tmp_path / "poems", arrays))
    assert (found.code, found.level) == ("E-NONFINITE", "error")
    assert "the first at (1, 2)" in found.message
