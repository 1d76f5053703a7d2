"""The FLOP of an image, against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gdd.models.cost import forward_flop, gan_flop, unfilled
from gdd.models.gan import make_discriminator, make_generator
from gdd.models.registry import FAMILIES, build

SHAPE, CLASSES = (3, 32, 32), 10
NAMES = [f"{base}-w8" for base in FAMILIES if base != "vit"]
NAMES += [f"convnet3-w8-{part}" for part in ("bn", "gn", "ln", "nonorm", "swish", "max", "nopool")]
NAMES += ["resnet18-w8-pooled"]


def counted(call) -> float:
    """Return the FLOP for an image of a batch of two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier(name):
    network, empty = build(name, SHAPE, CLASSES), unfilled(lambda: build(name, SHAPE, CLASSES))
    images = torch.zeros(2, *SHAPE)
    expected = counted(lambda: network(images))
    assert forward_flop(network, lambda: network(images)) == expected > 0
    assert forward_flop(empty, lambda: empty(images[:0])) == expected


def test_a_vit_but_for_its_attention():
    """Which are two products of 65 tokens by 65 tokens in each block."""
    network = build("vit-w8-d3", SHAPE, CLASSES)
    images = torch.zeros(2, *SHAPE)
    assert forward_flop(network, lambda: network(images)) + 3 * 2 * (2 * 65 * 65 * 8) == counted(
        lambda: network(images)
    )


@pytest.mark.parametrize("arch", ["dim", "residual"])
@pytest.mark.parametrize("shape", [SHAPE, (1, 28, 28), (3, 24, 40)])
def test_a_gan(arch, shape):
    sizes = arch, shape, CLASSES, 8
    generator, discriminator = make_generator(*sizes, 20), make_discriminator(*sizes)
    noise, labels, images = torch.zeros(2, 20), torch.zeros(2, dtype=torch.int64), torch.zeros(2, *shape)
    expected = counted(lambda: generator(noise, labels)), counted(lambda: discriminator(images))
    assert gan_flop(*sizes, 20) == expected
    assert min(expected) > 0
