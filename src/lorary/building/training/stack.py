"""What a pack learns, as one matrix: one row per pupil, so that a step is a few operations on the whole."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Stack:
    """Parameters that share a learning rate, as one matrix of values (N, P): row i is all that pupil i learns.

    The parameters become views of the matrix, and each gradient is added to `grad` (N, P) as soon as it is made. Each
    parameter has N along its first axis, or any shape when N is 1. `best` (N, P) keeps each pupil's best values.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], n_pupils: int, *, lr: float) -> None:
        self.lr = lr
        width = sum(p.numel() for p in parameters) // n_pupils
        self.values = nn.Parameter(parameters[0].new_empty(n_pupils, width, dtype=torch.float32))
        self.grad = torch.zeros_like(self.values)
        self.values.grad = self.grad
        start = 0
        for p in parameters:
            part = slice(start, start + p.numel() // n_pupils)
            start = part.stop
            self.values.data[:, part] = p.data.view(n_pupils, -1)
            p.data = self.values.data[:, part].view(p.shape)
            p.requires_grad_(True).register_post_accumulate_grad_hook(_mover(self.grad[:, part].view(p.shape)))
        self.best = self.values.detach().clone()

    def show(self) -> None:
        """Let the parameters be what the values say, before each pass: here they are views of them."""

    def keep(self, pupil: int) -> None:
        """Note a pupil's present values as its best."""
        self.best[pupil] = self.values.detach()[pupil]

    def restore(self) -> None:
        """Set all parameters to their best values."""
        self.values.data.copy_(self.best)


def _mover(place: Tensor) -> Callable[[Tensor], None]:
    def move(p: Tensor) -> None:
        assert p.grad is not None
        place.add_(p.grad)
        p.grad = None

    return move


def clip(stacks: Sequence[Stack], limit: float) -> Tensor:
    """Scale each pupil's gradient, over all stacks, to at most `limit`; give the norms before, (N,)."""
    norms = torch.stack([torch.linalg.vector_norm(s.grad, dim=1) for s in stacks]).norm(dim=0)
    factor = (limit / (norms + 1e-6)).clamp(max=1).unsqueeze(1)
    for stack in stacks:
        stack.grad.mul_(factor)
    return norms
