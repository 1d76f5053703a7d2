"""Generators and discriminators for any image size, class count and width, by name.

`dim` is DiM's, whose sizes follow gan_model.py at width 196. One thing differs: the class has inputs of its own instead
of overwriting the first entries of the noise, so the first layer has K * width * h0 * w0 more weights.

`residual` has blocks as SNGAN has them (Miyato et al. 2018, Miyato and Koyama 2018): class-conditional batch norm in
every block of the generator, spectral norm and projection in the discriminator. Channels double as sides halve.
"""

import itertools
import math
import re
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import spectral_norm

from gdd.config import GanConfig
from gdd.models.layers import LayerNorm, Shape

GanArch = Literal["dim", "residual"]
# What gan.size stands for: the width of dim, and that of residual in multiples of what suits the images.
_DIM_WIDTHS = {"small": 32, "medium": 64, "large": 196}
_RESIDUAL_WIDTHS = {"small": 1, "medium": 2, "large": 4}
# Of residual: the side at which blocks end, and the channels of the smallest maps, in widths.
_SMALLEST_SIDE, _MOST_WIDTHS = 4, 8


class Generator(nn.Module):
    """Map noise (B, noise_dim) and classes (B,) to images (B, C, H, W) in [-1, 1]."""

    arch: ClassVar[GanArch]
    num_classes: int  # K
    width: int  # channels of its largest maps
    noise_dim: int  # length of the noise vector


class Discriminator(nn.Module):
    """Map images (B, C, H, W) in [-1, 1] to realness scores (B,) and class logits (B, K)."""


class _Sum(torch.autograd.Function):
    """Sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(*gradients)


class BatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, so that their number changes nothing but rounding.

    torch's own SyncBatchNorm is for GPUs alone. In eval mode, and for one process, this is torch's batch norm.
    Every process must have as many images.
    """

    shared = True  # whether processes share their statistics

    def _check_input_dim(self, input: Tensor) -> None:
        """Take vectors (B, F) and maps (B, C, H, W) alike."""

    def forward(self, input: Tensor) -> Tensor:
        processes = distributed.get_world_size() if self.shared and distributed.is_initialized() else 1
        if not self.training or processes == 1:
            return super().forward(input)
        # Statistics need more digits than bfloat16 has.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = (0, *range(2, values.ndim))

        def mean(part: Tensor) -> Tensor:
            return _Sum.apply(part.mean(axes, keepdim=True)) / processes

        average = mean(values)
        centred = values - average
        variance = mean(centred.square())
        count = processes * values.numel() // self.num_features
        self._track(average.detach().flatten(), variance.detach().flatten() * count / (count - 1))
        standardized = centred * (variance + self.eps).rsqrt()
        if not self.affine:
            return standardized
        shape = average.shape
        return standardized * self.weight.view(shape) + self.bias.view(shape)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


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
    """DiM's; `width` is the channels of every hidden layer."""

    arch = "dim"

    def __init__(self, shape: Shape, num_classes: int, width: int, noise_dim: int) -> None:
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
        # Not F.one_hot, which reads the highest label on a CPU: no step that is replayed may.
        one_hot = F.embedding(labels, torch.eye(self.num_classes, dtype=noise.dtype, device=labels.device))
        features = self.project(torch.cat([noise, one_hot], dim=1))
        return self.render(rearrange(features, "b (c h w) -> b c h w", c=self.base[0], h=self.base[1]))


class DimDiscriminator(Discriminator):
    """DiM's, without batch norm: under DDP its buffers break two forward passes with one backward."""

    STRIDES = (1, 2, 1, 2, 1, 1, 1, 2)

    def __init__(self, shape: Shape, num_classes: int, width: int) -> None:
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


def _sides(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of the maps, from at most 4 pixels at the shorter side up to the image's, halves rounded up."""
    sides = [(height, width)]
    while min(sides[-1]) > _SMALLEST_SIDE:
        sides.append((math.ceil(sides[-1][0] / 2), math.ceil(sides[-1][1] / 2)))
    return sides[::-1]


def _channels(width: int, count: int) -> list[int]:
    """Return the channels at each of `count` sizes, the smallest map first."""
    return [width * min(2**halvings, _MOST_WIDTHS) for halvings in reversed(range(count))]


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
        maps = self.norm(maps)
        scale, shift = (rearrange(of(labels), "b c -> b c 1 1").to(maps.dtype) for of in (self.scale, self.shift))
        return torch.addcmul(shift, maps, scale)


class ResizingConv(nn.Conv2d):
    """A 3x3 convolution of maps that are enlarged before it, or halved after it.

    Where sides are doubled or halved, several of the nine weights act on one pixel, since pixels are repeated or
    averaged. A convolution of stride 2 with the 4x4 sums of these weights gives the same in 4 products for each channel
    and pixel of the larger maps, not 9 (`fused_scale` of Karras et al., arXiv 1710.10196).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def _get_name(self) -> str:
        return re.sub("(Enlarging|Halving)Conv", "Conv2d", type(self).__name__)  # as earlier checkpoints have it

    def products(self, input: Tensor, output: Tensor) -> int:
        """Return how many products an image takes, given its maps (B, C, H, W) and what becomes of them."""
        small, large = sorted(maps.shape[2:].numel() for maps in (input, output))
        return (4 if large == 4 * small else 9) * large * self.in_channels * self.out_channels

    def _sums(self) -> Tensor:
        """Return sums (C', C, 4, 4) of the weights (C', C, 3, 3), each moved by nothing, right, down and both."""
        weight = self.weight  # once: each time is a step of a spectral norm's power iteration
        sums = F.pad(weight, (0, 1)) + F.pad(weight, (1, 0))
        return F.pad(sums, (0, 0, 0, 1)) + F.pad(sums, (0, 0, 1, 0))


class EnlargingConv(ResizingConv):
    """Repeats pixels before its convolution."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, outputs)
        self.size = size

    def forward(self, input: Tensor) -> Tensor:
        """Return maps (B, C', *size) of maps (B, C, H, W), whose sides are half of these, rounded up."""
        if self.size == (2 * input.shape[2], 2 * input.shape[3]):
            weight = self._sums().flip(2, 3).transpose(0, 1)
            return F.conv_transpose2d(input, weight, self.bias, stride=2, padding=1)
        return super().forward(F.interpolate(input, self.size))


class HalvingConv(ResizingConv):
    """Takes means of 2x2 pixels after its convolution, of fewer at an odd end."""

    def forward(self, input: Tensor) -> Tensor:
        """Return maps (B, C', H/2, W/2) of maps (B, C, H, W), sides rounded up."""
        if input.shape[2] % 2 == input.shape[3] % 2 == 0:
            return F.conv2d(input, self._sums() / 4, self.bias, stride=2, padding=1)
        return _halved(super().forward(input))


def _halved(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 2, ceil_mode=True)


class _Up(nn.Module):
    """A residual block of the generator that enlarges maps to a given size by repeating pixels."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.size = size
        self.first_norm = ConditionalBatchNorm(inputs, num_classes)
        self.first = EnlargingConv(inputs, outputs, size)
        self.second_norm = ConditionalBatchNorm(outputs, num_classes)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        branch = self.first(F.relu(self.first_norm(maps, labels)))
        branch = F.relu(self.second_norm(branch, labels))
        return self.second(branch) + F.interpolate(self.shortcut(maps), self.size)


class ResidualGenerator(Generator):
    """SNGAN's; `width` is the channels at the image's own size, which double with each halving, up to eightfold."""

    arch = "residual"

    def __init__(self, shape: Shape, num_classes: int, width: int, noise_dim: int) -> None:
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
        self.second = _normalised(
            HalvingConv(outputs, outputs) if halves else nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.shortcut = _normalised(nn.Conv2d(inputs, outputs, 1))

    def forward(self, maps: Tensor) -> Tensor:
        branch = F.relu(maps) if self.activated else maps
        branch = self.second(F.relu(self.first(branch)))
        return branch + self.shortcut(_halved(maps) if self.halves else maps)


class ResidualDiscriminator(Discriminator):
    """SNGAN's, which scores classes by projection; `width` is as of its generator."""

    def __init__(self, shape: Shape, num_classes: int, width: int) -> None:
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


def width_of(settings: GanConfig, shape: Shape) -> int:
    """Return the networks' width for images (C, H, W): the given one, or what gan.size stands for."""
    if settings.width is not None:
        return settings.width
    if settings.arch == "dim":
        return _DIM_WIDTHS[settings.size]
    channels, height, pixel_width = shape
    side = min(height, pixel_width)
    # Images of 64 pixels have at 32 the maps that images of 32 pixels have, and so cost little more.
    smallest = 16 if side <= 16 or side > 32 else 24 if channels == 1 else 32
    return _RESIDUAL_WIDTHS[settings.size] * smallest


def make_generator(arch: GanArch, shape: Shape, num_classes: int, width: int, noise_dim: int) -> Generator:
    """Return a new generator.

    Args:
        arch: which kind.
        shape: (C, H, W) of the images.
        num_classes: K.
        width: see its class; `width_of` tells a suitable one.
        noise_dim: length of the noise vector.
    """
    build = {"dim": DimGenerator, "residual": ResidualGenerator}[arch]
    return build(shape, num_classes, width, noise_dim)


def make_discriminator(arch: GanArch, shape: Shape, num_classes: int, width: int) -> Discriminator:
    """Return a new discriminator; the arguments are those of `make_generator`."""
    build = {"dim": DimDiscriminator, "residual": ResidualDiscriminator}[arch]
    return build(shape, num_classes, width)
