from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, rel_entr, softmax
from torch.nn import functional as F

from gdd.losses.logits import (
    classified,
    distillation,
    kl,
    log_probability_mse,
    paired,
    released_distillation,
    skd,
    standardize,
)

LABELS = torch.tensor([0, 3, 9, 1, 1, 5])
ANY_LOGITS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(2, 12)), elements=st.floats(-50, 50, allow_subnormal=False)
)


def random_logits(seed: int, batch: int = 6, classes: int = 10, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(real: np.ndarray, synthetic: np.ndarray, tau: float, mode: str, standardized: bool) -> float:
    """The formula, written again with numpy and scipy."""
    if standardized:
        real, synthetic = ((x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-7) for x in (real, synthetic))
    p, q = (softmax(x / tau if mode == "divide" else x * tau, axis=1) for x in (real, synthetic))
    return tau**2 * float(rel_entr(p, q).sum(1).mean())


class TestStandardize:
    def test_mean_is_zero_and_biased_deviation_is_one(self):
        z = standardize(random_logits(0))
        # (std + 1e-7) in the denominator leaves the deviation 1e-7 / std below 1.
        assert z.mean(1).abs().max() < 1e-12
        assert (z.square().mean(1).sqrt() - 1).abs().max() < 1e-6

    @pytest.mark.parametrize(("factor", "published"), [(1, 0.757), (2, 0.989), (1 / 2, 0.370)])
    def test_one_hot_logits_give_the_known_top_probability(self, factor, published):
        z = standardize(F.one_hot(torch.tensor([3]), 10).double())
        assert torch.softmax(z * factor, 1)[0, 3].item() == pytest.approx(published, abs=1e-3)
        # Biased deviation of one 1 among ten: sqrt(.1 * .9) = .3, so the values are 3 and -1/3.
        assert z[0, 3].item() == pytest.approx(3, abs=1e-5)
        assert z[0, 0].item() == pytest.approx(-1 / 3, abs=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1024.0])
    def test_equal_logits_give_zeros_and_no_gradient(self, dtype, value):
        # Eight of these values have an exact mean in binary.
        logits = torch.full((2, 8), value, dtype=dtype, requires_grad=True)
        z = standardize(logits)
        (z * torch.arange(8)).sum().backward()
        assert torch.equal(z.detach(), torch.zeros(2, 8, dtype=dtype))
        assert torch.equal(logits.grad, torch.zeros(2, 8, dtype=dtype))

    def test_over_either_axis_it_is_a_normalisation_of_torch(self):
        logits = random_logits(2)
        normal = F.layer_norm(logits, (10,), eps=0), F.batch_norm(logits, None, None, training=True, eps=1e-14)
        for dim, expected in zip((1, 0), normal, strict=True):
            torch.testing.assert_close(standardize(logits, dim=dim), expected, rtol=1e-6, atol=1e-6)
            found = skd(logits, random_logits(3), 2.0, over="classes" if dim == 1 else "batch")
            other = standardize(random_logits(3), dim=dim)
            assert found.item() == pytest.approx(4 * kl(expected / 2, other / 2).item(), rel=1e-5)

    def test_each_sample_stands_alone(self):
        logits = random_logits(1)
        logits[2] = 4.0
        alone = torch.cat([standardize(row[None]) for row in logits])
        torch.testing.assert_close(standardize(logits), alone, rtol=0, atol=1e-15)


@pytest.mark.parametrize("standardized", [True, False])
@pytest.mark.parametrize("mode", ["divide", "multiply"])
class TestSkdProperties:
    @settings(max_examples=40, deadline=None)
    @given(logits=ANY_LOGITS, tau=st.floats(0.1, 10))
    def test_zero_at_equality(self, mode, standardized, logits, tau):
        x = torch.from_numpy(logits)
        assert skd(x, x.clone(), tau, mode, standardized).item() == pytest.approx(0, abs=tau**2 * 1e-12)

    @settings(max_examples=60, deadline=None)
    @given(logits=ANY_LOGITS, tau=st.floats(0.1, 10), seed=st.integers(0, 2**31))
    def test_never_negative(self, mode, standardized, logits, tau, seed):
        x = torch.from_numpy(logits)
        other = 5 * random_logits(seed, *x.shape)
        assert skd(x, other, tau, mode, standardized).item() >= -(tau**2) * 1e-12
        assert skd(other, x, tau, mode, standardized).item() >= -(tau**2) * 1e-12

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("value", [0.0, 0.1, 7.3, -1e4])
    def test_constant_logits_give_a_finite_loss_and_gradient(self, mode, standardized, dtype, value):
        real = random_logits(0, dtype=dtype)
        constant = torch.full_like(real, value).requires_grad_(True)
        loss = skd(real, constant, 2.0, mode, standardized)
        loss.backward()
        assert loss.isfinite()
        assert constant.grad.isfinite().all()
        assert skd(constant.detach(), real, 2.0, mode, standardized).isfinite()

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**31), shift=st.floats(-5, 5))
    def test_unchanged_by_a_shift_of_any_sample(self, mode, standardized, seed, shift):
        real, synthetic = random_logits(seed), random_logits(seed + 1)
        shifts = shift * torch.arange(1, 7, dtype=torch.float64)[:, None]
        expected = skd(real, synthetic, 2.0, mode, standardized).item()
        assert skd(real + shifts, synthetic - shifts, 2.0, mode, standardized).item() == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize("mode", ["divide", "multiply"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_standardized_skd_is_unchanged_by_a_positive_scale_of_any_sample(mode, seed, scale):
    real, synthetic = random_logits(seed), random_logits(seed + 1)
    scales = scale ** torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]  # each in [.1, 10]
    expected = skd(real, synthetic, 2.0, mode).item()
    # Scaling by s turns the 1e-7 beside the deviation into 1e-7 / s: with a deviation of at least .2, |z| <= 3 and
    # s >= .1, z moves by at most 3 * 1e-6 / .2 = 1.5e-5, times tau 2, the slope of KL in either z, below 20, and tau^2.
    assert skd(real * scales, synthetic / scales, 2.0, mode).item() == pytest.approx(expected, abs=24e-4)
    # At the first order the error is proportional to 1e-7, so typical logits stay far below that bound.
    assert skd(real * 2, synthetic * 3, 2.0, mode).item() == pytest.approx(expected, abs=8e-5)


@pytest.mark.parametrize("standardized", [True, False])
@pytest.mark.parametrize("mode", ["divide", "multiply"])
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_skd_is_tau_squared_times_scipys_relative_entropy(mode, tau, standardized, seed):
    real, synthetic = 3 * random_logits(seed), 2 * random_logits(seed + 100)
    expected = reference(real.numpy(), synthetic.numpy(), tau, mode, standardized)
    assert skd(real, synthetic, tau, mode, standardized).item() == pytest.approx(expected, abs=1e-10)
    # The divergence is not symmetric: the real side comes first.
    swapped = reference(synthetic.numpy(), real.numpy(), tau, mode, standardized)
    assert abs(expected - swapped) > 1e-4


def test_divide_and_standardized_are_the_defaults():
    real, synthetic = random_logits(0), random_logits(1)
    assert skd(real, synthetic, 3.0).item() == skd(real, synthetic, 3.0, "divide", standardized=True).item()


@pytest.mark.parametrize("seed", range(3))
def test_log_probability_mse_is_the_numpy_formula(seed):
    real, synthetic = 3 * random_logits(seed), random_logits(seed + 10)
    squares = (log_softmax(real.numpy(), axis=1) - log_softmax(synthetic.numpy(), axis=1)) ** 2
    assert log_probability_mse(real, synthetic).item() == pytest.approx(squares.mean(), abs=1e-12)


def skd_of(mode: str, standardized: bool):
    return lambda real, synthetic: skd(real, synthetic, 2.0, mode, standardized)


def on_labels(formula, alpha: float = 0.5, temperature: float = 1.5):
    """Return a distillation loss as a function of the teacher's logits and the student's."""
    return lambda teacher, student: formula(student, teacher, LABELS, alpha, temperature)


@pytest.mark.parametrize(
    "loss",
    [
        *(skd_of(mode, standardized) for mode in ("divide", "multiply") for standardized in (True, False)),
        *(log_probability_mse, on_labels(distillation), on_labels(released_distillation)),
        on_labels(released_distillation, 0.5, 0.0),
    ],
)
def test_the_gradient_is_that_of_differences_and_stops_at_the_real_side_or_the_teacher(loss):
    real, synthetic = (3 * random_logits(0)).requires_grad_(True), random_logits(1).requires_grad_(True)
    loss(real, synthetic).backward()
    assert real.grad is None
    assert synthetic.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(partial(loss, real), synthetic)


@pytest.mark.parametrize("formula", [distillation, released_distillation])
@pytest.mark.parametrize("temperature", [0.5, 1.5, 10.0])
def test_alpha_1_is_0_at_the_teacher_and_has_no_slope_there(formula, temperature):
    student = random_logits(0).requires_grad_(True)
    loss = on_labels(formula, 1.0, temperature)(student.detach().clone(), student)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-11


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_distillation_is_the_formula(alpha, temperature):
    student, teacher = random_logits(0), 3 * random_logits(1)
    s, t = student.numpy(), teacher.numpy()
    divergence = rel_entr(softmax(t / temperature, axis=1), softmax(s / temperature, axis=1)).sum(1).mean()
    entropy = -log_softmax(s, axis=1)[np.arange(6), LABELS.numpy()].mean()
    expected = alpha * temperature**2 * divergence + (1 - alpha) * entropy
    loss = distillation(student, teacher, LABELS, alpha, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 0.05, 1.5, 10.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_released_distillation_is_its_formula(alpha, temperature):
    student, teacher = random_logits(0), 3 * random_logits(1)
    s, t = softmax(student.numpy(), axis=1), softmax(teacher.numpy(), axis=1)
    divergence = rel_entr(s, t).sum(1).mean()
    entropy = -np.log(s)[np.arange(6), LABELS.numpy()].mean()
    expected = (1 - alpha) * entropy + alpha * temperature**3 * divergence
    loss = released_distillation(student, teacher, LABELS, alpha, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("formula", [distillation, released_distillation])
def test_probabilities_may_stand_for_labels(formula):
    student, teacher = random_logits(0), random_logits(1)
    certain = F.one_hot(LABELS, 10).double()
    hard = formula(student, teacher, LABELS, 0.4, 2.0).item()
    assert formula(student, teacher, certain, 0.4, 2.0).item() == pytest.approx(hard, abs=1e-14)
    # The mean over classes of the cross-entropy is what a uniform label gives.
    every = [F.cross_entropy(student, torch.full_like(LABELS, k)).item() for k in range(10)]
    uniform = formula(student, teacher, torch.full_like(certain, 0.1), 0.0, 2.0).item()
    assert uniform == pytest.approx(sum(every) / 10, abs=1e-14)


def test_logits_that_are_not_finite_classify_nothing():
    """argmax takes the first nan, and the largest of infinities."""
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[1.0, 0.0], [nan, 0.0], [0.0, nan], [inf, 0.0], [0.0, -inf], [0.0, 1.0]])
    assert logits.argmax(1).tolist() == [0, 0, 1, 0, 0, 1]
    assert classified(logits, torch.tensor([0, 0, 1, 0, 0, 1])).tolist() == [True, False, False, False, False, True]
    assert classified(logits, 1).tolist() == [False] * 5 + [True]


class TestPaired:
    LABELS = torch.tensor([0, 1, 0, 1, 1, 2, 0])

    def test_equal_batches_in_another_order_find_each_other(self):
        real = random_logits(0, 7)
        order = torch.tensor([2, 4, 6, 1, 3, 5, 0])  # within classes
        assert torch.equal(paired(real, real[order], self.LABELS), real[order])

    def test_logits_are_standardized_first(self):
        real = random_logits(0, 7)
        order = torch.tensor([2, 4, 6, 1, 3, 5, 0])
        assert torch.equal(paired(100 * real + 3, real[order], self.LABELS), 100 * real[order] + 3)

    def test_no_other_assignment_within_the_classes_is_nearer(self):
        real, synthetic = random_logits(1, 7), random_logits(2, 7)
        rows = paired(real, synthetic, self.LABELS)
        pairs = [int((real == row).all(1).nonzero()) for row in rows]
        assert torch.equal(self.LABELS[pairs], self.LABELS)
        assert sorted(pairs) == list(range(7))
        found = (standardize(rows) - standardize(synthetic)).square().sum()
        for zeros in permutations([0, 2, 6]):
            for ones in permutations([1, 3, 4]):
                other = torch.arange(7)
                other[[0, 2, 6]], other[[1, 3, 4]] = torch.tensor(zeros), torch.tensor(ones)
                assert found <= (standardize(real)[other] - standardize(synthetic)).square().sum() + 1e-12

    def test_a_diverged_batch_is_left_to_the_loss(self):
        synthetic = random_logits(2, 7)
        synthetic[1] = torch.nan
        assert paired(random_logits(1, 7), synthetic, self.LABELS).isfinite().all()
