import itertools

import pytest
import torch
from torch import Tensor

from gdd.losses.distances import moment_distance, standardized_by

F = 3


def population(seed: int, count: int) -> Tensor:
    return torch.randn(count, F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def exact(x: Tensor, y: Tensor) -> float:
    """The distance between two populations, each of whose rows is equally likely, by their moments."""
    second = (x.T @ x / len(x) - y.T @ y / len(y)).square().sum() / F**2
    return (second + 2 * (x.mean(0) - y.mean(0)).square().sum() / F).item()


def test_its_mean_over_all_draws_is_the_distance_of_the_populations() -> None:
    x, y = population(0, 3), population(1, 4) + 0.5
    pairs = itertools.product(itertools.product(range(3), repeat=2), itertools.product(range(4), repeat=2))
    values = [moment_distance(x[list(i)], y[list(j)], zeros(2), zeros(2)) for i, j in pairs]
    assert torch.stack(values).mean().item() == pytest.approx(exact(x, y), rel=1e-9)


def test_a_shift_and_a_scale_cost_what_the_kernel_says() -> None:
    """Of single numbers the kernel is (x y + 1)^2: rows of -1 and 1 against rows of a, with no other choice."""
    x, y = torch.tensor([[-1.0], [1.0]] * 500), torch.full((1000, 1), 2.0)
    value = moment_distance(x, y, zeros(1000), zeros(1000))
    assert value.item() == pytest.approx((1 - 4) ** 2 + 2 * (0 - 2) ** 2, rel=1e-2)


def test_alike_samples_are_pushed_apart() -> None:
    """Fakes in one place, where real ones are spread about that place: descent spreads them."""
    real = torch.tensor([[-1.0, 0, 0], [1, 0, 0]] * 8, dtype=torch.float64)
    fake = torch.tensor([[-0.01, 0, 0], [0.01, 0, 0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(moment_distance(real, fake, zeros(16), zeros(2)), fake)
    assert slope[0, 0] > 0  # so the left one goes left
    assert slope[1, 0] < 0
    assert slope[:, 1:].abs().max() < 1e-12


def test_classes_count_alike_and_apart() -> None:
    x, y = population(0, 9), population(1, 9)
    first, second = torch.arange(9) < 5, torch.arange(9) >= 5
    labels = second.long()
    one, two = (moment_distance(x[rows], y[rows], zeros(len(x[rows])), zeros(len(y[rows]))) for rows in (first, second))
    assert moment_distance(x, y, labels, labels).item() == pytest.approx((one + two).item() / 2)


def test_a_class_of_one_row_does_not_count() -> None:
    x, y = population(0, 5), population(1, 5)
    labels = torch.tensor([0, 0, 1, 0, 0])
    rows = labels == 0
    with_it, without = moment_distance(x, y, labels, labels), moment_distance(x[rows], y[rows], zeros(4), zeros(4))
    assert with_it.item() == pytest.approx(without.item())
    y.requires_grad_()
    nothing = moment_distance(x, y, torch.arange(5), torch.arange(5))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, y)[0].eq(0).all()


def test_no_gradient_reaches_the_real_side() -> None:
    x, y = population(0, 4).requires_grad_(), population(1, 4).requires_grad_()
    moment_distance(x, y, zeros(4), zeros(4)).backward()
    assert x.grad is None
    assert y.grad is not None


def test_standardized_features_have_mean_0_and_mean_square_1() -> None:
    x, y = 5 * population(0, 50) + 2, population(1, 4)
    own, others = standardized_by(x, x, y)
    torch.testing.assert_close(own.mean(0), torch.zeros(F, dtype=torch.float64), rtol=0, atol=1e-12)
    assert own.square().mean().item() == pytest.approx(1)
    torch.testing.assert_close(others - own[:4], (y - x[:4]) / (x - x.mean(0)).square().mean().sqrt())
    assert standardized_by(torch.ones(3, F), torch.ones(3, F))[0].isfinite().all()
