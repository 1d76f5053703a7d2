"""The FLOP of a pass, against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gdd.models.cost import forward_flop
from gdd.models.gan import Discriminator, Generator
from gdd.models.registry import FAMILIES, build


def counted(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_classifier(name):
    network = build(f"{name}-w8", (3, 32, 32), 10)
    images = torch.zeros(2, 3, 32, 32)
    assert forward_flop(network, lambda: network(images)) == counted(lambda: network(images)) > 0


def test_a_gan():
    generator, discriminator = Generator((3, 32, 32), 10, 8, 20), Discriminator((3, 32, 32), 10, 8)
    noise, labels, images = torch.zeros(2, 20), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3, 32, 32)
    calls = {generator: lambda: generator(noise, labels), discriminator: lambda: discriminator(images)}
    for network, call in calls.items():
        assert forward_flop(network, call) == counted(call) > 0
