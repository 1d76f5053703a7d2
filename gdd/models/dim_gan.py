"""DiM's conditional generator and discriminator for any image size, class count and width.

Sizes follow DiM (gan_model.py) at width 196. One thing differs: the class has inputs of its own instead of
overwriting the first entries of the noise, so the generator's first layer has K * width * h0 * w0 more weights.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gdd.models.gan_parts import BatchNorm, Discriminator, Generator
from gdd.models.layers import LayerNorm


def _halvings(size: int) -> tuple[int, int, int, int]:
    """Return the sides of the maps from an eighth of `size` up to `size`, each half rounded up."""
    sides = [size]
    for _ in range(3):
        sides.append(math.ceil(sides[-1] / 2))
    return sides[3], sides[2], sides[1], sides[0]


class _Largest(nn.AdaptiveMaxPool2d):
    """The largest value of each map: torch's own pool has no deterministic gradient on a GPU.

    Where several are the largest, which training has not met, they share the gradient; torch's own gives it to one.
    """

    def _get_name(self) -> str:
        return "AdaptiveMaxPool2d"  # as earlier checkpoints have it

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(2).amax(2)


class DimGenerator(Generator):
    """Map noise and a class to an image in [-1, 1].

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: channels of every hidden layer.
        noise_dim: length of the noise vector.
    """

    arch = "dim"

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: int, noise_dim: int) -> None:
        super().__init__()
        channels, height, pixel_width = shape
        self.num_classes, self.width, self.noise_dim = num_classes, width, noise_dim
        sizes = list(zip(_halvings(height), _halvings(pixel_width), strict=True))
        self.base = (width, *sizes[0])
        self.project = nn.Sequential(
            nn.Linear(noise_dim + num_classes, math.prod(self.base)),
            BatchNorm(math.prod(self.base)),
            nn.ReLU(),
        )

        def normalised(layer: nn.Module) -> list[nn.Module]:
            return [layer, BatchNorm(width), nn.ReLU()]

        def conv() -> list[nn.Module]:
            return normalised(nn.Conv2d(width, width, 3, padding=1))

        def upsample(step: int) -> list[nn.Module]:
            # Kernel 4 doubles a side; kernel 3 makes it one less, for sides such as 4 -> 7 of 28 pixels.
            kernel = (4 - sizes[step + 1][0] % 2, 4 - sizes[step + 1][1] % 2)
            return normalised(nn.ConvTranspose2d(width, width, kernel, stride=2, padding=1))

        layers = [*upsample(0), *conv(), *conv(), *conv(), *upsample(1), *conv(), *upsample(2)]
        self.render = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())

    def _get_name(self) -> str:
        return "Generator"  # as checkpoints of 0.1.0 have it

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return images (B, C, H, W) for noise (B, noise_dim) and labels (B,)."""
        one_hot = F.one_hot(labels, self.num_classes).to(noise.dtype)
        features = self.project(torch.cat([noise, one_hot], dim=1))
        return self.render(rearrange(features, "b (c h w) -> b c h w", c=self.base[0], h=self.base[1]))


class DimDiscriminator(Discriminator):
    """Score images for realness and for each class.

    No batch norm: under DDP its buffers break two forward passes with one backward (needs of Accelerate).

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: channels of every hidden layer.
    """

    STRIDES = (1, 2, 1, 2, 1, 1, 1, 2)

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        channels, height, pixel_width = shape
        layers: list[nn.Module] = []
        for stride in self.STRIDES:
            height, pixel_width = math.ceil(height / stride), math.ceil(pixel_width / stride)
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1),
                LayerNorm([width, height, pixel_width]),
                nn.LeakyReLU(0.01),
            ]
            channels = width
        self.features = nn.Sequential(*layers, _Largest(1), nn.Flatten())
        self.critic = nn.Linear(width, 1)
        self.classes = nn.Linear(width, num_classes)

    def _get_name(self) -> str:
        return "Discriminator"  # as checkpoints of 0.1.0 have it

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return realness scores (B,) and class logits (B, K) of images (B, C, H, W) in [-1, 1]."""
        features = self.features(images)
        return self.critic(features).squeeze(1), self.classes(features)
