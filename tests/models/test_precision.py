"""Under autocast a network's products are in bfloat16 and the statistics of its norms in float32.

The operators themselves are asked, as torch dispatches them; tests/fake_gpu asks them of stacked networks on a GPU.
"""

from collections.abc import Callable

import pytest
import torch
from dtypes import Dtypes
from torch import Tensor, nn

from gdd.models import registry
from gdd.models.gan import DimDiscriminator, ResidualDiscriminator
from gdd.runtime.execution import Execution

SHAPE, CLASSES, IMAGES = (3, 8, 8), 3, 4
BFLOAT16 = Execution("bfloat16")
ARCHS = ["convnet3-w8-d2", "convnet3-w8-d2-gn", "convnet3-w8-d2-ln", "convnet3-w8-d2-bn", "resnet10-bn-w4", "vit-w8-d1"]


def asked(network: nn.Module, images: Tensor) -> Dtypes:
    with Dtypes() as seen:
        answers = BFLOAT16(network, images)
    for answer in answers if isinstance(answers, tuple) else (answers,):
        assert answer.dtype == torch.float32
    return seen


def build(arch: str) -> nn.Module:
    return BFLOAT16.place(registry.build(arch, SHAPE, CLASSES)).train()


@pytest.mark.parametrize("arch", ARCHS)
def test_products_are_bfloat16_and_statistics_float32(arch: str):
    seen = asked(build(arch), torch.randn(IMAGES, *SHAPE))
    assert {*seen.products} == {torch.bfloat16}
    assert {*seen.statistics} == {torch.float32}


@pytest.mark.parametrize("discriminator", [DimDiscriminator, ResidualDiscriminator])
def test_a_discriminators_products_too(discriminator: Callable[..., nn.Module]):
    """Spectral norm's own products, of weights and their vectors, are in float32."""
    seen = asked(BFLOAT16.place(discriminator(SHAPE, CLASSES, 4)), torch.randn(IMAGES, *SHAPE))
    assert torch.bfloat16 in seen.products
    assert {*seen.statistics} <= {torch.float32}


@pytest.mark.parametrize("arch", ["convnet3-w8-d2-ln", "vit-w8-d1"])
def test_layer_norm_knows_a_deviation_that_bfloat16_does_not(arch: str):
    """Values of 1 to 1.125 are 16 numbers of bfloat16; the mean of one of 8 bits would be a sixteenth of that off."""
    (norm, *_) = (module for module in build(arch).modules() if isinstance(module, nn.LayerNorm))
    values = (1 + torch.rand(IMAGES, *norm.normalized_shape) / 8).to(torch.bfloat16)
    wanted = torch.nn.functional.layer_norm(values.double(), norm.normalized_shape, eps=norm.eps)
    torch.testing.assert_close(norm(values).double(), wanted, rtol=1e-4, atol=1e-4)
