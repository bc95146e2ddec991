"""A base whose embedding got more rows is the same base where that is said, and all else is still compared."""

import pytest
import torch

import lorary as lo
from lorary.errors import ModelError, OptionError
from lorary.library.adapter.provenance import is_padded, require_same_base
from lorary.model.base.base_model import BaseModel
from lorary.testing.pico import pico_base, random_library

IDS = torch.randint(2, 258, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def library(tmp_path):
    return random_library(tmp_path / "lib", pico_base(), 2)


def padded(n_rows=320, *, seed=0, dtype=torch.float32, **options):
    base = pico_base(seed=seed, dtype=dtype)
    base.hf.resize_token_embeddings(n_rows, mean_resizing=False)
    return BaseModel(base.hf, base.tokenizer, base.name, **options)


def logits(base, library):
    with lo.route(base, library, "arrow") as model, torch.inference_mode():
        return model(IDS).logits[..., :258]


def test_it_is_refused_with_the_way_to_declare_it(library):
    with pytest.raises(ModelError) as caught:
        logits(padded(), library)
    assert (caught.value.code, "vocab_size, embedding_signs differ" in str(caught.value)) == ("E-BASE", True)
    assert "--vocab-size 258, load_base(..., vocab_size=258)." in caught.value.hint


def test_declared_the_same_it_answers_the_same(library):
    expected = logits(pico_base(), library)
    assert padded(vocab_size=258).fingerprint == pico_base().fingerprint
    torch.testing.assert_close(logits(padded(vocab_size=258), library), expected, atol=1e-5, rtol=1e-5)


def test_in_another_precision_too(library):
    assert padded(vocab_size=258, dtype=torch.bfloat16).fingerprint == pico_base(dtype=torch.bfloat16).fingerprint


@pytest.mark.parametrize("damage", ["layer", "embedding", "seed", "wrong size"])
def test_all_else_is_still_compared(damage, library):
    base = padded(vocab_size=257 if damage == "wrong size" else 258, seed=damage == "seed")
    if damage == "layer":
        base.hf.model.layers[0].self_attn.q_proj.weight.data.mul_(2)
    if damage == "embedding":
        base.hf.model.embed_tokens.weight.data[200].neg_()
    with pytest.raises(ModelError, match=r"^error\[E-BASE\] library "):
        logits(base, library)


@pytest.mark.parametrize("size", [0, -1, 321, 2.5, True])
def test_what_no_embedding_had_is_refused(size):
    with pytest.raises(OptionError, match=r"^error\[E-OPTION\] "):
        padded(vocab_size=size)


def test_a_saved_model_loads_on_it(library, tmp_path):
    with lo.route(pico_base(), library, "arrow") as model, torch.inference_mode():
        expected = model(IDS).logits
        model.save(tmp_path / "saved")
    with pytest.raises(ModelError, match="E-BASE"):
        lo.load(tmp_path / "saved", base=padded())
    with lo.load(tmp_path / "saved", base=padded(vocab_size=258)) as model, torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits[..., :258], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("base", "before", "is_it"),
    [
        ({"vocab_size": 320, "n_layers": 2}, {"vocab_size": 258, "n_layers": 2}, True),
        ({"vocab_size": 320, "n_layers": 3}, {"vocab_size": 258, "n_layers": 2}, False),
        ({"vocab_size": 258}, {"vocab_size": 320}, False),
        ({"vocab_size": 320}, {"vocab_size": "258"}, False),
        ({"vocab_size": True}, {"vocab_size": False}, False),
        ({}, {"vocab_size": 3}, False),
    ],
)
def test_the_hint_comes_where_nothing_else_differs(base, before, is_it):
    """A library's file is a stranger's: what it says of its base may be of any type."""
    assert is_padded(base, before) == is_it
    if base.get("vocab_size") not in (None, before["vocab_size"]):
        with pytest.raises(ModelError) as caught:
            require_same_base(base, before, "poems")
        assert ("--vocab-size" in caught.value.hint) == is_it
