"""Parameters that move in a random subspace of few dimensions."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lorary.building.training.batches import mix_seed
from lorary.building.training.stack import Stack


class SubspaceStack(Stack):
    """A stack whose values are coordinates: values (N, D), and pupil i's parameters are theta_0 + P values[i].

    P (M, D) is fixed and random, the same for all pupils: a Fastfood matrix for each parameter, scaled so that a step
    of Adam moves the parameters as far, and their gradient is as long, as if all were trained: |P d| is about
    sqrt(M / D) |d|. So one learning rate suits all D.
    Source: Li et al. 2018 (1804.08838), dense P; Aghajanyan et al. 2020 (2012.13255), Fastfood.
    Differs: the scale; with columns of unit length, as there, the rate has to be found anew for each D.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], n_pupils: int, *, lr: float, dimension: int, seed: int
    ) -> None:
        first = parameters[0]
        self.lr = lr
        self.values = nn.Parameter(first.new_zeros(n_pupils, dimension, dtype=torch.float32))
        self.grad = torch.zeros_like(self.values)
        self.values.grad = self.grad
        self.best = self.values.detach().clone()
        self.parts: list[tuple[nn.Parameter, Tensor, Fastfood]] = []
        for place, p in enumerate(parameters):
            generator = torch.Generator().manual_seed(mix_seed(seed, "subspace", place))
            part = Fastfood(p.numel() // n_pupils, dimension, generator, p.device)
            self.parts.append((p, p.data.clone(), part))
            p.requires_grad_(True).register_post_accumulate_grad_hook(_gatherer(self.grad, part))

    @torch.no_grad()
    def show(self) -> None:
        """Set the parameters to what the coordinates say."""
        for p, start, part in self.parts:
            p.data.copy_(start + part(self.values.detach()).view(p.shape))

    def restore(self) -> None:
        """Set all parameters to their best values."""
        super().restore()
        self.show()


def _gatherer(grad: Tensor, part: "Fastfood") -> Callable[[Tensor], None]:
    def gather(p: Tensor) -> None:
        assert p.grad is not None
        grad.add_(part.transposed(p.grad.view(len(grad), -1)))
        p.grad = None

    return gather


class Fastfood:
    """A random matrix P (n, D) that is never formed: time n log D, memory n.

    Blocks of m = 2^k >= D rows, each s H G Q H S: H is the Hadamard matrix, S random signs, Q a permutation, G normal
    numbers; of the last block the first rows, and of all the first D columns. E[P^T P] = (n / D) I.
    Source: Le, Sarlos, Smola 2013 (1408.3060).
    Differs: rows keep the length that G gives them; there they are drawn to the lengths of a normal matrix's.
    """

    def __init__(self, n: int, dimension: int, generator: torch.Generator, device: torch.device) -> None:
        self.n, self.dimension = n, dimension
        self.width = 1 << max(0, dimension - 1).bit_length()
        shape = (-(-n // self.width), self.width)  # (blocks, m)
        self.signs = (torch.randint(0, 2, shape, generator=generator) * 2.0 - 1).to(device)
        self.order = torch.argsort(torch.rand(shape, generator=generator), dim=1).to(device)
        self.normal = torch.randn(shape, generator=generator).to(device)
        self.scale = 1 / math.sqrt(self.width * dimension)

    def __call__(self, values: Tensor) -> Tensor:
        """Map coordinates (N, D) to parameters (N, n)."""
        x = nn.functional.pad(values, (0, self.width - self.dimension))[:, None] * self.signs  # (N, blocks, m)
        x = hadamard(x).gather(2, self.order.expand(len(values), -1, -1))
        return hadamard(x * self.normal).flatten(1)[:, : self.n] * self.scale

    def transposed(self, values: Tensor) -> Tensor:
        """Map parameters (N, n) to coordinates (N, D) by P^T."""
        x = nn.functional.pad(values, (0, self.order.numel() - self.n)).view(len(values), *self.order.shape)
        x = hadamard(x) * self.normal
        x = torch.empty_like(x).scatter_(2, self.order.expand(len(values), -1, -1), x)
        return (hadamard(x) * self.signs).sum(1)[:, : self.dimension] * self.scale


def hadamard(x: Tensor) -> Tensor:
    """Multiply the last axis of x (..., 2^k) by the Hadamard matrix, of entries 1 and -1: 2^k k additions."""
    shape, step = x.shape, 1
    while step < shape[-1]:
        one, other = x.view(*shape[:-1], -1, 2, step).unbind(-2)
        x = torch.stack((one + other, one - other), dim=-2).view(shape)
        step *= 2
    return x
