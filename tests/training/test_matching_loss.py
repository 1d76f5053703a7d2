from copy import deepcopy
from itertools import product

import pytest
import torch
from matching_steps import class_gradient, matching_loss
from torch import Tensor, nn
from toy import SPEC, network_of

from gdd.models.registry import fresh_members
from gdd.training.matching_loss import embedding_loss, gradient_loss, real_gradient

KINDS = ("dc", "cos", "mse")
# All kinds of parameters: convolutions, a head, layer norms of three dimensions, none but matrices.
ARCHS = ("convnet3-w4", "convnet3-w4-bn-sigmoid-max", "convnet3-w4-ln-swish", "mlp-w8")
POOL = (
    *fresh_members("main+similar", "convnet3-w4", (), 3)[1:],
    *("lenet-w4", "alexnet-w4", "vgg11-w4", "resnet10-w4", "resnet18-bn-w4", "mlp-w8"),
)


def images_std(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SPEC.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, expected: Tensor, accuracy: float) -> None:
    """Compare relative to the largest entry, since single entries may cancel."""
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=accuracy * expected.abs().max().item())


def group_loss(network: nn.Module, synthetic: Tensor, real: list[Tensor], labels: list[int], kind: str) -> Tensor:
    if kind == "embedding":
        return embedding_loss(network, synthetic, real)
    return gradient_loss(network, synthetic, real, torch.tensor(labels), kind)


def class_loss(network: nn.Module, synthetic: Tensor, real: Tensor, label: int, kind: str = "dc") -> Tensor:
    """The loss of a group of one class."""
    return group_loss(network, synthetic[None], [real], [label], kind)


@pytest.mark.parametrize(("arch", "kind"), [*product(ARCHS, KINDS), *product(POOL, ["dc"])])
def test_value_and_image_gradient_are_the_formula_written_again(arch, kind):
    network, synthetic, real = network_of(arch).double(), images_std(3, 1).requires_grad_(), images_std(40, 2)
    expected = matching_loss(network, synthetic, real, 1, kind)
    (slope,) = torch.autograd.grad(expected, synthetic)
    # Single precision keeps 7 digits; cosines of a thousand numbers and second derivatives lose 2 to 3 of them.
    precisions = ((torch.float64, 1e-9), *([(torch.float32, 1e-4)] if arch in ARCHS else []))
    for dtype, accuracy in precisions:
        network, images = network.to(dtype), synthetic.detach().to(dtype).requires_grad_()
        loss = class_loss(network, images, real.to(dtype), 1, kind)
        assert loss.dtype == dtype
        assert loss.item() == pytest.approx(expected.item(), rel=accuracy)
        close(*torch.autograd.grad(loss, images), slope, accuracy)


@pytest.mark.parametrize(("arch", "kind"), [*product(ARCHS, (*KINDS, "embedding"))])
def test_a_group_adds_up_its_classes(arch, kind):
    network = network_of(arch).double()
    synthetic = images_std(6, 1).unflatten(0, (3, 2)).requires_grad_()
    # Real batches differ in size where a class has few images; the labels come in any order.
    real, labels = [images_std(size, size) for size in (4, 33, 9)], [2, 0, 1]
    loss = group_loss(network, synthetic, real, labels, kind)
    alone = [class_loss(network, synthetic[i], real[i], labels[i], kind) for i in range(3)]
    assert len({each.item() for each in alone}) == 3
    assert loss.item() == pytest.approx(sum(each.item() for each in alone), rel=1e-9)
    close(*torch.autograd.grad(loss, synthetic), *torch.autograd.grad(sum(alone), synthetic), 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_image_gradient_is_that_of_differences(kind):
    # Without kinks, so that differences converge; with the layer norm whose derivatives are our own.
    network, image, real = network_of("convnet3-w4-ln-sigmoid").double(), images_std(1, 1), images_std(5, 2)

    def loss(pixels: Tensor) -> Tensor:
        changed = image.clone()
        changed[0, 0, 5:7, 8] = pixels
        return class_loss(network, changed, real, 2, kind)

    assert torch.autograd.gradcheck(loss, image[0, 0, 5:7, 8].clone().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 5, 40])
@pytest.mark.parametrize("kind", [*KINDS, "embedding"])
def test_a_set_matched_against_itself_is_at_its_goal(kind, size, dtype):
    network, images = network_of("convnet3-w4").to(dtype), images_std(size, 1).to(dtype).requires_grad_()
    other = images_std(size, 2).to(dtype)
    found = []
    for real in (images.detach(), other):
        loss = class_loss(network, images, real, 0, kind)
        found.append((loss.item(), *torch.autograd.grad(loss, images)))
    (own_loss, own_slope), (other_loss, other_slope) = found
    # The distances are squares of what rounding leaves, their slopes are not.
    precision = torch.finfo(dtype).eps
    assert 0 <= own_loss <= (1e3 * precision) ** 2 * max(1, other_loss)
    assert own_slope.abs().max() <= 1e3 * precision * other_slope.abs().max()


@pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("arch", ARCHS)
def test_chunks_add_up_to_the_gradient_of_the_whole(arch, size):
    network, real = network_of(arch), images_std(size)
    ours, chunks = deepcopy(network).double(), []
    expected = class_gradient(ours, real, 2)
    ours.register_forward_pre_hook(lambda _, arguments: chunks.append(len(arguments[0])))
    largest = max(x.abs().max().item() for x in expected)
    for found, value in zip(real_gradient(ours, real, torch.tensor([2])), expected, strict=True):
        assert not found.requires_grad
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12 * largest)
    assert chunks == [32] * (size // 32) + [size % 32] * (size % 32 > 0)
    # Rounding is relative to the largest gradient: some are sums that cancel to 0, as a bias before a norm.
    for found, value in zip(real_gradient(network, real.float(), torch.tensor([2])), expected, strict=True):
        torch.testing.assert_close(found.double(), value, rtol=0, atol=1e-5 * largest)
