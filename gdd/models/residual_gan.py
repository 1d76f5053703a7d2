"""A residual, class-conditional generator and discriminator for any image size, class count and width.

Blocks as SNGAN has them (Miyato et al. 2018, Miyato and Koyama 2018): class-conditional batch norm in every block of
the generator, spectral norm and projection in the discriminator. Channels double as sides halve.
"""

import itertools
import math
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gdd.models.gan_parts import BatchNorm, Discriminator, Generator

_SMALLEST = 4  # the side at which blocks end
_MOST = 8  # channels of the smallest maps, in widths


def _sides(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of the maps, from at most 4 pixels at the shorter side up to the image's, halves rounded up."""
    sides = [(height, width)]
    while min(sides[-1]) > _SMALLEST:
        sides.append((math.ceil(sides[-1][0] / 2), math.ceil(sides[-1][1] / 2)))
    return sides[::-1]


def _channels(width: int, count: int) -> list[int]:
    """Return the channels at each of `count` sizes, the smallest map first."""
    return [width * min(2**halvings, _MOST) for halvings in reversed(range(count))]


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are the class's own (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, affine=False)
        self.scale = nn.Embedding(num_classes, channels)
        self.shift = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        return self.norm(maps) * self.scale(labels)[:, :, None, None] + self.shift(labels)[:, :, None, None]


class _Up(nn.Module):
    """A residual block of the generator that enlarges maps to a given size by repeating pixels."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.size = size
        self.first_norm = ConditionalBatchNorm(inputs, num_classes)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second_norm = ConditionalBatchNorm(outputs, num_classes)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        branch = self._enlarged(F.relu(self.first_norm(maps, labels)))
        branch = F.relu(self.second_norm(self.first(branch), labels))
        return self.second(branch) + self._enlarged(self.shortcut(maps))

    def _enlarged(self, maps: Tensor) -> Tensor:
        return F.interpolate(maps, self.size)


class ResidualGenerator(Generator):
    """Map noise and a class to an image in [-1, 1].

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: channels at the image's own size; they double with each halving, up to eightfold.
        noise_dim: length of the noise vector.
    """

    arch = "residual"

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: int, noise_dim: int) -> None:
        super().__init__()
        self.num_classes, self.width, self.noise_dim = num_classes, width, noise_dim
        sides = _sides(*shape[1:])
        channels = _channels(width, len(sides))
        self.base = (channels[0], *sides[0])
        self.project = nn.Linear(noise_dim, math.prod(self.base))
        steps = zip(channels, channels[1:], sides[1:], strict=False)
        self.blocks = nn.ModuleList(_Up(*step, num_classes) for step in steps)
        self.norm = ConditionalBatchNorm(channels[-1], num_classes)
        self.render = nn.Conv2d(channels[-1], shape[0], 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return images (B, C, H, W) for noise (B, noise_dim) and labels (B,)."""
        maps = rearrange(self.project(noise), "b (h w c) -> b c h w", c=self.base[0], h=self.base[1])
        for block in self.blocks:
            maps = block(maps, labels)
        return torch.tanh(self.render(F.relu(self.norm(maps, labels))))


class _Float32(nn.Module):
    """Spectral norm in float32 under autocast: a norm's statistics need more digits than bfloat16 has."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return self.norm(weight)


def _normalised(layer: nn.Module) -> nn.Module:
    spectral_norm(layer)
    norms = cast(nn.ModuleDict, layer.parametrizations)["weight"]
    assert isinstance(norms, nn.ModuleList)
    norms[0] = _Float32(norms[0])
    return layer


class _Down(nn.Module):
    """A residual block of the discriminator that halves maps, if asked to, by means of 2x2 pixels."""

    def __init__(self, inputs: int, outputs: int, halves: bool, first: bool) -> None:
        super().__init__()
        self.halves, self.activated = halves, not first  # an image has nothing to rectify
        self.first = _normalised(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.second = _normalised(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = _normalised(nn.Conv2d(inputs, outputs, 1))

    def forward(self, maps: Tensor) -> Tensor:
        branch = F.relu(maps) if self.activated else maps
        branch = self._halved(self.second(F.relu(self.first(branch))))
        return branch + self.shortcut(self._halved(maps))

    def _halved(self, maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 2, ceil_mode=True) if self.halves else maps


class ResidualDiscriminator(Discriminator):
    """Score images for realness and, by projection, for each class.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: channels at the image's own size.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        sides = _sides(*shape[1:])
        # The maps of a size come from the block that halved to it; one more block ends at the smallest.
        channels = [shape[0], *_channels(width, len(sides))[::-1]]
        blocks = [
            _Down(inputs, outputs, halves=index < len(sides) - 1, first=index == 0)
            for index, (inputs, outputs) in enumerate(itertools.pairwise(channels))
        ]
        self.blocks = nn.Sequential(*blocks)
        self.critic = _normalised(nn.Linear(channels[-1], 1))
        self.classes = _normalised(nn.Linear(channels[-1], num_classes, bias=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return realness scores (B,) and class logits (B, K) of images (B, C, H, W) in [-1, 1]."""
        features = F.relu(self.blocks(images)).sum((2, 3))
        return self.critic(features).squeeze(1), self.classes(features)
