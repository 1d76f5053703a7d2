"""The residual GAN by what its equations say, not by its own numbers."""

import pytest
import torch
from torch import nn

from gdd.models.gan import BatchNorm, ConditionalBatchNorm, ResidualDiscriminator, ResidualGenerator, _Down
from gdd.rng import generator as rng_generator
from gdd.rng import seeded

SHAPES = [(1, 1, 1), (1, 4, 4), (1, 8, 8), (1, 16, 16), (3, 24, 40), (1, 28, 28), (3, 30, 17), (3, 32, 32)]
LABELS = torch.tensor([0, 1, 2, 0])


def noise(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 8, generator=rng_generator(0, "test"))


def images(shape: tuple[int, int, int], batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, *shape, generator=rng_generator(0, "images")) * 2 - 1


def networks(shape: tuple[int, int, int]) -> tuple[ResidualGenerator, ResidualDiscriminator]:
    with seeded(0, "test"):
        return ResidualGenerator(shape, 3, 4, 8), ResidualDiscriminator(shape, 3, 4)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_ranges(shape):
    player, critic = networks(shape)
    made = player(noise(), LABELS)
    assert made.shape == (4, *shape)
    assert made.abs().max() <= 1
    score, classes = critic(made)
    assert (score.shape, classes.shape) == ((4,), (4, 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_gets_a_gradient(shape):
    player, critic = networks(shape)
    score, classes = critic(player(noise(), LABELS))
    (score.sum() + classes.square().sum()).backward()
    assert [name for net in (player, critic) for name, p in net.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for net in (player, critic) for p in net.parameters())


@pytest.mark.parametrize(("shape", "smallest"), [((1, 8, 8), (4, 4)), ((1, 28, 28), (4, 4)), ((3, 24, 40), (3, 5))])
def test_maps_begin_small_with_more_channels(shape, smallest):
    player, _ = networks(shape)
    halvings = len(player.blocks)
    assert player.base == (4 * 2**halvings, *smallest)


def test_a_class_begins_like_every_other_and_then_has_its_own_norms():
    player, _ = networks((1, 16, 16))
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
    _, critic = networks((1, 16, 16))
    for _ in range(200):
        critic(images((1, 16, 16)))
    critic.eval()
    layers = [layer for layer in critic.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3 * len(critic.blocks) + 2
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        torch.testing.assert_close(norm, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_spectral_norm_stays_float32_under_autocast():
    _, critic = networks((1, 16, 16))
    critic.eval()
    weight = critic.blocks[0].second.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(critic.blocks[0].second.weight, weight)


def test_a_block_whose_branch_is_zero_is_its_shortcut():
    up = networks((1, 16, 16))[0].blocks[0]
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
    torch.testing.assert_close(down(seen), pool(branch + down.shortcut(seen)))


def test_an_unknown_label_is_an_error():
    with pytest.raises(IndexError):
        networks((1, 16, 16))[0].eval()(noise(1), torch.tensor([3]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (1, 16, 16)])
def test_every_size_of_image_can_depend_on_its_class(shape):
    player, _ = networks(shape)
    player.eval()
    with torch.no_grad():
        player.norm.shift.weight[1] += 1
    made = player(noise(1).expand(3, -1), torch.arange(3))
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])
