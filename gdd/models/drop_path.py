"""DropPath: in training, paths of a network are skipped at random (Zhong and Liu, arXiv 2309.04195, figure 2)."""

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Droppable(nn.Module, ABC):
    """A layer with a main path and a shortcut that stands in for it, image by image."""

    @abstractmethod
    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the answer to x (B, C, H, W).

        Of `kept` (B,), a column of `masks`, 0 drops an image's main path; none keeps all, as in inference.
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


def masks(count: int, paths: int, rate: float, generator: torch.Generator) -> Tensor:
    """Return which paths each image keeps, (count, paths): 1/rate with probability `rate`, in [0, 1], else 0."""
    kept = (torch.rand(count, paths, generator=generator) < rate).float()
    return kept / rate if rate else kept
