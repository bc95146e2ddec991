"""Padding is told from every kind of mask that transformers makes of one."""

import pytest
import torch

from lorary.errors import RoutingError
from lorary.model.attached.padding import real_tokens

REAL = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()


def square(n_before=0, columns=5, dtype=torch.bool):
    """What attention takes for the tokens after n_before; more columns are a cache's that isn't full."""
    rows = torch.arange(n_before, 5).view(-1, 1)
    keys = torch.nn.functional.pad(REAL, (0, columns - 5))
    seen = (torch.arange(columns) <= rows)[None, None] & keys[:, None, None]
    return seen if dtype == torch.bool else torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -3e38)


@pytest.mark.parametrize("n_before", [0, 2, 4])
@pytest.mark.parametrize("columns", [5, 9])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_mask_for_attention_tells_what_that_of_the_tokens_does(n_before, columns, dtype):
    mask, own = square(n_before, columns, dtype), REAL[:, n_before:]
    for n in (n_before, torch.tensor(n_before)):
        assert torch.equal(real_tokens(mask, 5 - n_before, n), own)
        assert torch.equal(real_tokens({"sliding_attention": None, "full_attention": mask}, 5 - n_before, n), own)
        assert torch.equal(real_tokens(REAL.long(), 5 - n_before, n), own)


def test_a_window_that_dropped_old_tokens_shifts_the_columns():
    assert torch.equal(real_tokens({"sliding_attention": square(3)[..., 2:]}, 2, 3), REAL[:, 3:])


def test_no_mask_is_no_padding():
    assert real_tokens(None, 3, 0) is None
    assert real_tokens({"full_attention": None}, 3, 0) is None
    assert real_tokens({}, 3, 0) is None


@pytest.mark.parametrize(("mask", "found"), [(object(), "object"), (torch.ones(2, 3, 3), "shape (2, 3, 3)")])
def test_a_mask_of_another_kind_is_refused(mask, found):
    with pytest.raises(RoutingError) as caught:
        real_tokens(mask, 3, 0)
    assert str(caught.value) == (
        f"error[E-MASK] the attention mask is of {found}: which tokens are padding can't be told, and this router "
        "asks. Give one of (B, T), or use a router that looks at each token alone, such as arrow."
    )
