"""Build generators and discriminators by name."""

from typing import Literal

from gdd.models.dim_gan import DimDiscriminator, DimGenerator
from gdd.models.gan_parts import Discriminator, Generator
from gdd.models.layers import Shape
from gdd.models.residual_gan import ResidualDiscriminator, ResidualGenerator

Arch = Literal["dim", "residual"]


def make_generator(arch: Arch, shape: Shape, num_classes: int, width: int, noise_dim: int) -> Generator:
    """Return a new generator of images (C, H, W); the sizes are those of its class."""
    build = {"dim": DimGenerator, "residual": ResidualGenerator}[arch]
    return build(shape, num_classes, width, noise_dim)


def make_discriminator(arch: Arch, shape: Shape, num_classes: int, width: int) -> Discriminator:
    """Return a new discriminator of images (C, H, W)."""
    build = {"dim": DimDiscriminator, "residual": ResidualDiscriminator}[arch]
    return build(shape, num_classes, width)
