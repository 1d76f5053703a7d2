import itertools
import math
from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gdd.losses.distances import (
    Distance,
    class_gradient_distance,
    distance,
    embedding_distance,
    moment_distance,
    standardized_by,
)

KINDS: tuple[Distance, ...] = get_args(Distance)
# A convolution, its bias, a layer norm, a linear layer, its bias.
SHAPES = ((4, 3, 3, 3), (4,), (3, 5, 5), (6, 7), (6,))
ANY_SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)


def gradient(
    seed: int, shapes: Sequence[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(*shape, generator=draw, dtype=torch.float64) * scale).to(dtype) for shape in shapes]


def row_distance(a: list[float], b: list[float]) -> float:
    """1 - cosine in plain numbers."""
    if not any(a) or not any(b):
        return float(any(a) != any(b))
    return 1 - math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def joined(tensors: Sequence[Tensor]) -> list[float]:
    return [value for tensor in tensors for value in tensor.double().flatten().tolist()]


def reference(a: Sequence[Tensor], b: Sequence[Tensor], kind: Distance) -> float:
    """The three distances, written again with loops over tensors, rows and numbers."""
    if kind == "cos":
        return row_distance(joined(a), joined(b))
    if kind == "mse":
        return math.fsum((x - y) ** 2 for x, y in zip(joined(a), joined(b), strict=True))
    rows = []
    for first, second in zip(a, b, strict=True):
        if first.ndim == 1:
            continue
        for row in range(len(first)):
            rows.append(row_distance(joined([first[row]]), joined([second[row]])))
    return math.fsum(rows)


def value_and_gradient(a: Sequence[Tensor], b: Sequence[Tensor], kind: Distance) -> tuple[Tensor, list[Tensor]]:
    """Return the distance and its gradient in the first argument, zeros where it has none."""
    a = [x.clone().requires_grad_() for x in a]
    value = distance(a, b, kind)
    return value, list(torch.autograd.grad(value, a, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryDistance:
    @pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_the_formula_written_with_loops(self, kind, dtype, accuracy, seed):
        a, b = gradient(2 * seed, dtype=dtype), gradient(2 * seed + 1, dtype=dtype, scale=3.0)
        value = distance(a, b, kind)
        assert value.shape == ()
        assert value.dtype == dtype
        assert value.item() == pytest.approx(reference(a, b, kind), rel=accuracy)

    @settings(max_examples=40, deadline=None)
    @given(ANY_SHAPES, st.integers(0, 10**6))
    def test_any_shapes_will_do(self, kind, shapes, seed):
        shapes = [*shapes, (2, 3)]  # a network has at least one weight matrix
        a, b = gradient(seed, shapes), gradient(seed + 1, shapes)
        # A row of one number has cosine 1 or -1, which rounding may miss by a little.
        assert distance(a, b, kind).item() == pytest.approx(reference(a, b, kind), rel=1e-12, abs=1e-14)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-6, 1.0, 1e6])
    def test_equal_gradients_are_exactly_0_apart(self, kind, dtype, scale):
        a = gradient(0, dtype=dtype, scale=scale)
        a[0][1] = 0
        a[3][:2] = 0
        value, slope = value_and_gradient(a, [x.clone() for x in a], kind)
        assert value.item() == 0
        assert all(torch.equal(x, torch.zeros_like(x)) for x in slope)

    def test_gradient_is_that_of_differences(self, kind):
        shapes = [(2, 2, 1, 2), (3,), (2, 2, 2), (3, 2)]
        a, b = gradient(0, shapes), gradient(1, shapes)
        # A zero row of the constant side counts 1 wherever the other side moves to.
        b[0][1] = 0
        b[3][2] = 0
        a = [x.requires_grad_() for x in a]
        assert torch.autograd.gradcheck(lambda *x: distance(x, b, kind), a)

    def test_the_gradient_of_float32_is_that_of_float64(self, kind):
        a, b = gradient(0, dtype=torch.float32), gradient(1, dtype=torch.float32)
        value, slope = value_and_gradient(a, b, kind)
        _, exact = value_and_gradient([x.double() for x in a], [x.double() for x in b], kind)
        assert value.requires_grad
        for found, expected in zip(slope, exact, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6])
    def test_the_gradient_is_finite_with_zero_rows_on_either_side(self, kind, dtype, scale):
        a, b = gradient(0, dtype=dtype, scale=scale), gradient(1, dtype=dtype, scale=scale)
        a[0][0], b[0][1], a[3][2], b[3][2] = 0, 0, 0, 0
        for first, second in ((a, b), (b, a), ([torch.zeros_like(x) for x in a], b)):
            value, slope = value_and_gradient(first, second, kind)
            assert value.isfinite()
            assert all(x.isfinite().all() for x in slope)

    def test_other_parameters_are_refused(self, kind):
        a = gradient(0)
        with pytest.raises(ValueError, match="not of the same parameters"):
            distance(a, gradient(0)[:-1], kind)
        with pytest.raises(ValueError, match="not of the same parameters"):
            # As many numbers, and they would even broadcast.
            distance([torch.ones(1, 6)], [torch.ones(6)], kind)
        with pytest.raises(ValueError, match="not of the same parameters"):
            distance([*a[:3], a[3].T, a[4]], a, kind)


class TestRows:
    """Distances of type dc, and of cos, whose one row is everything."""

    @pytest.mark.parametrize("kind", ["dc", "cos"])
    # In float32 the squares of the first and the last would be 0 and infinite.
    @pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e-3, 7.0, 1e6, 1e30])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_length_of_either_side_does_not_matter(self, kind, factor, dtype):
        a, b = gradient(0, dtype=dtype), gradient(1, dtype=dtype)
        expected = distance(a, b, kind).item()
        accuracy = 1e-12 if dtype == torch.float64 else 2e-6
        assert distance([factor * x for x in a], b, kind).item() == pytest.approx(expected, rel=accuracy)
        assert distance(a, [factor * x for x in b], kind).item() == pytest.approx(expected, rel=accuracy)
        assert distance([factor * x for x in a], a, kind).item() == pytest.approx(0, abs=1e-12)

    def test_known_angles_add_up_over_rows_and_tensors(self):
        # 0, 60, 90, 120 and 180 degrees: 0 + 1/2 + 1 + 3/2 + 2.
        angles = torch.tensor([0, 60, 90, 120, 180], dtype=torch.float64).deg2rad()
        turned = torch.stack([angles.cos(), angles.sin()], 1)
        plain = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(5, 2)
        assert distance([turned], [plain], "dc").item() == pytest.approx(5, rel=1e-14)
        parts = [turned[:2], turned[2:].view(3, 1, 2)]
        assert distance(parts, [plain[:2], plain[2:].view(3, 1, 2)], "dc").item() == pytest.approx(5, rel=1e-14)

    def test_a_small_angle_is_not_lost_in_rounding(self):
        # In float32 1 - cosine of a thousandth, 5e-7, would come out as a multiple of 6e-8.
        angle = 1e-3
        a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
        assert distance([a], [b], "dc").item() == pytest.approx(2 * math.sin(angle / 2) ** 2, rel=1e-3)

    def test_a_zero_row_counts_1_on_one_side_and_0_on_both(self):
        a, b = gradient(0, [(4, 3)])[0], gradient(0, [(4, 3)])[0]
        a[0], b[1] = 0, 0
        a[2], b[2] = 0, 0
        assert distance([a], [b], "dc").item() == 2
        assert distance([b], [a], "dc").item() == 2
        assert distance([torch.zeros(4, 3)], [torch.ones(4, 3)], "dc").item() == 4
        assert distance([torch.zeros(4, 3)], [torch.ones(4, 3)], "cos").item() == 1
        _, (slope,) = value_and_gradient([a], [b], "dc")
        assert torch.equal(slope[:3], torch.zeros(3, 3, dtype=torch.float64))

    def test_biases_count_in_cos_and_mse_but_not_in_dc(self):
        weight = gradient(0, [(3, 4)])
        a, b = [*weight, torch.ones(3, dtype=torch.float64)], [*weight, -torch.ones(3, dtype=torch.float64)]
        assert distance(a, b, "dc").item() == 0
        assert distance(a, b, "mse").item() == pytest.approx(12, rel=1e-14)
        # |weight|^2 of the numbers agree, 3 are opposite.
        square = weight[0].square().sum().item()
        assert distance(a, b, "cos").item() == pytest.approx(6 / (square + 3), rel=1e-12)
        for kind, moves in (("dc", False), ("cos", True), ("mse", True)):
            _, slope = value_and_gradient(a, b, kind)
            assert bool(slope[1].any()) is moves


class TestEmbeddings:
    def test_it_is_the_formula_written_with_loops(self):
        synthetic, real = gradient(0, [(5, 7), (11, 7)])
        expected = 0.0
        for column in range(7):
            first, second = (x[:, column].tolist() for x in (synthetic, real))
            expected += (math.fsum(first) / 5 - math.fsum(second) / 11) ** 2
        assert embedding_distance(synthetic, real).item() == pytest.approx(expected, rel=1e-12)
        assert embedding_distance(real, synthetic).item() == pytest.approx(expected, rel=1e-12)

    def test_its_gradient_is_that_of_differences(self):
        synthetic, real = gradient(0, [(5, 3), (8, 3)])
        assert torch.autograd.gradcheck(lambda x: embedding_distance(x, real), synthetic.requires_grad_())


class TestClassGradients:
    """Of a linear classifier the gradient is (softmax - one-hot) x', so it can be written down."""

    LABELS = torch.tensor([0, 1, 0, 2, 1])

    def classifier(self) -> nn.Linear:
        network = nn.Linear(4, 3).double()
        with torch.no_grad():
            network.weight.copy_(gradient(5, [(3, 4)])[0])
            network.bias.copy_(gradient(6, [(3,)])[0])
        return network

    def written_out(self, network: nn.Linear, images: Tensor, label: int) -> list[Tensor]:
        rows = images[label == self.LABELS]
        slopes = (rows @ network.weight.T + network.bias).softmax(1) - torch.eye(3, dtype=torch.float64)[label]
        return [slopes.T @ rows / len(rows), slopes.mean(0)]

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_the_mean_of_the_classes_distances(self, kind: Distance) -> None:
        network, (real, fake) = self.classifier(), gradient(7, [(5, 4), (5, 4)])
        value = class_gradient_distance(network, real, fake, self.LABELS, kind)
        pairs = [[self.written_out(network, images, label) for images in (fake, real)] for label in range(3)]
        expected = sum(distance(*pair, kind).item() for pair in pairs) / 3
        assert value.item() == pytest.approx(expected, rel=1e-9)

    def test_equal_images_have_nothing_to_match_whatever_their_order(self) -> None:
        network, (real,) = self.classifier(), gradient(7, [(5, 4)])
        order = torch.tensor([2, 4, 0, 3, 1])  # within classes
        assert class_gradient_distance(network, real, real[order], self.LABELS).item() == pytest.approx(0, abs=1e-12)

    def test_its_slope_is_that_of_differences(self) -> None:
        network, (real, fake) = self.classifier(), gradient(8, [(5, 4), (5, 4)])
        fake.requires_grad_()
        assert torch.autograd.gradcheck(lambda x: class_gradient_distance(network, real, x, self.LABELS, "mse"), fake)


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
