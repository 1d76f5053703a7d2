import pytest
import torch
from torch import nn
from written_out import Layers, discriminator, generator, perturb

from gdd.models.gan import DimDiscriminator, DimGenerator
from gdd.rng import generator as rng_generator
from gdd.rng import seeded

SHAPES = [(1, 16, 16), (3, 24, 40), (1, 28, 28), (3, 30, 17), (3, 32, 32)]
CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def noise(batch: int) -> torch.Tensor:
    return torch.randn(batch, 8, generator=rng_generator(0, "test"))


class TestPublishedSizes:
    """DiM's counts (algorithms.md, section 3), plus the class inputs that the generator has of its own."""

    @pytest.mark.parametrize("classes", [2, 10])
    @pytest.mark.parametrize(("shape", "published"), [(CIFAR, 3_559_363), (MNIST, 3_286_921)])
    def test_generator(self, shape, published, classes):
        with torch.device("meta"):
            network = DimGenerator(shape, classes, width=196, noise_dim=100)
        assert count(network) == published + classes * 196 * 4 * 4

    @pytest.mark.parametrize(("shape", "published"), [(CIFAR, 3_137_971), (MNIST, 2_969_803)])
    def test_discriminator(self, shape, published):
        with torch.device("meta"):
            assert count(DimDiscriminator(shape, 10, width=196)) == published
            assert count(DimDiscriminator(shape, 100, width=196)) == published + 90 * (196 + 1)


def test_the_largest_of_a_map_is_torchs_own_with_its_gradient_and_equal_ones_share_it():
    largest = DimDiscriminator(MNIST, 10, 4).features[-2]
    own = nn.AdaptiveMaxPool2d(1)
    assert repr(largest) == repr(own)  # which checkpoints hold
    maps = torch.randn(3, 4, 5, 6, generator=rng_generator(0, "test")).requires_grad_()
    for one, other in ((maps, maps), (maps.contiguous(memory_format=torch.channels_last), maps)):
        answers = largest(one).flatten(1), own(other).flatten(1)
        assert torch.equal(*answers)
        got, wanted = (torch.autograd.grad(answer.square().sum(), maps)[0] for answer in answers)
        assert torch.equal(got, wanted)
    equal = torch.ones(1, 1, 2, 2, requires_grad=True)
    assert torch.autograd.grad(largest(equal).sum(), equal)[0].tolist() == [[[[0.25, 0.25], [0.25, 0.25]]]]


@pytest.mark.parametrize("shape", SHAPES)
class TestWiring:
    """The same parameters in another order of layers would count the same."""

    def test_generator(self, shape):
        network = perturb(DimGenerator(shape, 3, width=4, noise_dim=8)).train()
        labels = torch.tensor([0, 1, 2, 0, 1])
        layers = Layers(network, torch.relu)
        expected = generator(layers, noise(5), labels, network.base)
        assert layers.all_used()
        torch.testing.assert_close(network(noise(5), labels), expected, rtol=1e-3, atol=1e-4)

    def test_discriminator(self, shape):
        network = perturb(DimDiscriminator(shape, 3, width=4))
        images = torch.rand(5, *shape, generator=rng_generator(0, "images")) * 2 - 1
        layers = Layers(network, lambda x: x.where(x > 0, 0.01 * x))
        expected = discriminator(layers, images)
        assert layers.all_used()
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)

    def test_every_parameter_gets_a_gradient(self, shape):
        with seeded(0, "test"):
            player, critic = DimGenerator(shape, 3, 4, 8), DimDiscriminator(shape, 3, 4)
        score, classes = critic(player(noise(4), torch.tensor([0, 1, 2, 0])))
        (score.sum() + classes.square().sum()).backward()
        assert [name for net in (player, critic) for name, p in net.named_parameters() if p.grad is None] == []
        assert all(p.grad.isfinite().all() for net in (player, critic) for p in net.parameters())


def test_the_noise_is_not_written_to():
    z = noise(3)
    DimGenerator((1, 16, 16), 3, width=4, noise_dim=8)(z, torch.arange(3))
    assert torch.equal(z, noise(3))


def test_an_unknown_label_is_an_error():
    with pytest.raises(RuntimeError):
        DimGenerator((1, 16, 16), 3, width=4, noise_dim=8).eval()(noise(1), torch.tensor([3]))


def test_checkpoints_of_version_0_1_0_still_fit():
    """Their text of a network begins with the names that it had then."""
    networks = DimGenerator((1, 16, 16), 3, 4, 8), DimDiscriminator((1, 16, 16), 3, 4)
    assert [str(network).partition("(")[0] for network in networks] == ["Generator", "Discriminator"]
