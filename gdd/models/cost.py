"""What a network's pass over a batch costs."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T", bound=nn.Module)

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def unfilled(build: Callable[[], T]) -> T:
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
