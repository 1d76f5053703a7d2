"""Adversarial losses on critic scores, and gradient penalties.

A score is (B,): high means real. Conditioning on the class happens where the score is made (training/gan.py).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(kind: str, fake_score: Tensor) -> Tensor:
    """Return what the generator minimises: softplus(-D(fake)) for ns, -D(fake) for hinge and wgan-gp."""
    return F.softplus(-fake_score).mean() if kind == "ns" else -fake_score.mean()


def discriminator_loss(kind: str, real_score: Tensor, fake_score: Tensor) -> Tensor:
    """Return what the discriminator minimises, penalties apart.

    ns: Goodfellow et al. 2014; hinge: Lim and Ye 2017; wgan-gp: Arjovsky et al. 2017.
    """
    if kind == "ns":
        return F.softplus(-real_score).mean() + F.softplus(fake_score).mean()
    if kind == "hinge":
        return F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()
    return fake_score.mean() - real_score.mean()


def _input_gradient(score: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.detach().requires_grad_(True)
    scores = score(images)
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.flatten(1), scores


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mixing: Tensor) -> Tensor:
    """Return mean_i (|grad D(x_i)| - 1)^2 at x_i = a_i real_i + (1 - a_i) fake_i (Gulrajani et al. 2017).

    The score maps images (B, C, H, W) to (B,); `mixing` is a, (B, 1, 1, 1) in [0, 1].
    """
    gradient, scores = _input_gradient(score, mixing * real + (1 - mixing) * fake)
    # Parameters that the gradient does not reach (the last bias) must be in the graph for DDP's reduction.
    return (gradient.norm(dim=1) - 1).square().mean() + 0 * scores.sum()


def r1_penalty(score: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Return mean_i |grad D(x_i)|^2 / 2 at real images (Mescheder et al. 2018); the caller weighs it by gamma."""
    gradient, scores = _input_gradient(score, real)
    return gradient.square().sum(dim=1).mean() / 2 + 0 * scores.sum()
