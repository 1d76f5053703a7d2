import math

import pytest
import torch
from torch import Tensor

from gdd.losses.adversarial import discriminator_loss, generator_loss, gradient_penalty, r1_penalty

KINDS = ["ns", "hinge", "wgan-gp"]
SHAPE = (2, 3, 3)
REAL, FAKE = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def draw(seed: int, *size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(seed: int, count: int) -> Tensor:
    return torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestScores:
    @pytest.mark.parametrize(
        ("kind", "discriminator", "generator"),
        [
            (
                "ns",
                (softplus(-2) + softplus(0)) / 2 + (softplus(-3) + softplus(1)) / 2,
                (softplus(3) + softplus(-1)) / 2,
            ),
            ("hinge", (0 + 1) / 2 + (0 + 2) / 2, 1.0),
            ("wgan-gp", -1 - 1, 1.0),
        ],
    )
    def test_known_values(self, kind, discriminator, generator):
        assert discriminator_loss(kind, REAL, FAKE).item() == pytest.approx(discriminator, abs=1e-6)
        assert generator_loss(kind, FAKE).item() == pytest.approx(generator, abs=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_players_pull_in_opposite_directions(self, kind):
        real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
        on_real, on_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
        (pull,) = torch.autograd.grad(generator_loss(kind, fake), fake)
        assert (on_real < 0).all()
        assert (on_fake > 0).all()
        assert (pull < 0).all()

    def test_hinge_leaves_well_separated_scores_alone(self):
        real, fake = torch.tensor([1.5], requires_grad=True), torch.tensor([-1.5], requires_grad=True)
        loss = discriminator_loss("hinge", real, fake)
        assert [g.item() for g in torch.autograd.grad(loss, (real, fake))] == [0, 0]

    @pytest.mark.parametrize("kind", KINDS)
    def test_huge_scores_stay_finite(self, kind):
        huge = torch.tensor([1e4, -1e4])
        assert discriminator_loss(kind, huge, -huge).isfinite()
        assert generator_loss(kind, huge).isfinite()


class TestGradientPenalty:
    @pytest.mark.parametrize("norm", [0.5, 1.0, 3.0])
    def test_linear_critic(self, norm):
        # D(x) = w.x + b has the gradient w everywhere, so the penalty is (|w| - 1)^2 with slope 2 (|w| - 1) w / |w|.
        w = draw(0, *SHAPE)
        w = (w * norm / w.norm()).requires_grad_(True)
        bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
        penalty = gradient_penalty(
            lambda x: (x * w).flatten(1).sum(1) + bias, draw(1, 5, *SHAPE), draw(2, 5, *SHAPE), uniform(3, 5)
        )
        penalty.backward()
        assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-12)
        torch.testing.assert_close(w.grad, 2 * (norm - 1) * w.detach() / norm, rtol=0, atol=1e-12)
        # In the graph, for the reduction over processes, but without a pull.
        assert bias.grad is not None
        assert bias.grad.item() == 0

    def test_it_is_taken_at_the_mixing_point(self):
        # D(x) = |x|^2 / 2 has the gradient x, so the penalty tells where it was taken.
        real, fake, mixing = draw(1, 5, *SHAPE), draw(2, 5, *SHAPE), uniform(3, 5)
        penalty = gradient_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real, fake, mixing)
        points = mixing * real + (1 - mixing) * fake
        assert penalty.item() == pytest.approx(((points.flatten(1).norm(dim=1) - 1) ** 2).mean().item(), abs=1e-12)

    def test_no_gradient_reaches_the_generator(self):
        real, fake = draw(1, 5, *SHAPE), draw(2, 5, *SHAPE).requires_grad_(True)
        w = torch.ones(SHAPE, dtype=torch.float64, requires_grad=True)
        gradient_penalty(lambda x: (w * x.square()).flatten(1).sum(1), real, fake, uniform(3, 5)).backward()
        assert fake.grad is None
        assert w.grad.abs().sum() > 0


class TestR1:
    @pytest.mark.parametrize("norm", [0.5, 3.0])
    def test_linear_critic(self, norm):
        w = draw(0, *SHAPE)
        w = (w * norm / w.norm()).requires_grad_(True)
        bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
        penalty = r1_penalty(lambda x: (x * w).flatten(1).sum(1) + bias, draw(1, 5, *SHAPE))
        penalty.backward()
        assert penalty.item() == pytest.approx(norm**2 / 2, abs=1e-12)
        torch.testing.assert_close(w.grad, w.detach(), rtol=0, atol=1e-12)
        assert bias.grad is not None
        assert bias.grad.item() == 0

    def test_it_is_taken_at_the_real_images(self):
        real = draw(1, 5, *SHAPE)
        penalty = r1_penalty(lambda x: x.square().flatten(1).sum(1) / 2, real)
        assert penalty.item() == pytest.approx(real.square().flatten(1).sum(1).mean().item() / 2, abs=1e-12)

    def test_a_flat_critic_has_none(self):
        assert r1_penalty(lambda x: x.flatten(1).sum(1) * 0 + 7, draw(1, 5, *SHAPE)).item() == 0
