import math
import random

import pytest

from lorary.errors import LibraryError
from lorary.library.adapter.scale import Patterns, is_plain, ranks_of, scales_of
from lorary.library.adapter.site_keys import site_tensors

SITE = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 16 / math.sqrt(4)),
        ({"alpha_pattern": {"q_proj": 8}}, 2.0),
        ({"alpha_pattern": {"v_proj": 8}}, 4.0),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 2, "q_proj": 8}}, 0.5),
        ({"alpha_pattern": {"q_proj": 8, SITE: 2}}, 2.0),  # the first that matches wins, not the longest
        ({"alpha_pattern": {"^q_proj": 8}}, 4.0),
        ({"alpha_pattern": {f"^{SITE}": 8}}, 2.0),
        ({"alpha_pattern": {"proj": 8}}, 4.0),  # only whole parts of the path
        ({"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 8}}, 2.0),
        ({"alpha_pattern": {"q.proj": 8}}, 2.0),  # a dot is any letter, as in PEFT
        ({"alpha_pattern": {r"q\.proj": 8}}, 4.0),
    ],
)
def test_scale(fields, expected):
    assert scales_of({"lora_alpha": 16, **fields}, {SITE: 4}) == {SITE: expected}


def test_rank():
    assert ranks_of({"r": 4, "rank_pattern": {"q_proj": 8}}, [SITE]) == {SITE: 8}
    assert ranks_of({"r": 4, "rank_pattern": None}, [SITE]) == {SITE: 4}


def test_a_pattern_that_can_t_be_run_safely_is_refused():
    with pytest.raises(LibraryError) as caught:
        scales_of({"lora_alpha": 16, "alpha_pattern": {r"(q)\1": 8}}, {SITE: 4})
    assert str(caught.value) == (
        r"error[E-REGEX] pattern '(q)\\1' can't be read safely. "
        "Write it as the end of a module path, such as layers.0.attn.q_proj."
    )


def test_patterns_of_more_forms_than_a_model_has_are_refused():
    many = {"".join("a."[n >> bit & 1] for bit in range(9)): 2 for n in range(512)}
    with pytest.raises(LibraryError) as caught:
        ranks_of({"r": 4, "rank_pattern": many}, [SITE])
    assert str(caught.value) == (
        "error[E-LIMIT] 512 patterns of more than 256 forms: lengths, and places of dots. "
        r"Write the dots in them as \., or fewer patterns."
    )
    escaped = {pattern.replace(".", r"\."): rank for pattern, rank in many.items()}
    assert ranks_of({"r": 4, "rank_pattern": {**escaped, "q_proj": 8}}, [SITE]) == {SITE: 8}


@pytest.mark.slow
def test_matching_is_that_of_peft():
    from peft.utils.other import get_pattern_key

    rng = random.Random(0)
    words = ["model", "layers", "q_proj", "q", "proj", "0", "10", "self_attn", ""]
    for _ in range(20_000):
        site = ".".join(rng.choice(words[:-1]) for _ in range(rng.randint(1, 4)))
        patterns = [
            rng.choice(["", "", "^"])
            + rng.choice([".", r"\."]).join(rng.choice(words) for _ in range(rng.randint(1, 3)))
            + rng.choice(["", "", "$"])
            for _ in range(3)
        ]
        assert all(map(is_plain, patterns))
        assert (Patterns(patterns).first(site) or site) == (get_pattern_key(patterns, site) or site), (patterns, site)


def test_keys_as_peft_writes_them():
    keys = [
        "base_model.model.model.layers.1.mlp.fc1.lora_B.weight",
        "base_model.model.model.layers.1.mlp.fc1.lora_A.weight",
        "base_model.model.model.fc2.lora_A.default.weight",
        "base_model.model.model.fc2.lora_B.default.weight",
        "base_model.model.alone.lora_A.weight",
        "base_model.model.model.norm.weight",
        "else where.lora_A.weight",
        "else where.lora_B.weight",
        "base_model.model.bad..name.lora_A.weight",
        "base_model.model.bad..name.lora_B.weight",
    ]
    assert list(site_tensors(keys).items()) == [
        ("model.fc2", (keys[2], keys[3])),
        ("model.layers.1.mlp.fc1", (keys[1], keys[0])),
    ]
