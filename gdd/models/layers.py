"""What all classifiers are made of: norms, activations, pools, the 28-pixel rule, dropped paths, the classifier itself.

DropPath: in training, paths of a network are skipped at random (Zhong and Liu, arXiv 2309.04195, figure 2).
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from gdd import rng
from gdd.config import ConfigError

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


class Droppable(nn.Module, ABC):
    """A layer with a main path and a shortcut that stands in for it, image by image."""

    @abstractmethod
    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the answer to x (B, C, H, W).

        Of `kept` (B,), a column of `path_masks`, 0 drops an image's main path; none keeps all, as in inference.
        """


class Residual(Droppable):
    """activation(kept * branch(x) + shortcut(x)), whose expectation over what is kept is the sum without dropping."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        branch = self.branch(x)
        if kept is not None:
            branch = (branch * kept[:, None, None, None]).to(branch.dtype)
        return self.activation(branch + self.shortcut(x))


class Alternative(Droppable):
    """main(x), or where that is dropped, and only in training, a virtual shortcut of x."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        if kept is None:
            return self.main(x)
        return torch.where(kept[:, None, None, None] > 0, self.main(x), self.shortcut(x))


# Of a convolution, its norm and its activation.
_LAYERS = 3


def with_alternatives(features: nn.Sequential, stem: int) -> nn.Sequential:
    """Return a single-branch network's layers, of which those of every two convolutions can be dropped together.

    Weights and answers stay the same; the virtual shortcut is the pool between the two, if there is one, and, where the
    channels change, a 1x1 convolution and a norm.

    Args:
        features: convolutions, each with its norm and its activation behind it, and pools.
        stem: the first convolutions, which cannot be dropped; the rest have a partner each.
    """
    layers = list(features)
    convolutions = [index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    droppable, done = list[nn.Module](), 0
    for first, second in zip(convolutions[stem::2], convolutions[stem + 1 :: 2], strict=True):
        main = layers[first : second + _LAYERS]
        droppable += [*layers[done:first], Alternative(nn.Sequential(*main), _virtual(main))]
        done = second + _LAYERS
    return nn.Sequential(*droppable, *layers[done:])


def _virtual(main: list[nn.Module]) -> nn.Module:
    pools = [copy.deepcopy(layer) for layer in main if isinstance(layer, nn.MaxPool2d)]
    first, last = (layer for layer in main if isinstance(layer, nn.Conv2d))
    if first.in_channels == last.out_channels:
        return nn.Sequential(*pools)
    norm = copy.deepcopy(main[-2])  # behind the second convolution, whose map has the shortcut's size
    return nn.Sequential(*pools, nn.Conv2d(first.in_channels, last.out_channels, 1), norm)


def path_masks(count: int, paths: int, rate: float | Tensor, random: rng.Draws) -> Tensor:
    """Return which paths each image keeps, (count, paths): 1/rate with probability `rate`, in [0, 1], else 0.

    For draws of S seeds (S, count, paths). A rate on the device is a tensor ().
    """
    kept = (random.uniform(count, paths) < rate).float()
    return kept / (rate + (rate == 0))


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

        Images (B, C, H, W) are in classifier space; of `kept` (B, paths), see `path_masks`, none keeps all.
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
