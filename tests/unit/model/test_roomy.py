"""A cache with room gives what transformers' own gives, and copies nothing while there is room."""

import copy

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from lorary.model.attached.roomy import RoomyLayer
from lorary.model.decoding.answer import bare
from lorary.model.decoding.sequences import Rows
from lorary.routing.contract import Context
from lorary.testing.pico import pico_base


def states(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


@pytest.fixture
def pair():
    """transformers' layer and ours, both with the same ten tokens of three rows."""
    plain = DynamicLayer()
    plain.update(*states(3, 2, 10, 4))
    return plain, RoomyLayer.of(copy.deepcopy(plain))


def same(plain, roomy):
    assert plain.get_seq_length() == roomy.get_seq_length()
    return torch.equal(plain.keys, roomy.keys) and torch.equal(plain.values, roomy.values)


def append(layers, n_rows=3, n=1, seed=1):
    for layer in layers:
        layer.update(*states(n_rows, 2, n, 4, seed=seed))


def test_tokens_are_appended_in_place(pair):
    _, roomy = pair
    append(pair)
    places = set()
    for i in range(20):
        append(pair, seed=i)
        places.add(roomy.keys.data_ptr())
    assert same(*pair)
    assert len(places) == 1


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_done_to_both_they_stay_the_same(pair, seed):
    """Rows that leave, come twice, are joined by others; columns that are dropped at either end."""
    random = torch.Generator().manual_seed(seed)
    n_rows = 3
    for i in range(60):
        what = int(torch.randint(7, (1,), generator=random))
        if what == 0 and n_rows > 1:
            kept = torch.randperm(n_rows, generator=random)[: n_rows - 1]
            n_rows -= 1
            for layer in pair:
                layer.batch_select_indices(kept)
        elif what == 1 and n_rows < 9:
            n_rows *= 2
            for layer in pair:
                layer.batch_repeat_interleave(2)
        elif what == 2:
            for layer in pair:
                layer.crop(-1)
        elif what == 3:
            for layer in pair:
                layer.keys, layer.values = layer.keys[..., 1:, :], layer.values[..., 1:, :]
        else:
            append(pair, n_rows, n=1 + 40 * (what == 4 and i % 7 == 0), seed=i)
            append(pair, n_rows, seed=i + 100)
        assert same(*pair), i


def test_decoding_uses_it_and_forks_do_not_disturb_each_other():
    base = pico_base()
    with torch.inference_mode():
        rows = Rows(bare(base.hf), Context())
        one = torch.ones(2, 1, dtype=torch.long)
        rows.read(one.expand(2, 5) * 7, one.expand(2, 5))
        for number in (3, 4):
            rows.read(one * number, one)
        assert all(type(layer) is RoomyLayer for layer in rows._cache.layers)
        assert rows.can_join and rows.can_leave
        other = rows.fork([0, 1])
        first = [part.read(one * number, one) for part, number in ((rows, 5), (other, 6), (rows, 8), (other, 9))]
        for numbers, found in (((3, 4, 5, 8), first[2]), ((3, 4, 6, 9), first[3])):
            ids = torch.tensor([[7] * 5 + list(numbers)] * 2)
            wanted = base.hf(input_ids=ids).logits[:, -1:]
            assert torch.allclose(found, wanted, atol=1e-5)
