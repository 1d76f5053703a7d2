from copy import deepcopy
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from toy import CLASSES, SPEC, network_of, same

from gdd.training.matching import embedding_loss, gradient_loss, real_gradient
from gdd.training.pool import fresh_members

KINDS = ("dc", "cos", "mse")
# All kinds of parameters: convolutions, a head, layer norms of three dimensions, none but matrices.
ARCHS = ("convnet3-w4", "convnet3-w4-bn-sigmoid-max", "convnet3-w4-ln-swish", "mlp-w8")
POOL = (
    *fresh_members("main+similar", "convnet3-w4", (), 3)[1:],
    *("lenet-w4", "alexnet-w4", "vgg11-w4", "resnet10-w4", "resnet18-bn-w4", "mlp-w8"),
)


def images_std(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SPEC.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row_distance(a: Tensor, b: Tensor) -> Tensor | float:
    """1 - cosine; a dead unit's row is 0."""
    if not (a.any() and b.any()):
        return float(bool(a.any()) != bool(b.any()))
    return 1 - (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


def reference(
    network: nn.Module, synthetic: Tensor, real: Tensor, label: int, kind: str
) -> tuple[float, Tensor, list[Tensor]]:
    """Return the loss, its gradient in the synthetic images, and the real gradient: all in float64, row by row."""
    network = deepcopy(network).double()
    synthetic = synthetic.double().requires_grad_()

    def answer(images: Tensor, **how) -> tuple[Tensor, ...]:
        loss = -network(images).log_softmax(1)[:, label].sum() / len(images)
        return torch.autograd.grad(loss, list(network.parameters()), **how)

    found, target = answer(synthetic, create_graph=True), answer(real.double())
    if kind == "dc":
        matrices = [(a, b) for a, b in zip(found, target, strict=True) if a.ndim > 1]
        rows = [(a[row].flatten(), b[row].flatten()) for a, b in matrices for row in range(len(a))]
    else:
        rows = [tuple(torch.cat([x.flatten() for x in side]) for side in (found, target))]
    loss = sum(((a - b) ** 2).sum() if kind == "mse" else row_distance(a, b) for a, b in rows)
    (slope,) = torch.autograd.grad(loss, synthetic)
    return loss.item(), slope, [x.detach() for x in target]


def close(found: Tensor, expected: Tensor, accuracy: float) -> None:
    """Compare relative to the largest entry, since single entries may cancel."""
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=accuracy * expected.abs().max().item())


def group_loss(network: nn.Module, synthetic: Tensor, real: list[Tensor], labels: list[int], kind: str) -> Tensor:
    if kind == "embedding":
        return embedding_loss(network, synthetic, real)
    return gradient_loss(network, synthetic, real, labels, kind)


def class_loss(network: nn.Module, synthetic: Tensor, real: Tensor, label: int, kind: str = "dc") -> Tensor:
    """The loss of a group of one class."""
    return group_loss(network, synthetic[None], [real], [label], kind)


class TestLoss:
    @pytest.mark.parametrize(("arch", "kind"), [*product(ARCHS, KINDS)])
    def test_value_and_image_gradient_are_the_formula_written_again(self, arch, kind):
        network, synthetic, real = network_of(arch), images_std(3, 1), images_std(40, 2)
        expected, slope, _ = reference(network, synthetic, real, 1, kind)
        # Single precision keeps 7 digits; cosines of a thousand numbers and second derivatives lose 2 to 3 of them.
        for dtype, accuracy in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            ours, images = deepcopy(network).to(dtype), synthetic.to(dtype).requires_grad_()
            loss = class_loss(ours, images, real.to(dtype), 1, kind)
            assert loss.dtype == dtype
            assert loss.item() == pytest.approx(expected, rel=accuracy)
            close(*torch.autograd.grad(loss, images), slope, accuracy)

    @pytest.mark.parametrize("arch", POOL)
    def test_every_network_of_the_pools_gives_the_slope_of_the_formula(self, arch):
        network, synthetic, real = network_of(arch).double(), images_std(2, 1), images_std(5, 2)
        expected, slope, _ = reference(network, synthetic, real, 1, "dc")
        synthetic.requires_grad_()
        loss = class_loss(network, synthetic, real, 1)
        assert loss.item() == pytest.approx(expected, rel=1e-9)
        close(*torch.autograd.grad(loss, synthetic), slope, 1e-9)

    @pytest.mark.parametrize(("arch", "kind"), [*product(ARCHS, (*KINDS, "embedding"))])
    def test_a_group_adds_up_its_classes(self, arch, kind):
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
    def test_image_gradient_is_that_of_differences(self, kind):
        # Without kinks, so that differences converge.
        network, image, real = network_of("convnet3-w4-sigmoid").double(), images_std(1, 1), images_std(5, 2)

        def loss(pixels: Tensor) -> Tensor:
            changed = image.clone()
            changed[0, 0, 5:7, 8] = pixels
            return class_loss(network, changed, real, 2, kind)

        assert torch.autograd.gradcheck(loss, image[0, 0, 5:7, 8].clone().requires_grad_())

    def test_embeddings_are_compared_by_their_means(self):
        network, synthetic, real = network_of("convnet3-w4").double(), images_std(3, 1), images_std(7, 2)
        synthetic.requires_grad_()
        # Sums over images one by one, for the network mixes none.
        means = [sum(network.features(x[None]).flatten() for x in images) / len(images) for images in (synthetic, real)]
        expected = ((means[0] - means[1]) ** 2).sum()
        network.requires_grad_(False)
        loss = class_loss(network, synthetic, real, 0, "embedding")
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        close(*torch.autograd.grad(loss, synthetic), *torch.autograd.grad(expected, synthetic), 1e-9)

    def test_the_label_of_gradients_matters(self):
        network, synthetic, real = network_of("convnet3-w4"), images_std(3, 1).float(), images_std(7, 2).float()
        assert len({class_loss(network, synthetic, real, label).item() for label in range(CLASSES)}) == CLASSES

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("size", [1, 5, 40])
    @pytest.mark.parametrize("kind", [*KINDS, "embedding"])
    def test_a_set_matched_against_itself_is_at_its_goal(self, kind, size, dtype):
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

    def test_the_network_is_left_as_it_was(self):
        network = network_of("convnet3-w4-bn")
        before = deepcopy(network.state_dict())
        synthetic = images_std(2, 1).float().requires_grad_()
        class_loss(network, synthetic, images_std(3, 2).float(), 0).backward()
        assert same(network.state_dict(), before)
        assert not network.training


class TestRealGradient:
    @pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
    @pytest.mark.parametrize("arch", ARCHS)
    def test_chunks_add_up_to_the_gradient_of_the_whole(self, arch, size):
        network, real = network_of(arch), images_std(size)
        *_, expected = reference(network, images_std(1), real, 2, "mse")
        chunks = []
        ours = deepcopy(network).double()
        ours.register_forward_pre_hook(lambda _, arguments: chunks.append(len(arguments[0])))
        largest = max(x.abs().max().item() for x in expected)
        for found, value in zip(real_gradient(ours, real, 2), expected, strict=True):
            assert not found.requires_grad
            torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12 * largest)
        assert chunks == [32] * (size // 32) + [size % 32] * (size % 32 > 0)
        # Rounding is relative to the largest gradient: some are sums that cancel to 0, as a bias before a norm.
        for found, value in zip(real_gradient(network, real.float(), 2), expected, strict=True):
            torch.testing.assert_close(found.double(), value, rtol=0, atol=1e-5 * largest)

    def test_it_leaves_the_network_as_it_was(self):
        network = network_of("convnet3-w4-bn")
        before = deepcopy(network.state_dict())
        real_gradient(network, images_std(40).float(), 0)
        assert same(network.state_dict(), before)
        assert all(parameter.grad is None for parameter in network.parameters())
