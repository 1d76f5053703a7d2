import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, rel_entr, softmax
from torch.nn import functional as F

from gdd.losses.logits import distillation, log_probability_mse, released_distillation, skd, standardize

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

    def test_positive_for_different_orders(self, mode, standardized):
        x = random_logits(0)
        assert skd(x, x.flip(1), 2.0, mode, standardized).item() > 0.01

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

    def test_no_gradient_flows_into_the_real_side(self, mode, standardized):
        real, synthetic = random_logits(0).requires_grad_(True), random_logits(1).requires_grad_(True)
        skd(real, synthetic, 2.0, mode, standardized).backward()
        assert real.grad is None
        assert synthetic.grad.abs().sum() > 0

    def test_a_batch_is_the_mean_of_its_samples(self, mode, standardized):
        real, synthetic = random_logits(0), random_logits(1)
        rows = [skd(real[i : i + 1], synthetic[i : i + 1], 2.0, mode, standardized) for i in range(len(real))]
        assert skd(real, synthetic, 2.0, mode, standardized).item() == pytest.approx(
            torch.stack(rows).mean().item(), abs=1e-12
        )

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


def test_skd_without_standardization_does_change_with_scale():
    real, synthetic = random_logits(0), random_logits(1)
    plain = skd(real, synthetic, 2.0, standardized=False).item()
    assert skd(2 * real, 2 * synthetic, 2.0, standardized=False).item() > 1.5 * plain


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


@pytest.mark.parametrize(("mode", "tau", "top"), [("divide", 1, 0.757), ("multiply", 2, 0.989), ("divide", 2, 0.370)])
def test_skd_of_one_hot_against_flat_logits_is_known(mode, tau, top):
    # Flat synthetic logits are uniform, so KL = log K - entropy of (p, q, ..., q).
    real, flat = F.one_hot(torch.tensor([0]), 10).double(), torch.zeros(1, 10, dtype=torch.float64)
    loss = skd(real, flat, float(tau), mode).item() / tau**2

    def divergence(p: float) -> float:
        q = (1 - p) / 9
        return math.log(10) + p * math.log(p) + 9 * q * math.log(q)

    assert divergence(top - 1e-3) < loss < divergence(top + 1e-3)


def test_divide_is_the_default_and_softens():
    real, synthetic = random_logits(0), random_logits(1)
    default = skd(real, synthetic, 3.0).item()
    assert default == skd(real, synthetic, 3.0, "divide").item()
    assert default / 9 < skd(real, synthetic, 1.0).item() < skd(real, synthetic, 3.0, "multiply").item() / 9
    multiplied = 4.0**4 * skd(real, synthetic, 0.25, "multiply").item()  # tau^2 is 16 here and 1 / 16 there
    assert skd(real, synthetic, 4.0, "divide").item() == pytest.approx(multiplied, abs=1e-13)


class TestLogProbabilityMse:
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_the_numpy_formula(self, seed):
        real, synthetic = 3 * random_logits(seed), random_logits(seed + 10)
        squares = (log_softmax(real.numpy(), axis=1) - log_softmax(synthetic.numpy(), axis=1)) ** 2
        assert log_probability_mse(real, synthetic).item() == pytest.approx(squares.mean(), abs=1e-12)

    def test_known_number(self):
        # Two classes, probabilities 1/2, 1/2 against 1/4, 3/4: log 2 squared and log 1.5 squared.
        real = torch.zeros(1, 2, dtype=torch.float64)
        synthetic = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
        expected = (math.log(2) ** 2 + math.log(1.5) ** 2) / 2
        assert log_probability_mse(real, synthetic).item() == pytest.approx(expected, abs=1e-14)

    def test_no_gradient_flows_into_the_real_side(self):
        real, synthetic = random_logits(0).requires_grad_(True), random_logits(1).requires_grad_(True)
        log_probability_mse(real, synthetic).backward()
        assert real.grad is None
        assert synthetic.grad.abs().sum() > 0


class TestDistillation:
    labels = torch.tensor([0, 3, 9, 1, 1, 5])

    def numpy_parts(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> tuple[float, float]:
        s, t = student.numpy(), teacher.numpy()
        divergence = rel_entr(softmax(t / temperature, axis=1), softmax(s / temperature, axis=1)).sum(1).mean()
        rows = np.arange(len(s))
        return temperature**2 * divergence, -log_softmax(s, axis=1)[rows, self.labels.numpy()].mean()

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5, 4.0])
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_equals_the_formula(self, alpha, temperature):
        student, teacher = random_logits(0), 3 * random_logits(1)
        divergence, entropy = self.numpy_parts(student, teacher, temperature)
        expected = alpha * divergence + (1 - alpha) * entropy
        loss = distillation(student, teacher, self.labels, alpha, temperature)
        assert loss.item() == pytest.approx(expected, abs=1e-12)

    def test_alpha_0_is_cross_entropy_of_the_labels(self):
        student = random_logits(0)
        loss = distillation(student, random_logits(1), self.labels, 0.0, 4.0)
        assert loss.item() == pytest.approx(F.cross_entropy(student, self.labels).item(), abs=1e-14)

    @pytest.mark.parametrize("temperature", [0.5, 1.5, 20.0])
    def test_alpha_1_is_0_at_the_teacher_and_has_no_slope_there(self, temperature):
        student = random_logits(0).requires_grad_(True)
        loss = distillation(student, student.detach().clone(), self.labels, 1.0, temperature)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert student.grad.abs().max() < 1e-12

    def test_the_limit_of_large_temperature_is_half_the_variance_of_the_difference(self):
        # T^2 KL(t / T || s / T) -> Var_k(t_k - s_k) / 2 with an error of order 1 / T (Hinton et al. 2015).
        student, teacher = random_logits(0), random_logits(1)
        limit = ((teacher - student).var(1, unbiased=False) / 2).mean().item()
        errors = [
            abs(distillation(student, teacher, self.labels, 1.0, temperature).item() - limit)
            for temperature in (10.0, 100.0, 1000.0)
        ]
        assert errors[2] < 1e-3 * limit
        assert errors[0] > 5 * errors[1] > 25 * errors[2]

    def test_a_higher_temperature_spreads_the_gradient_over_the_wrong_classes(self):
        # A sure teacher tells little of the other classes until it is softened.
        student = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
        teacher = torch.tensor([[12.0, 6.0, 0.0, 0.0]], dtype=torch.float64)
        gaps = []
        for temperature in (1.0, 4.0):
            loss = distillation(student, teacher, torch.tensor([0]), 1.0, temperature)
            (gradient,) = torch.autograd.grad(loss, student)
            gaps.append((gradient[0, 2] - gradient[0, 1]).item() / temperature)
        # d/ds = T (softmax(s / T) - softmax(t / T)); the gap between classes 1 and 2 is T (p_1 - p_2).
        for gap, temperature in zip(gaps, (1.0, 4.0), strict=True):
            p = softmax(teacher.numpy()[0] / temperature)
            assert gap == pytest.approx(p[1] - p[2], abs=1e-12)
        assert gaps[1] > 30 * gaps[0]

    def test_no_gradient_flows_into_the_teacher(self):
        student, teacher = random_logits(0).requires_grad_(True), random_logits(1).requires_grad_(True)
        distillation(student, teacher, self.labels, 0.5, 2.0).backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0


class TestReleasedDistillation:
    labels = torch.tensor([0, 3, 9, 1, 1, 5])

    def loss_and_gradient(self, formula, alpha, temperature):
        student, teacher = random_logits(0).requires_grad_(True), 3 * random_logits(1)
        loss = formula(student, teacher, self.labels, alpha, temperature)
        return loss.item(), torch.autograd.grad(loss, student)[0]

    @pytest.mark.parametrize("temperature", [0.0, 0.05, 1.5, 10.0])
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_equals_the_formula(self, alpha, temperature):
        student, teacher = random_logits(0), 3 * random_logits(1)
        s, t = softmax(student.numpy(), axis=1), softmax(teacher.numpy(), axis=1)
        divergence = rel_entr(s, t).sum(1).mean()
        entropy = -np.log(s)[np.arange(6), self.labels.numpy()].mean()
        expected = (1 - alpha) * entropy + alpha * temperature**3 * divergence
        loss = released_distillation(student, teacher, self.labels, alpha, temperature)
        assert loss.item() == pytest.approx(expected, rel=1e-12)

    def test_known_number_in_the_reverse_direction(self):
        # Student 1/2, 1/2 and teacher 1/4, 3/4: KL = (log 2 + log 2/3) / 2; eq. 1's direction differs.
        student = torch.zeros(1, 2, dtype=torch.float64)
        teacher = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
        loss = released_distillation(student, teacher, torch.tensor([0]), 1.0, 1.0).item()
        assert loss == pytest.approx((math.log(2) + math.log(2 / 3)) / 2, abs=1e-14)
        other = distillation(student, teacher, torch.tensor([0]), 1.0, 1.0).item()
        assert other == pytest.approx(math.log(1 / 2) / 4 + 3 * math.log(3 / 2) / 4, abs=1e-14)
        assert abs(loss - other) > 0.01

    @pytest.mark.parametrize("temperature", [0.5, 1.5, 10.0])
    def test_alpha_1_is_0_at_the_teacher_and_has_no_slope_there(self, temperature):
        student = random_logits(0).requires_grad_(True)
        loss = released_distillation(student, student.detach().clone(), self.labels, 1.0, temperature)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert student.grad.abs().max() < 1e-11

    @pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
    def test_temperature_0_leaves_a_share_of_cross_entropy(self, alpha):
        loss, gradient = self.loss_and_gradient(released_distillation, alpha, 0.0)
        student = random_logits(0).requires_grad_(True)
        share = (1 - alpha) * F.cross_entropy(student, self.labels)
        assert loss == share.item()
        assert torch.equal(gradient, torch.autograd.grad(share, student)[0])

    def test_temperature_only_weighs_while_that_of_the_equation_softens(self):
        one, three = (self.loss_and_gradient(released_distillation, 1.0, temperature) for temperature in (1.0, 3.0))
        assert three[0] == pytest.approx(27 * one[0], rel=1e-12)
        torch.testing.assert_close(three[1], 27 * one[1], rtol=1e-12, atol=1e-14)
        one, three = (self.loss_and_gradient(distillation, 1.0, temperature)[1] for temperature in (1.0, 3.0))
        assert F.cosine_similarity(one.flatten(), three.flatten(), dim=0) < 0.95

    def test_gradient_goes_through_the_student_alone_and_is_that_of_differences(self):
        student, teacher = random_logits(0).requires_grad_(True), (3 * random_logits(1)).requires_grad_(True)

        def loss(logits: torch.Tensor) -> torch.Tensor:
            return released_distillation(logits, teacher, self.labels, 0.5, 1.5)

        assert torch.autograd.gradcheck(loss, student)
        loss(student).backward()
        assert teacher.grad is None


@pytest.mark.parametrize("formula", [distillation, released_distillation])
def test_probabilities_may_stand_for_labels(formula):
    student, teacher, labels = random_logits(0), random_logits(1), torch.tensor([0, 3, 9, 1, 1, 5])
    certain = F.one_hot(labels, 10).double()
    hard = formula(student, teacher, labels, 0.4, 2.0).item()
    assert formula(student, teacher, certain, 0.4, 2.0).item() == pytest.approx(hard, abs=1e-14)
    # The mean over classes of the cross-entropy is what a uniform label gives.
    every = [F.cross_entropy(student, torch.full_like(labels, k)).item() for k in range(10)]
    uniform = formula(student, teacher, torch.full_like(certain, 0.1), 0.0, 2.0).item()
    assert uniform == pytest.approx(sum(every) / 10, abs=1e-14)
