"""Floating-point operations of networks, counted without work."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from gdd.config import GanConfig
from gdd.models import registry
from gdd.models.gan import GanArch, ResizingConv, make_discriminator, make_generator, width_of
from gdd.models.layers import Shape

_Network = TypeVar("_Network", bound=nn.Module)

# A gradient costs about twice what the answer does.
TRAINING = 3
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def unfilled(build: Callable[[], _Network]) -> _Network:
    """Build a network whose weights are never drawn or filled, in eval mode: for batches of no images."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu").eval()


def forward_flop(network: nn.Module, call: Callable[[], object]) -> int:
    """Return the FLOP for an image of a network's convolutions and linear layers while `call` uses it once.

    The rest costs little. `call` may pass a batch of no images, which takes no time. torch.utils.flop_counter gives the
    same for these layers, but its first use, like that of convolutions on the meta device, imports PyTorch's compiler:
    one or two seconds at each start.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (*_CONVOLUTIONS, nn.Linear))
        if isinstance(layer, ResizingConv):
            total += 2 * layer.products(inputs[0], output)
            return
        # A transposed convolution spreads each input over its weights, the others gather each output from theirs.
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += 2 * places.shape[1:].numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, (*_CONVOLUTIONS, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return total


@cache
def classifier_flop(arch: str, shape: Shape, num_classes: int) -> float:
    """Return the FLOP of a classifier's answer to one image (C, H, W)."""
    if arch.startswith(registry.TIMM):  # of which some fail for a batch of no images
        with torch.device("meta"):
            tried = registry.build(arch, shape, num_classes).eval()
            return forward_flop(tried, lambda: tried(torch.zeros(1, *shape)))
    network = unfilled(lambda: registry.build(arch, shape, num_classes))
    return forward_flop(network, lambda: network(torch.zeros(0, *shape)))


@cache
def gan_flop(arch: GanArch, shape: Shape, num_classes: int, width: int, noise_dim: int) -> tuple[float, float]:
    """Return the FLOP of a generator that makes one image, and of a discriminator that scores it."""
    generator = unfilled(lambda: make_generator(arch, shape, num_classes, width, noise_dim))
    discriminator = unfilled(lambda: make_discriminator(arch, shape, num_classes, width))
    noise, labels = torch.zeros(0, noise_dim), torch.zeros(0, dtype=torch.int64)
    making = forward_flop(generator, lambda: generator(noise, labels))
    return making, forward_flop(discriminator, lambda: discriminator(torch.zeros(0, *shape)))


def gan_flop_of(settings: GanConfig, shape: Shape, num_classes: int) -> tuple[float, float]:
    """Return what `gan_flop` does of the networks that the settings describe."""
    return gan_flop(settings.arch, shape, num_classes, width_of(settings, shape), settings.noise_dim)


def gan_step_flop(generator: float, discriminator: float, penalties: float) -> float:
    """Return the FLOP of both turns of an adversarial step with so many penalties, for each image of its batch.

    Of generator and discriminator it takes what `gan_flop` returns.
    """
    # The generator's turn: its gradient, through the discriminator to the images alone. The discriminator's: new
    # images without gradient, and its own gradient for as many real ones besides.
    return 4 * generator + (2 + 2 * TRAINING + 6 * penalties) * discriminator
