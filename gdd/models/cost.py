"""What a network's pass over a batch costs."""

from collections.abc import Callable

from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def forward_flop(network: nn.Module, call: Callable[[], object]) -> int:
    """Return the FLOP of a network's convolutions and linear layers while `call` uses it; the rest costs little.

    torch.utils.flop_counter gives the same for these layers, but its first use imports the compiler: a second at each
    start.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, (*_CONVOLUTIONS, nn.Linear))
        # A transposed convolution spreads each input over its weights, the others gather each output from theirs.
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += 2 * places.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, (*_CONVOLUTIONS, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return total
