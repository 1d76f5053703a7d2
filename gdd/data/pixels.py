"""The only conversions between pixel spaces.

`u8`: uint8 0..255, how images are stored. `unit`: float [0, 1]. `pm1`: float [-1, 1], the generator's tanh
range. `std`: (unit - mean) / std per channel, what a classifier sees.
"""

import torch
from torch import Tensor


class Normalizer:
    """Convert to classifier space on one device, by mean and std per channel of a dataset's pixels in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device | str = "cpu") -> None:
        self.mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, -1, 1, 1)

    def from_unit(self, images_unit: Tensor) -> Tensor:
        return (images_unit - self.mean) / self.std

    def from_u8(self, images_u8: Tensor) -> Tensor:
        return self.from_unit(u8_to_unit(images_u8))

    def from_pm1(self, images_pm1: Tensor) -> Tensor:
        """Differentiable: refinement sends gradients through it into the generator."""
        return self.from_unit(pm1_to_unit(images_pm1))

    def from_unit_rounded_once(self, images_unit: Tensor) -> Tensor:
        """`from_unit` for files: computed in float64, rounded to float32 once."""
        return ((images_unit.double() - self.mean.double()) / self.std.double()).float()

    def to_unit(self, images_std: Tensor) -> Tensor:
        """Invert `from_unit`, unclipped; computed in float64 and rounded once to float32."""
        return (images_std.double() * self.std.double() + self.mean.double()).float()


def u8_to_pm1(images_u8: Tensor) -> Tensor:
    return images_u8.float() / 127.5 - 1


def pm1_to_u8(images_pm1: Tensor) -> Tensor:
    """Round to the nearest of 256 levels; `pm1_to_u8(u8_to_pm1(x)) == x`."""
    return ((images_pm1 + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pm1_to_unit(images_pm1: Tensor) -> Tensor:
    return (images_pm1 + 1) / 2


def unit_to_u8(images_unit: Tensor) -> Tensor:
    return (images_unit * 255).round().clamp(0, 255).to(torch.uint8)


def u8_to_unit(images_u8: Tensor) -> Tensor:
    return images_u8.float() / 255


def is_far_from_unit(images: Tensor) -> bool:
    """Tell whether pixels are so far from [0, 1] that they are of another space: levels to 255, or normalised twice."""
    low, high = images.aminmax()
    return max(-float(low), float(high)) > 50
