import pytest
import torch
from torch import nn
from written_out import Layers, discriminator, generator, perturb

from gdd.models.gan import Discriminator, Generator
from gdd.rng import generator as rng_generator
from gdd.rng import seeded

SHAPES = [(1, 16, 16), (3, 24, 40), (1, 28, 28), (3, 30, 17), (3, 32, 32)]
CIFAR, MNIST = (3, 32, 32), (1, 28, 28)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def noise(batch: int, dim: int = 8) -> torch.Tensor:
    return torch.randn(batch, dim, generator=rng_generator(0, "test"))


def small(shape: tuple[int, int, int] = (1, 16, 16), classes: int = 3) -> Generator:
    with seeded(0, "test"):
        return Generator(shape, classes, width=4, noise_dim=8).eval()


class TestPublishedSizes:
    """DiM's counts (algorithms.md, section 3), plus the class inputs that the generator has of its own."""

    @pytest.mark.parametrize("classes", [2, 10])
    @pytest.mark.parametrize(("shape", "published"), [(CIFAR, 3_559_363), (MNIST, 3_286_921)])
    def test_generator(self, shape, published, classes):
        with torch.device("meta"):
            network = Generator(shape, classes, width=196, noise_dim=100)
        assert count(network) == published + classes * 196 * 4 * 4

    @pytest.mark.parametrize(("shape", "published"), [(CIFAR, 3_137_971), (MNIST, 2_969_803)])
    def test_discriminator(self, shape, published):
        with torch.device("meta"):
            assert count(Discriminator(shape, 10, width=196)) == published
            assert count(Discriminator(shape, 100, width=196)) == published + 90 * (196 + 1)


@pytest.mark.parametrize("shape", SHAPES)
class TestShapes:
    def test_images_have_the_asked_size_and_range(self, shape):
        network = small(shape)
        images = network.train()(20 * noise(5), torch.tensor([0, 1, 2, 0, 1]))
        assert images.shape == (5, *shape)
        assert images.abs().max() <= 1
        assert images.std() > 0

    def test_scores_and_class_logits(self, shape):
        with seeded(0, "test"):
            network = Discriminator(shape, 3, width=4)
        images = torch.rand(5, *shape, generator=rng_generator(0, "images")) * 2 - 1
        score, classes = network(images)
        assert score.shape == (5,)
        assert classes.shape == (5, 3)
        assert score.unique().numel() == 5
        # No batch statistics: an image's score does not depend on its neighbours.
        alone = torch.cat([network(image[None])[0] for image in images])
        torch.testing.assert_close(alone, score, rtol=0, atol=1e-5)

    def test_every_parameter_gets_a_gradient(self, shape):
        with seeded(0, "test"):
            player, critic = Generator(shape, 3, 4, 8), Discriminator(shape, 3, 4)
        score, classes = critic(player(noise(4), torch.tensor([0, 1, 2, 0])))
        (score.sum() + classes.square().sum()).backward()
        assert [name for net in (player, critic) for name, p in net.named_parameters() if p.grad is None] == []
        assert all(p.grad.isfinite().all() for net in (player, critic) for p in net.parameters())


@pytest.mark.parametrize("shape", SHAPES)
class TestWiring:
    """The same parameters in another order of layers would count the same."""

    def test_generator(self, shape):
        network = perturb(Generator(shape, 3, width=4, noise_dim=8)).train()
        labels = torch.tensor([0, 1, 2, 0, 1])
        layers = Layers(network, torch.relu)
        expected = generator(layers, noise(5), labels, network.base)
        assert layers.all_used()
        torch.testing.assert_close(network(noise(5), labels), expected, rtol=1e-3, atol=1e-4)

    def test_discriminator(self, shape):
        network = perturb(Discriminator(shape, 3, width=4))
        images = torch.rand(5, *shape, generator=rng_generator(0, "images")) * 2 - 1
        layers = Layers(network, lambda x: x.where(x > 0, 0.01 * x))
        expected = discriminator(layers, images)
        assert layers.all_used()
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


class TestConditioning:
    def test_labels_change_the_image_of_the_same_noise(self):
        # Train mode: an untrained network's running statistics would shrink all differences to nothing.
        images = small().train()(noise(4).repeat(3, 1), torch.arange(3).repeat_interleave(4)).view(3, 4, -1)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert ((images[first] - images[second]).abs().amax(dim=1) > 0.01).all()

    @pytest.mark.parametrize("label", range(3))
    def test_every_entry_of_the_noise_counts_for_every_label(self, label):
        # DiM writes the label over the first K entries of the noise, which then say nothing.
        network = small()
        z = noise(1).requires_grad_(True)
        jacobian = torch.autograd.functional.jacobian(lambda z: network(z, torch.tensor([label])).flatten(), z)
        assert (jacobian.abs().amax(dim=0) > 0).all()

    def test_the_label_is_added_beside_the_noise(self):
        # The first layer is linear, so what two labels differ by there cannot depend on the noise.
        network = small()
        seen = []
        network.project[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
        z = noise(4)
        for label in (0, 2):
            network(z, torch.full((4,), label))
        difference = seen[0] - seen[1]
        assert difference.abs().max() > 1e-3
        torch.testing.assert_close(difference, difference[:1].expand(4, -1), rtol=0, atol=1e-6)

    def test_the_noise_is_not_written_to(self):
        z = noise(3)
        before = z.clone()
        small()(z, torch.arange(3))
        assert torch.equal(z, before)

    def test_an_unknown_label_is_an_error(self):
        with pytest.raises(RuntimeError):
            small()(noise(1), torch.tensor([3]))
