"""Which tokens of a call are padding, read off whatever mask it was given."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lorary.errors import RoutingError


def real_tokens(mask: object, n_tokens: int, n_before: int | Tensor) -> Tensor | None:
    """Tell of the call's own tokens which are no padding, (B, n_tokens); None if none is.

    mask: (B, T) of all tokens so far; or (B, 1, n_tokens, columns) as attention takes it, boolean or added to the
    scores; or some of these by kind of layer. n_before: tokens in the KV cache before this call.
    Raises E-MASK for anything else.
    """
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        what = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise RoutingError(
            "E-MASK",
            f"the attention mask is of {what}: which tokens are padding can't be told, and this router asks.",
            "Give one of (B, T), or use a router that looks at each token alone, such as arrow.",
        )
    if mask.dim() == 2:
        return mask[:, -n_tokens:].bool()
    # A token is real if it attends to itself. Its column: after those before, save where a window has dropped some.
    last = mask.shape[-1] - n_tokens
    start = n_before.clamp(max=last) if isinstance(n_before, Tensor) else min(n_before, last)
    column = (torch.arange(n_tokens, device=mask.device) + start).view(1, -1, 1).expand(len(mask), -1, 1)
    itself = mask[:, 0].gather(-1, column).squeeze(-1)
    return itself if itself.dtype == torch.bool else itself >= 0
