import copy

import pytest
import torch
from torch import nn
from written_out import Layers, discriminator, generator, perturb

from gdd.config import GanConfig
from gdd.models.gan import (
    BatchNorm,
    ConditionalBatchNorm,
    DimDiscriminator,
    DimGenerator,
    EnlargingConv,
    HalvingConv,
    ResidualDiscriminator,
    ResidualGenerator,
    _Down,
    make_discriminator,
    make_generator,
    width_of,
)
from gdd.rng import generator as rng_generator
from gdd.rng import seeded

SHAPES = [(1, 16, 16), (3, 24, 40), (1, 28, 28), (3, 30, 17), (3, 32, 32)]
RESIDUAL_SHAPES = [(1, 1, 1), (1, 4, 4), (1, 8, 8), (1, 16, 16), (3, 24, 40), (1, 28, 28), (3, 30, 17), (3, 32, 32)]
CIFAR, MNIST = (3, 32, 32), (1, 28, 28)
LABELS = torch.tensor([0, 1, 2, 0])


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def noise(batch: int = 4) -> torch.Tensor:
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


@pytest.mark.parametrize(
    ("kind", "shape"), [*(("dim", shape) for shape in SHAPES), *(("residual", shape) for shape in RESIDUAL_SHAPES)]
)
def test_every_parameter_gets_a_gradient(kind, shape):
    with seeded(0, "test"):
        player, critic = make_generator(kind, shape, 3, 4, 8), make_discriminator(kind, shape, 3, 4)
    score, classes = critic(player(noise(), LABELS))
    (score.sum() + classes.square().sum()).backward()
    assert [name for net in (player, critic) for name, p in net.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for net in (player, critic) for p in net.parameters())


def test_the_noise_is_not_written_to():
    z = noise(3)
    DimGenerator((1, 16, 16), 3, width=4, noise_dim=8)(z, torch.arange(3))
    assert torch.equal(z, noise(3))


@pytest.mark.parametrize(("kind", "error"), [("dim", IndexError), ("residual", IndexError)])
def test_an_unknown_label_is_an_error(kind, error):
    with pytest.raises(error):
        make_generator(kind, (1, 16, 16), 3, 4, 8).eval()(noise(1), torch.tensor([3]))


def test_checkpoints_of_version_0_1_0_still_fit():
    """Their text of a network begins with the names that it had then."""
    networks = DimGenerator((1, 16, 16), 3, 4, 8), DimDiscriminator((1, 16, 16), 3, 4)
    assert [str(network).partition("(")[0] for network in networks] == ["Generator", "Discriminator"]


# The residual GAN by what its equations say, not by its own numbers.


def images(shape: tuple[int, int, int], batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, *shape, generator=rng_generator(0, "images")) * 2 - 1


def residual_networks(shape: tuple[int, int, int]) -> tuple[ResidualGenerator, ResidualDiscriminator]:
    with seeded(0, "test"):
        return ResidualGenerator(shape, 3, 4, 8), ResidualDiscriminator(shape, 3, 4)


@pytest.mark.parametrize("shape", RESIDUAL_SHAPES)
def test_shapes_and_ranges(shape):
    player, critic = residual_networks(shape)
    made = player(noise(), LABELS)
    assert made.shape == (4, *shape)
    assert made.abs().max() <= 1
    score, classes = critic(made)
    assert (score.shape, classes.shape) == ((4,), (4, 3))


@pytest.mark.parametrize(("shape", "smallest"), [((1, 8, 8), (4, 4)), ((1, 28, 28), (4, 4)), ((3, 24, 40), (3, 5))])
def test_maps_begin_small_with_more_channels(shape, smallest):
    player, _ = residual_networks(shape)
    halvings = len(player.blocks)
    assert player.base == (4 * 2**halvings, *smallest)


def test_a_class_begins_like_every_other_and_then_has_its_own_norms():
    player, _ = residual_networks((1, 16, 16))
    player.eval()
    same = noise(1).expand(3, -1)
    made = player(same, torch.arange(3))
    torch.testing.assert_close(made[0], made[2])
    norm = player.blocks[0].first_norm
    assert isinstance(norm, ConditionalBatchNorm)
    with torch.no_grad():
        norm.shift.weight[1] += 1
    changed = player(same, torch.arange(3))
    torch.testing.assert_close(changed[[0, 2]], made[[0, 2]])
    assert (changed[1] - made[1]).abs().max() > 1e-3


def test_conditional_batch_norm_scales_and_shifts_by_class():
    norm, plain = ConditionalBatchNorm(5, 3), BatchNorm(5, affine=False)
    with torch.no_grad():
        norm.scale.weight.copy_(torch.arange(15.0).view(3, 5))
        norm.shift.weight.copy_(-torch.arange(15.0).view(3, 5))
    maps = torch.randn(4, 5, 2, 2, generator=rng_generator(0, "maps"))
    scale, shift = norm.scale.weight[LABELS], norm.shift.weight[LABELS]
    expected = plain(maps) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(norm(maps, LABELS), expected)


def test_weights_of_the_discriminator_have_spectral_norm_1():
    _, critic = residual_networks((1, 16, 16))
    for _ in range(200):
        critic(images((1, 16, 16)))
    critic.eval()
    layers = [layer for layer in critic.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3 * len(critic.blocks) + 2
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        torch.testing.assert_close(norm, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_spectral_norm_stays_float32_under_autocast():
    _, critic = residual_networks((1, 16, 16))
    critic.eval()
    weight = critic.blocks[0].second.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(critic.blocks[0].second.weight, weight)


def test_a_block_whose_branch_is_zero_is_its_shortcut():
    up = residual_networks((1, 16, 16))[0].blocks[0]
    maps = torch.randn(4, 16, 4, 4, generator=rng_generator(0, "maps"))
    nn.init.zeros_(up.second.weight)
    nn.init.zeros_(up.second.bias)
    enlarged = up.shortcut(maps).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(up(maps, LABELS), enlarged)


@pytest.mark.parametrize("halves", [True, False])
def test_a_block_of_the_discriminator_adds_its_branch_to_its_shortcut(halves):
    down = _Down(3, 5, halves=halves, first=False).eval()
    seen = torch.randn(4, 3, 7, 8, generator=rng_generator(0, "seen"))
    relu, pool = nn.functional.relu, nn.AvgPool2d(2, ceil_mode=True) if halves else nn.Identity()
    branch = down.second(relu(down.first(relu(seen))))
    # A 1x1 convolution and a mean change places freely.
    torch.testing.assert_close(down(seen), branch + pool(down.shortcut(seen)))


def with_gradients(answer: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return an answer, and the gradients of a sum in which each of its values has a weight of its own."""
    weights = torch.linspace(-1, 1, answer.numel(), dtype=answer.dtype).view_as(answer)
    return [answer, *torch.autograd.grad((answer * weights).sum(), inputs)]


@pytest.mark.parametrize(("sides", "products"), [((4, 4), 4), ((3, 5), 4), ((1, 2), 4), ((4, 3), 9)])
def test_a_convolution_of_repeated_pixels_takes_4_products_not_9(sides, products):
    size = (2 * sides[0], 2 * sides[1] - (products == 9))
    layer = EnlargingConv(2, 3, size).double()
    maps = torch.rand(2, 2, *sides, dtype=torch.float64, generator=rng_generator(0, "maps")).requires_grad_()
    enlarged = nn.functional.interpolate(maps, size)
    plain = nn.functional.conv2d(enlarged, layer.weight, layer.bias, padding=1)
    learned = maps, layer.weight, layer.bias
    made = layer(maps)
    torch.testing.assert_close(with_gradients(made, *learned), with_gradients(plain, *learned), rtol=1e-12, atol=1e-12)
    assert layer.products(maps, made) == products * 2 * 3 * size[0] * size[1]


@pytest.mark.parametrize(("sides", "products"), [((4, 4), 4), ((6, 10), 4), ((2, 4), 4), ((7, 8), 9), ((4, 5), 9)])
def test_a_convolution_before_means_takes_4_products_not_9(sides, products):
    layer = HalvingConv(2, 3).double()
    maps = torch.rand(2, 2, *sides, dtype=torch.float64, generator=rng_generator(0, "maps")).requires_grad_()
    convolved = nn.functional.conv2d(maps, layer.weight, layer.bias, padding=1)
    plain = nn.functional.avg_pool2d(convolved, 2, ceil_mode=True)
    learned = maps, layer.weight, layer.bias
    made = layer(maps)
    torch.testing.assert_close(with_gradients(made, *learned), with_gradients(plain, *learned), rtol=1e-12, atol=1e-12)
    assert layer.products(maps, made) == products * 2 * 3 * sides[0] * sides[1]


def test_a_pass_takes_one_step_of_each_spectral_norm():
    """A weight that is asked for twice would move its vectors twice, and cost as much."""
    down = _Down(3, 5, halves=True, first=False)
    once = copy.deepcopy(down.second)
    assert once.weight.requires_grad
    down(torch.rand(2, 3, 4, 4))
    (moved,), (expected,) = (
        [vector for name, vector in layer.named_buffers() if name.endswith("_u")] for layer in (down.second, once)
    )
    assert torch.equal(moved, expected)


def test_checkpoints_know_the_layers_by_the_names_that_they_had():
    player, critic = residual_networks((1, 16, 16))
    assert "Enlarging" not in str(player)
    assert "Halving" not in str(critic)
    assert str(critic).count("ParametrizedConv2d(") == 3 * len(critic.blocks)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (1, 16, 16)])
def test_every_size_of_image_can_depend_on_its_class(shape):
    player, _ = residual_networks(shape)
    player.eval()
    with torch.no_grad():
        player.norm.shift.weight[1] += 1
    made = player(noise(1).expand(3, -1), torch.arange(3))
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])


def test_images_of_64_pixels_have_at_32_the_maps_that_images_of_32_have():
    """So they cost little more, and not four times as much."""
    settings = GanConfig(arch="residual")
    widths = {side: width_of(settings, (3, side, side)) for side in (16, 32, 64)}
    assert widths == {16: 16, 32: 32, 64: 16}
    assert width_of(GanConfig(arch="residual", size="medium"), (1, 64, 64)) == 32
    assert width_of(GanConfig(arch="residual"), (1, 28, 28)) == 24
    large, small = (ResidualGenerator((3, side, side), 10, widths[side], 8) for side in (64, 32))
    assert large.norm.norm.num_features * 2 == small.norm.norm.num_features
    assert [block.second.out_channels for block in large.blocks][-2] == small.blocks[-1].second.out_channels
