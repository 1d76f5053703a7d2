"""What all classifiers share: norms, activations, pools, the 28-pixel rule and the classifier itself."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from gdd.config import ConfigError
from gdd.models.drop_path import Droppable

NORMS = ("batch", "instance", "group", "layer", "none")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "leakyrelu": partial(nn.LeakyReLU, 0.01),
    "swish": nn.SiLU,
}
_ACTIVATED = tuple({type(make()) for make in ACTIVATIONS.values()})
POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": partial(nn.MaxPool2d, 2),
    "avg": partial(nn.AvgPool2d, 2),
    "none": nn.Identity,
}
NORM_GROUPS = 4

Size = tuple[int, int]
Shape = tuple[int, int, int]


class Classifier(nn.Module):
    """A feature extractor, from (B, C, H, W) to what flattens to (B, F), and a linear head from F to the classes."""

    def __init__(self, features: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.features = features
        self.head = head

    @property
    def paths(self) -> int:
        """How many paths can be dropped in training."""
        return sum(isinstance(layer, Droppable) for layer in self.features)

    def embed(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the flattened features before the head, (B, F): the embedding of distribution matching.

        Images (B, C, H, W) are in classifier space; of `kept` (B, paths), see `drop_path.masks`, none keeps all.
        """
        if kept is None:
            return self.features(images).flatten(1)
        maps, columns = images, iter(kept.unbind(1))
        for layer in self.features:
            maps = layer(maps, next(columns)) if isinstance(layer, Droppable) else layer(maps)
        return maps.flatten(1)

    def activations(self, images: Tensor) -> list[Tensor]:
        """Return the answer of each layer, or residual block, that ends in an activation, and the features at last.

        Maps are averaged over positions: each is (B, channels), the last (B, F).
        """
        means, maps = list[Tensor](), images
        for layer in self.features.children():
            maps = layer(maps)
            if isinstance(getattr(layer, "activation", layer), _ACTIVATED):
                means.append(maps.flatten(2).mean(2) if maps.ndim > 2 else maps)
        return [*means, maps.flatten(1)]

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.head(self.embed(images, kept))


class _Affine(torch.autograd.Function):
    """x * weight + bias over maps, with the gradients of weight and bias taken by a product of matrices.

    A compiled sum over the batch, maps apart from each other in memory, would take several times as long as all else
    in a layer norm.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x * weight + bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        ones = gradient.new_ones(1, len(gradient))

        def total(values: Tensor) -> Tensor:
            _, channels, height, width = values.shape
            rows = rearrange(values, "b c h w -> b (h w c)")
            return rearrange(ones @ rows, "1 (h w c) -> c h w", h=height, w=width, c=channels)

        return gradient * weight, total(gradient * x), total(gradient)


class LayerNorm(nn.LayerNorm):
    """Layer norm over whole maps (C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return _Affine.apply(self._standardized(input), self.weight, self.bias)
        return super().forward(input)

    def _standardized(self, input: Tensor) -> Tensor:
        """Return the input less its mean, over its deviation; in float32 at least, for bfloat16 has 8 bits."""
        input = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = tuple(range(-len(self.normalized_shape), 0))
        centred = input - input.mean(axes, keepdim=True)
        variance = centred.square().mean(axes, keepdim=True)
        return centred * (variance + self.eps).rsqrt()


class DifferentiableLayerNorm(LayerNorm):
    """The same written out, since torch 2.15 gets the second derivative of its own wrong under vmap.

    Gradient matching takes that derivative; tests/training compare it with differences. Over tokens it is written out
    in any case.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and input.ndim == 4:
            return super().forward(input)
        return self._standardized(input) * self.weight + self.bias


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride: one of stride 1, of the positions that the stride keeps.

    oneDNN of torch 2.15, asked for the stride itself, writes beyond a buffer when it takes the gradient of the weights
    (AVX-512, channels last, fewer than 16 input channels, several threads that share the images unevenly).
    """

    def forward(self, input: Tensor) -> Tensor:
        down, right = self.stride
        return F.conv2d(input[:, :, ::down, ::right], self.weight, self.bias)


def make_norm(kind: str, channels: int, size: Size) -> nn.Module:
    """Return a norm layer over maps of this size, as DC's networks.py builds it.

    Args:
        kind: one of NORMS. `instance` is a GroupNorm of one channel per group, `layer` has one affine
            pair per position, so it alone ties the network to one image size.
        channels: of the map.
        size: (H, W) of the map.

    Raises:
        ConfigError: the norm cannot work on such maps.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "instance":
        # One value minus its own mean is zero: the network would ignore its input without a word.
        if size == (1, 1):
            raise ConfigError("instance norm over a 1x1 map is always zero: use larger images or another norm")
        return nn.GroupNorm(channels, channels)
    if kind == "group":
        if channels % NORM_GROUPS:
            raise ConfigError(
                f"group norm has {NORM_GROUPS} groups, which do not divide a layer's {channels} "
                "channels: choose another width"
            )
        return nn.GroupNorm(NORM_GROUPS, channels)
    if kind == "layer":
        return DifferentiableLayerNorm([channels, *size])
    assert kind == "none", kind
    return nn.Identity()


def stem(size: Size, padding: int) -> tuple[int, Size]:
    """Return the first convolution's padding and the image size it then sees as if padded by `padding`.

    DC's networks pad 28x28 images to 32x32 in their first convolution; images of another size, and the
    MLP and the ResNets, go without.
    """
    return (padding + 2, (32, 32)) if size == (28, 28) else (padding, size)


def halve(size: Size) -> Size:
    """Return the map size after a 2x2 pool of stride 2."""
    return size[0] // 2, size[1] // 2


def scaled(channels: int, width: int, published: int) -> int:
    """Return a layer's channels when the whole network is `width / published` as wide as published."""
    return round(channels * width / published)


def require_map(name: str, size: Size, shape: Shape) -> None:
    """Refuse images so small that a pool leaves no pixel."""
    if min(size) < 1:
        raise ConfigError(f"{name} has too many pools for images of {shape[1]}x{shape[2]} pixels")
