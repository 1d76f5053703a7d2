"""What is dropped, where it is, and what is left then."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from written_out import perturb

from gdd.models.drop_path import Alternative, Droppable, Residual, masks
from gdd.models.layers import Classifier
from gdd.models.registry import build
from gdd.rng import generator, seeded

SHAPE = (3, 32, 32)
PATHS = {"resnet10-bn-w4": 4, "resnet18-bn-w4-pooled": 8, "resnet50-w4": 16, "vgg11-bn-w4": 3, "alexnet-w8": 2}
WITHOUT = ("convnet3-w8", "mlp-w8", "lenet-w4")


def network_of(name: str, drop_path: bool = True) -> Classifier:
    with seeded(0, "test"):
        return build(name, SHAPE, 7, drop_path)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, *SHAPE, generator=generator(0, "images"))


def paths_of(network: Classifier) -> list[Droppable]:
    return [layer for layer in network.features if isinstance(layer, Droppable)]


@pytest.mark.parametrize(("name", "paths"), [*PATHS.items(), *((name, 0) for name in WITHOUT)])
def test_residual_blocks_and_pairs_of_convolutions_can_be_dropped(name: str, paths: int):
    assert network_of(name).paths == paths


# The released vgg11 has a norm of 512 channels more, for which an identity has no use.
@pytest.mark.parametrize(("name", "weights"), [("vgg11-bn", 9_398_282 - 2 * 512), ("alexnet-bn", 1_957_386)])
def test_networks_with_virtual_shortcuts_are_as_large_as_released(name: str, weights: int):
    with torch.device("meta"):
        network = build(name, SHAPE, 10, drop_path=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [*PATHS, *WITHOUT, "alexnet-in-w8", "vgg11-ln-w4"])
def test_a_network_that_keeps_all_paths_is_its_plain_form_to_the_bit(name: str, training: bool, images: Tensor):
    plain, network = (network_of(name, drop_path).train(training) for drop_path in (False, True))
    assert torch.equal(network(images), plain(images))
    assert torch.equal(network(images, torch.ones(5, network.paths)), plain(images))
    losses = [one(images).square().sum() for one in (plain, network)]
    for loss in losses:
        loss.backward()
    unused = {
        id(parameter)
        for path in paths_of(network)
        if isinstance(path, Alternative)
        for parameter in path.shortcut.parameters()
    }
    used = [parameter for parameter in network.parameters() if id(parameter) not in unused]
    for one, other in zip(plain.parameters(), used, strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("name", PATHS)
def test_a_network_that_drops_all_paths_is_its_shortcuts(name: str, images: Tensor):
    network = perturb(network_of(name))
    maps = images
    for layer in network.features:
        maps = layer.shortcut(maps) if isinstance(layer, Droppable) else layer(maps)
        maps = layer.activation(maps) if isinstance(layer, Residual) else maps
    expected = network.head(maps.flatten(1))
    torch.testing.assert_close(network(images, torch.zeros(5, network.paths)), expected)


@pytest.mark.parametrize("name", PATHS)
def test_every_block_obeys_its_own_column_image_by_image(name: str, images: Tensor):
    """The released code set the rate on no block at all."""
    network = perturb(network_of(name)).eval()
    for index, path in enumerate(paths_of(network)):
        kept = torch.ones(5, network.paths)
        kept[1:3, index] = 0
        before = network(images, kept)
        with torch.no_grad():
            main = path.branch if isinstance(path, Residual) else path.main
            for parameter in main.parameters():
                parameter.mul_(-1.5)
        after = network(images, kept)
        same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
        torch.testing.assert_close(before[1:3], after[1:3])
        assert not any(same[i] for i in (0, 3, 4))


def test_the_mean_over_what_is_dropped_is_the_answer_of_inference():
    """Of a linear network, over all 2^3 ways weighed by their probability."""
    with seeded(0, "test"):
        blocks = [Residual(nn.Conv2d(2, 2, 1), nn.Identity(), nn.Identity()) for _ in range(3)]
        network = Classifier(nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1)), nn.Linear(2, 3)).double()
    image, rate = torch.randn(1, 2, 4, 4, dtype=torch.float64), 0.7
    mean = torch.zeros(1, 3, dtype=torch.float64)
    for ways in itertools.product((0.0, 1.0), repeat=3):
        probability = rate ** sum(ways) * (1 - rate) ** (3 - sum(ways))
        mean += probability * network(image, torch.tensor([ways], dtype=torch.float64) / rate)
    torch.testing.assert_close(mean, network(image))


@pytest.mark.parametrize(
    ("name", "shortcuts"),
    [
        ("vgg11-bn-w4", [(nn.Conv2d, nn.BatchNorm2d)] * 2 + [()]),
        ("alexnet-bn-w8", [(nn.MaxPool2d, nn.Conv2d, nn.BatchNorm2d), (nn.Conv2d, nn.BatchNorm2d)]),
        ("alexnet-w8", [(nn.MaxPool2d, nn.Conv2d, nn.Identity), (nn.Conv2d, nn.Identity)]),
    ],
)
def test_a_virtual_shortcut_is_a_pool_and_a_convolution_where_the_main_path_has_them(name: str, shortcuts: list):
    found = [path.shortcut for path in paths_of(network_of(name)) if isinstance(path, Alternative)]
    assert [tuple(map(type, shortcut)) for shortcut in found] == shortcuts
    kernels = {layer.kernel_size for shortcut in found for layer in shortcut if isinstance(layer, nn.Conv2d)}
    assert kernels == {(1, 1)}


@pytest.mark.parametrize("rate", [0.0, 0.35, 0.5, 0.8, 1.0])
def test_paths_are_kept_at_the_rate_by_each_image_and_layer(rate: float):
    kept = masks(10_000, 4, rate, generator(3, "test"))
    assert torch.equal(kept, masks(10_000, 4, rate, generator(3, "test")))
    assert {*kept.unique().tolist()} <= {0.0, torch.tensor(1 / rate).item() if rate else 0.0}
    share = (kept > 0).float()
    deviation = (rate * (1 - rate) / 10_000) ** 0.5
    assert ((share.mean(0) - rate).abs() <= 5 * deviation).all()
    covariance = share.T.cov(correction=0).fill_diagonal_(0)
    assert covariance.abs().max() <= 5 * rate * (1 - rate) / 100
