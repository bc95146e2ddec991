"""Regular expressions of strangers: read as PEFT reads them, and stopped in time."""

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library_pico import BASE, CONFIG, SITES, tensors, write_adapter
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from lorary.errors import LibraryError
from lorary.library.adapter.check import check
from lorary.library.adapter.foreign_patterns import MAX_EXPRESSIONS, Expressions
from lorary.library.adapter.scale import Patterns, is_plain
from lorary.library.adapter.targets import Targets

PATHS = [
    *(f"model.layers.{i}.self_attn.{leaf}_proj" for i in (0, 1, 10, 11) for leaf in "qkvo"),
    *(f"model.layers.{i}.mlp.{leaf}" for i in (0, 1, 10) for leaf in ("gate_proj", "up_proj", "down_proj")),
    "transformer.h.3.attn.c_attn", "model.decoder.layers.0.encoder_attn.k_proj", "lm_head", "q_proj",
    "model.layers.1.mlp.experts.0.w1", "encoder.block.0.layer.0.SelfAttention.q",
    "model.language_model.layers.1.x-y.q_proj",
]  # fmt: skip

USED = [
    # PEFT's documentation, axolotl's, ms-swift's, Unsloth's, and forms from model cards
    r".*\.(q|v)_proj", r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$",
    r"^model.decoder.layers.0.encoder_attn.k_proj",
    r".*\.layers\.1\..*(q_proj|v_proj)$", r"model.layers.[\d]+.(mlp|cross_attn|self_attn).(up|down|gate|q|k|v|o)_proj",
    r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*",
    r"^(language_model|model.language_model)(?=\.).*\.(q_proj|k_proj)$",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp).*?(?:q_proj|k_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn)\.(?:(?:q_proj|k_proj|v_proj)))",
    r".*\.layers\.(0|1)\..*", r".*layers\.[0-9]+\.self_attn\.[qk]_proj",
    r"layers\.(?:[0-9]|1[0-9])\.mlp\.(gate|up|down)_proj",
    r".*[^d]_proj", r"model\.layers\.\d{2}\..*?_proj", r".*(?<!q)_proj", r".*\.x\-y\..*",
    r"all-linear-ish|q_proj", "", ".*", r"\w+\.\w+\.\d\.mlp\.\S+",
]  # fmt: skip


@pytest.mark.parametrize("pattern", USED)
def test_what_users_write_is_read_as_peft_reads_it(pattern):
    for path in PATHS:
        expected = get_pattern_key([pattern], path) == pattern
        assert (Patterns([pattern]).first(path) is not None) == (expected or pattern == path), (pattern, path)
        config = LoraConfig(target_modules=pattern)
        if pattern:
            assert Targets({"target_modules": pattern}).hold(path) == bool(check_target_module_exists(config, path))
            config = LoraConfig(target_modules=["q_proj", "w1", "up_proj"], exclude_modules=pattern)
            held = Targets({"target_modules": ["q_proj", "w1", "up_proj"], "exclude_modules": pattern}).hold(path)
            assert held == bool(check_target_module_exists(config, path))


@pytest.mark.parametrize("container", ["layers", "h", ["h", "layers"], r"(?:decoder\.)?layers", "block", "lay.rs", []])
@pytest.mark.parametrize("layers", [0, [1, 10], []])
def test_layers_pattern(container, layers):
    fields = {"target_modules": ["q_proj", "c_attn", "w1", "q", "k_proj"], "layers_to_transform": layers}
    config = LoraConfig(**fields, layers_pattern=container if layers != [] else None)
    targets = Targets({**fields, "layers_pattern": container})
    for path in PATHS:
        assert targets.hold(path) == bool(check_target_module_exists(config, path)), path


def test_the_first_that_matches_wins_plain_or_not():
    patterns = [
        r".*\.v_proj",
        "q_proj",
        r".*layers\.1\..*",
        r"model\.layers\.1\.self_attn\.q_proj",
        "k_proj",
        r"(k|o)_proj",
    ]
    for order in (patterns, patterns[::-1]):
        for path in PATHS:
            expected = get_pattern_key(order, path)
            assert (Patterns(order).first(path) or path) == expected, (order, path)


@pytest.mark.parametrize(
    "pattern", [r".\S", r"layers\.\d\.self_attn\.q_proj", r"\w_proj", r"\Dayers.1.mlp.gate", r"\$q_proj"]
)
def test_what_is_escaped_is_no_letter(pattern):
    for path in PATHS:
        assert (Patterns([pattern]).first(path) or path) == get_pattern_key([pattern], path), path


PIECES = st.sampled_from(
    [".*", ".", r"\.", "q_proj", "layers", "[0-9]+", r"\d", r"\w+", "(", "(?:", "(?!", ")", "|", "^", "$", "?", "+",
     "*", "{2}", "{1,}", "[qk]", "[^v]", "_proj", "model", "1", "-", r"\b", "(?=", "*?", "self_attn",
     r"\S", "[a-z_]", "{,3}"]
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=7), st.sampled_from(PATHS))
def test_anything_else_is_read_alike_or_refused(pieces, path):
    pattern = "".join(pieces)
    try:
        expected = get_pattern_key([pattern], path) == pattern and pattern != path
    except (re.error, RecursionError, OverflowError, IndexError):
        expected = None
    try:
        found = Patterns([pattern]).first(path) is not None
    except LibraryError:
        return
    if expected is not None and pattern != path:
        assert found == expected, (pattern, path)


EVIL = [
    r"(\w+\.?)+X", r"(a+)+$", r"(a|aa)+[XY]", r"((a|a)*)*b", r"(.*)*(.*)*(.*)*x", r"(.*?){30}Q",
    r"(?:.*.*.*.*.*.*.*.*)[XY]", r"(?=(.*)*Y)x",
    r"((.|.|.)*)*\.y", r"(?:(?:(?:x{0,999}){0,999}){0,999})y", r"(\w|\w\w|\w\w\w)*[Z]",
    r"(?<=(\w+)+)Z",
    "(" * 60 + "a" + ")*" * 60,
]  # fmt: skip


@pytest.mark.parametrize("pattern", [r"(a|aa)+[XY]", r"(\w|[a-z]|\d)+(X|Y)"])
def test_what_would_take_for_ever_is_stopped(pattern):
    expressions = Expressions()
    number, start = expressions.add(pattern), time.process_time()
    for _ in range(3):
        with pytest.raises(LibraryError, match=r"^error\[E-REGEX\] its regular expressions take too long to match\."):
            expressions.fits(number, "a" * 500)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("pattern", EVIL)
def test_evil_patterns_end(pattern, tmp_path):
    path = "model.layers.0." + "a" * 400
    start = time.process_time()
    expressions = Expressions()
    number = expressions.add(pattern)
    for ask in (expressions.match, expressions.fits):
        with contextlib.suppress(LibraryError):
            ask(number, path)
    config = {**CONFIG, "rank_pattern": {pattern: 2}, "alpha_pattern": {pattern: 4}, "target_modules": pattern}
    for finding in check(write_adapter(tmp_path / "poems", **config), base=BASE):
        assert finding.code in ("E-REGEX", "E-KEYS", "W-REGEX")
    assert time.process_time() - start < 4


@pytest.mark.parametrize(
    "pattern",
    [
        "[a-", "(", "a{99999}", "(?i)a", "(?R)", r"(a)\1", r"\p{L}", "(?:a){e<=3}", "é", "a\n", "(?#x)a", "[[a]]",
        "[a--b]", "(?|a|b)", "a" * 2001, "(" * 61 + ")" * 61, "*a", r"\N{DIGIT ONE}", "(?>a)", "(?P<a>x)",
        "a**",
    ],
)  # fmt: skip
def test_what_is_none_of_the_usual_forms_is_refused(pattern, tmp_path):
    assert not is_plain(pattern) or len(pattern) > 2000
    with pytest.raises(LibraryError, match=r"^error\[E-REGEX\] pattern .* can't be read safely\. Write it as the end"):
        Expressions().add(pattern)
    (finding,) = check(write_adapter(tmp_path / "poems", target_modules=pattern), base=BASE)
    assert (finding.code, finding.level) == ("W-REGEX", "warning")
    assert finding.message.startswith("target_modules is a regular expression that can't be run safely")


def test_many_expressions_are_refused(tmp_path):
    patterns = {f"x{n}(a|b)": 2 for n in range(MAX_EXPRESSIONS + 1)}
    (finding,) = check(write_adapter(tmp_path / "poems", rank_pattern=patterns))
    assert (finding.code, finding.message) == ("E-LIMIT", "rank_pattern: more than 64 regular expressions.")


def test_tensors_and_a_pattern_that_does_not_name_them(tmp_path):
    assert check(write_adapter(tmp_path / "a", target_modules=r".*\.(q|v)_proj"), base=BASE) == []
    (finding,) = check(write_adapter(tmp_path / "b", target_modules=r".*\.q_proj"))
    assert finding.code == "E-KEYS" and "tensors for layers that target_modules doesn't name" in finding.message
    half = {key: value for key, value in tensors().items() if "q_proj" in key}
    (finding,) = check(write_adapter(tmp_path / "c", half, target_modules=r".*\.(q|v)_proj"), base=BASE)
    assert finding.message == f"2 of 4 targeted sites have no tensors: {SITES[1]!r}, {SITES[3]!r}."
