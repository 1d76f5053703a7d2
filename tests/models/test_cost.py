"""The FLOP of an image, against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gdd.models.cost import forward_flop, unfilled
from gdd.models.gan import DimDiscriminator, DimGenerator
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


def test_a_gan():
    generator, discriminator = DimGenerator(SHAPE, CLASSES, 8, 20), DimDiscriminator(SHAPE, CLASSES, 8)
    noise, labels, images = torch.zeros(2, 20), torch.zeros(2, dtype=torch.int64), torch.zeros(2, *SHAPE)
    expected = counted(lambda: generator(noise, labels))
    empty = unfilled(lambda: DimGenerator(SHAPE, CLASSES, 8, 20))
    assert forward_flop(empty, lambda: empty(noise[:0], labels[:0])) == expected > 0
    expected = counted(lambda: discriminator(images))
    judge = unfilled(lambda: DimDiscriminator(SHAPE, CLASSES, 8))
    assert forward_flop(judge, lambda: judge(images[:0])) == expected > 0
