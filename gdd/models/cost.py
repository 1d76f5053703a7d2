"""Floating-point operations of networks, counted by torch without memory or work."""

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from gdd.models import registry
from gdd.models.gan import Discriminator, Generator
from gdd.models.layers import Shape

_PROBE = 2  # images; batch norm in train mode needs more than one
# A gradient costs about twice what the answer does.
TRAINING = 3


@cache
def classifier_flop(arch: str, shape: Shape, num_classes: int) -> float:
    """Return the FLOP of a classifier's answer to one image (C, H, W)."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        registry.build(arch, shape, num_classes)(torch.zeros(_PROBE, *shape))
    return counter.get_total_flops() / _PROBE


@cache
def gan_flop(shape: Shape, num_classes: int, width: int, noise_dim: int) -> tuple[float, float]:
    """Return the FLOP of a generator that makes one image, and of a discriminator that scores it."""
    with torch.device("meta"):
        generator, discriminator = (
            Generator(shape, num_classes, width, noise_dim),
            Discriminator(shape, num_classes, width),
        )
        with FlopCounterMode(display=False) as of_generator:
            images = generator(torch.zeros(_PROBE, noise_dim), torch.zeros(_PROBE, dtype=torch.int64))
        with FlopCounterMode(display=False) as of_discriminator:
            discriminator(images)
    return of_generator.get_total_flops() / _PROBE, of_discriminator.get_total_flops() / _PROBE


def gan_step_flop(generator: float, discriminator: float, penalties: float) -> float:
    """Return the FLOP of both turns of an adversarial step, for each image of its batch.

    Args:
        generator: of `gan_flop`.
        discriminator: of `gan_flop`.
        penalties: gradient penalties per step.
    """
    # The generator's turn: its gradient, through the discriminator to the images alone. The discriminator's: new
    # images without gradient, and its own gradient for as many real ones besides.
    return 4 * generator + (2 + 2 * TRAINING + 6 * penalties) * discriminator
