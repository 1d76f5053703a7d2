"""Build generators and discriminators by name."""

from typing import Literal

from gdd.config import GanConfig
from gdd.models.dim_gan import DimDiscriminator, DimGenerator
from gdd.models.gan_parts import Discriminator, Generator
from gdd.models.layers import Shape
from gdd.models.residual_gan import ResidualDiscriminator, ResidualGenerator

Arch = Literal["dim", "residual"]

_DIM = {"small": 32, "medium": 64, "large": 196}
_RESIDUAL = {"small": 1, "medium": 2, "large": 4}


def width_of(settings: GanConfig, shape: Shape) -> int:
    """Return the networks' width for images (C, H, W): the given one, or what gan.size stands for."""
    if settings.width is not None:
        return settings.width
    if settings.arch == "dim":
        return _DIM[settings.size]
    channels, height, pixel_width = shape
    smallest = 16 if min(height, pixel_width) <= 16 else 24 if channels == 1 else 32
    return _RESIDUAL[settings.size] * smallest


def make_generator(arch: Arch, shape: Shape, num_classes: int, width: int, noise_dim: int) -> Generator:
    """Return a new generator of images (C, H, W); the sizes are those of its class."""
    build = {"dim": DimGenerator, "residual": ResidualGenerator}[arch]
    return build(shape, num_classes, width, noise_dim)


def make_discriminator(arch: Arch, shape: Shape, num_classes: int, width: int) -> Discriminator:
    """Return a new discriminator of images (C, H, W)."""
    build = {"dim": DimDiscriminator, "residual": ResidualDiscriminator}[arch]
    return build(shape, num_classes, width)
