"""Training in a random subspace: the map against its dense matrix, and what is left of the freedom to move."""

import numpy as np
import pytest
import torch

from lorary.building.build import build
from lorary.building.builders.subspace import Subspace
from lorary.building.training.subspace import Fastfood, SubspaceStack, hadamard
from lorary.errors import OptionError
from lorary.formats.peft import open_experts


def made(n, dimension, seed=0):
    return Fastfood(n, dimension, torch.Generator().manual_seed(seed), torch.device("cpu"))


def dense(part):
    """The matrix P (n, D), by its columns."""
    return part(torch.eye(part.dimension)).T


def test_the_hadamard_matrix_is_that_of_sylvester():
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    four = torch.kron(two, two)
    assert torch.equal(hadamard(torch.eye(4)), four)
    assert torch.equal(hadamard(torch.eye(1)), torch.eye(1))
    assert torch.allclose(hadamard(hadamard(torch.arange(8.0)[None])), 8 * torch.arange(8.0)[None])


@pytest.mark.parametrize(("n", "dimension"), [(1, 1), (50, 3), (64, 64), (33, 20), (7, 30)])
def test_the_transposed_map_is_that_of_the_matrix(n, dimension):
    part, random = made(n, dimension), torch.Generator().manual_seed(1)
    matrix = dense(part)
    assert matrix.shape == (n, dimension)
    values, gradient = torch.randn(2, dimension, generator=random), torch.randn(2, n, generator=random)
    assert torch.allclose(part(values), values @ matrix.T, atol=1e-5)
    assert torch.allclose(part.transposed(gradient), gradient @ matrix, atol=1e-4)


def test_a_step_moves_as_far_as_one_of_all_parameters_would():
    n, dimension = 20_000, 48
    matrix = dense(made(n, dimension))
    assert matrix.square().sum(0).numpy() == pytest.approx([n / dimension] * dimension, rel=0.1)
    products = (matrix.T @ matrix * dimension / n - torch.eye(dimension)).abs()
    assert products.max() < 0.06  # columns are nearly orthogonal
    assert torch.linalg.matrix_rank(matrix) == dimension
    assert abs(float(matrix.mean())) < 0.01
    gradient = torch.randn(1, n, generator=torch.Generator().manual_seed(2))
    lengths = [float(made(n, dimension, seed).transposed(gradient).norm() / gradient.norm()) for seed in range(8)]
    assert np.mean(lengths) == pytest.approx(1, abs=0.1)


def test_another_seed_is_another_subspace():
    assert torch.equal(dense(made(40, 5)), dense(made(40, 5)))
    assert not torch.allclose(dense(made(40, 5)), dense(made(40, 5, seed=1)))


def test_values_move_the_parameters_and_gradients_come_back():
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(2, 3, 4)), torch.nn.Parameter(torch.randn(2, 5))]
    start = [p.detach().clone() for p in parameters]
    stack = SubspaceStack(parameters, 2, lr=0.1, dimension=6, seed=0)
    stack.show()
    assert all(torch.equal(p, before) for p, before in zip(parameters, start, strict=True))
    stack.values.data[1] = torch.randn(6)
    stack.show()
    matrices = [dense(part) for _, _, part in stack.parts]
    for p, before, matrix in zip(parameters, start, matrices, strict=True):
        moved = (p.detach() - before).flatten(1)
        assert torch.equal(moved[0], torch.zeros_like(moved[0]))
        assert torch.allclose(moved[1], matrix @ stack.values[1].detach(), atol=1e-5)
    weights = [torch.randn_like(p) for p in parameters]
    sum((p * w).sum() for p, w in zip(parameters, weights, strict=True)).backward()
    expected = sum(w.flatten(1) @ matrix for w, matrix in zip(weights, matrices, strict=True))
    assert torch.allclose(stack.grad, expected, atol=1e-4)
    stack.restore()
    assert all(torch.equal(p, before) for p, before in zip(parameters, start, strict=True))


TRAINING = {"steps": 6, "batch_size": 4, "lr": 5e-2, "dropout": 0.0, "rank": 2}


@pytest.mark.slow
def test_experts_of_a_pack_lie_in_one_plane_and_learn(base, toy, tmp_path):
    """Of four experts that move in two dimensions, all differences are sums of two."""
    tasks = toy.only(["copy", "swap", "upper", "first"])
    library = build(Subspace(dimension=2, **TRAINING), tasks, base, into=tmp_path / "two")
    experts = open_experts(library)
    flat = np.array(
        [
            np.concatenate([np.r_[w.a.flatten(), w.b.flatten()] for w in experts[name].values()])
            for name in sorted(experts)
        ]
    )
    singular = np.linalg.svd(flat - flat[0], compute_uv=False)
    assert singular[1] > 1e-3
    assert singular[2] < 1e-4 * singular[0]
    free = build(Subspace(dimension=300, **TRAINING), tasks, base, into=tmp_path / "many")
    worse, better = ([lib[name].provenance.metrics["valid_loss"] for name in sorted(lib)] for lib in (library, free))
    assert sum(better) < sum(worse)


def test_more_dimensions_than_numbers_are_refused(base, toy, tmp_path):
    with pytest.raises(OptionError) as caught:
        build(Subspace(dimension=10**6, **TRAINING), toy.only(["copy"]), base, into=tmp_path / "lib")
    assert "subspace: dimension=1000000, expected at most the" in str(caught.value)
