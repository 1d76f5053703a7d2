import itertools
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import Tensor, nn
from written_out import ACTIVATIONS, REFERENCES, Layers, perturb, vit

from gdd.config import ConfigError
from gdd.models.layers import (
    NORMS,
    Alternative,
    Classifier,
    Droppable,
    Residual,
    StridedPointwise,
    make_norm,
    path_masks,
    stem,
)
from gdd.models.registry import FAMILIES, Arch, build, parse
from gdd.rng import Draws, generator, seeded

CIFAR = (3, 32, 32)
MNIST = (1, 28, 28)

# What a stage's second block of two 3x3 convolutions and two norms adds, for 64, 128, 256, 512 channels.
SECOND_BLOCKS = [2 * 9 * c * c + 2 * 2 * c for c in (64, 128, 256, 512)]
RESNET10 = 11_173_962 - sum(SECOND_BLOCKS)
RESNET34 = 11_173_962 + sum(more * block for more, block in zip((1, 2, 4, 1), SECOND_BLOCKS, strict=True))

# Counted by running DatasetCondensation's networks.py (algorithms.md 2.1).
# Of width 192: 12 blocks (4 products of a token by itself as wide, two of it and one 4 times as wide, their biases, two
# norms), 64 patches of 48 numbers, the class token, places, the last norm and the head.
VIT_TINY = 12 * (12 * 192**2 + 13 * 192) + (48 + 1) * 192 + 192 + 65 * 192 + 2 * 192 + (192 + 1) * 10
PUBLISHED = [
    ("mlp", CIFAR, 411_146),
    ("mlp", MNIST, 118_282),
    ("convnet3", CIFAR, 320_010),
    ("convnet3", MNIST, 317_706),
    ("convnet3-d1", CIFAR, 331_530),
    ("convnet-d2", CIFAR, 233_610),
    ("convnet-d4", CIFAR, 452_490),
    ("convnet3-w32", CIFAR, 24_714),
    ("convnet3-w256", CIFAR, 1_229_834),
    ("convnet3-ln", CIFAR, 663_306),
    ("convnet3-nonorm", CIFAR, 319_242),
    ("convnet3-nopool", CIFAR, 1_610_250),
    ("lenet", CIFAR, 62_006),
    ("lenet", MNIST, 61_706),
    ("alexnet", CIFAR, 1_872_202),
    ("alexnet", MNIST, 1_865_802),
    ("alexnet-bn", CIFAR, 1_874_122),
    ("vgg11", CIFAR, 9_231_114),
    ("vgg11", MNIST, 9_229_962),
    ("vgg11-bn", CIFAR, 9_231_114),
    *(("vgg11", shape, 9_231_114) for shape in [(3, 16, 16), (3, 24, 40), (3, 64, 64)]),
    ("resnet10", CIFAR, RESNET10),
    ("resnet18", CIFAR, 11_173_962),
    ("resnet18", MNIST, 11_172_810),
    ("resnet34", CIFAR, RESNET34),
    ("resnet50", CIFAR, 23_520_842),
    ("vit", CIFAR, VIT_TINY),
    ("resnet18-pooled", CIFAR, 11_173_962),
    # torchvision's, whose heads are for 1000 classes.
    ("resnet18-bn-imagenet", (3, 224, 224), 11_689_512 - 513 * 990),
    ("resnet50-bn-imagenet", (3, 224, 224), 25_557_032 - 2049 * 990),
    ("resnet50-pooled", CIFAR, 23_520_842),
]

NARROW = [
    "mlp-w8",
    "lenet-w4",
    "alexnet-w8",
    "alexnet-in-w8",
    "vgg11-w4",
    "vgg11-ln-w4",
    "convnet3-w8",
    "convnet-w8-d4-gn-swish-max",
    "convnet3-w8-nopool-ln",
    "resnet10-w4",
    "resnet18-w4-bn",
    "resnet18-w4-ln",
    "resnet34-w4-nonorm-leakyrelu",
    "resnet50-w4-gn-sigmoid",
    "vit-w8-d1",
    "vit-w128-d2",
    "resnet18-w4-bn-pooled",
    "resnet50-w4-ln-pooled",
    "resnet18-w4-bn-imagenet",
    "resnet50-w4-ln-imagenet",
]
SHAPES = [(1, 16, 16), (3, 16, 16), (1, 28, 28), (3, 28, 28), (3, 32, 32), (3, 24, 40), (1, 64, 64)]


@pytest.fixture(autouse=True)
def fixed_seed():
    with seeded(0, "test"):
        yield


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "shape", "expected"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, shape, expected):
    with torch.device("meta"):
        assert count(build(name, shape, 10)) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NARROW)
def test_the_head_of_the_embedding_is_the_output_and_every_parameter_can_learn(name, shape):
    network = build(name, shape, 7).eval()
    images = torch.randn(2, *shape)
    embedding, logits = network.embed(images), network(images)
    assert not torch.equal(*embedding)
    torch.testing.assert_close(logits, embedding @ network.head.weight.T + network.head.bias)
    assert logits.shape == (2, 7)
    network.train()(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("base", ["lenet", "alexnet", "vgg11", "convnet3"])
def test_28_pixels_are_padded_to_32_in_the_first_convolution(base):
    narrow = f"{base}-w8"
    wide, small = build(narrow, CIFAR, 10), build(narrow, (3, 28, 28), 10)
    small.load_state_dict(wide.state_dict())
    images = torch.randn(2, 3, 28, 28)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    torch.testing.assert_close(small.eval()(images), wide.eval()(padded))


# The default relu is no test of where a max pool stands, since the two commute; swish is.
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "leakyrelu", "swish"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp-w8", CIFAR),
        ("lenet-w4", CIFAR),
        ("alexnet-w8", CIFAR),
        ("alexnet-w8-in", CIFAR),
        ("vgg11-w4", (3, 64, 64)),
        ("convnet3-w8", CIFAR),
        ("convnet3-w8-max", CIFAR),
        ("convnet-w8-d2-nopool", CIFAR),
        ("resnet10-w4", CIFAR),
        ("resnet18-w4-nonorm", CIFAR),
        ("resnet50-w4", CIFAR),
        ("resnet18-w4-pooled", (1, 28, 28)),
        ("resnet50-w4-pooled", CIFAR),
    ],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_the_layers_are_wired_as_published(name, shape, activation):
    """The same parameters in another order of layers would count the same."""
    arch = parse(f"{name}-{activation}")
    network = perturb(build(arch, shape, 7))
    images = torch.randn(3, *shape)
    layers = Layers(network, ACTIVATIONS[activation], has_norm=arch.norm != "none")
    expected = REFERENCES[arch.base](layers, images, arch)
    assert layers.all_used()
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 75, 50)], ids=["square", "odd"])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_with_imagenets_stem_it_is_torchvisions(name, shape):
    """Both build their layers in one order; in training mode batch norms take the batch's own statistics."""
    ours = perturb(build(f"{name}-bn-imagenet", shape, 10)).train()
    theirs = getattr(torchvision.models, name)(num_classes=10).train()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(own.data)
    images = torch.randn(2, *shape)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-3, atol=1e-4)


def test_the_vit_is_wired_as_published():
    arch = parse("vit-w128-d2")
    network = perturb(build(arch, CIFAR, 7))
    images = torch.randn(3, *CIFAR)
    layers = Layers(network, nn.functional.gelu)
    expected = vit(layers, images, arch)
    assert layers.all_used()
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)


def test_the_vit_has_a_second_derivative():
    network, images = build("vit-w4-d1", (1, 8, 8), 3).double(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda images: network(images).square().sum(), images.requires_grad_())


def test_other_sizes_keep_the_usual_padding():
    assert stem((28, 28), padding=1) == (3, (32, 32))
    assert stem((28, 32), padding=1) == (1, (28, 32))


def test_vgg_max_pools():
    def pools(side):
        return sum(isinstance(m, nn.MaxPool2d) for m in build("vgg11-w4", (3, side, side), 10).modules())

    assert [pools(side) for side in (16, 32, 64)] == [4, 5, 5]


@pytest.mark.parametrize(("base", "width"), [("alexnet", 64), ("vgg11", 32), ("resnet18", 32), ("lenet", 12)])
def test_channels_scale_with_the_width(base, width):
    defaults = FAMILIES[base].defaults
    full, scaled = build(base, CIFAR, 10), build(f"{base}-w{width}", CIFAR, 10)
    for one, other in zip(full.modules(), scaled.modules(), strict=True):
        if isinstance(one, nn.Conv2d):
            assert other.out_channels * defaults["width"] == one.out_channels * width


# Norms


@pytest.mark.parametrize(
    ("kind", "axes", "over"),
    [("batch", (8,), (0, 2, 3)), ("instance", (8,), (2, 3)), ("layer", (8,), (1, 2, 3)), ("group", (4, 2), (2, 3, 4))],
)
def test_norm_standardizes_over_what_its_name_says(kind, axes, over):
    x = 3 + 2 * torch.randn(5, *axes, 6, 4)
    expected = (x - x.mean(over, keepdim=True)) / (x.var(over, keepdim=True, correction=0) + 1e-5).sqrt()
    maps = x.view(5, 8, 6, 4)
    torch.testing.assert_close(make_norm(kind, 8, (6, 4))(maps), expected.view_as(maps), atol=1e-5, rtol=1e-4)


def test_no_norm_is_the_identity():
    x = torch.randn(5, 8, 6, 4)
    assert make_norm("none", 8, (6, 4))(x) is x


def test_norm_parameters_are_affine():
    counts = {kind: count(make_norm(kind, 8, (6, 4))) for kind in NORMS}
    assert counts == {"batch": 16, "instance": 16, "group": 16, "layer": 2 * 8 * 6 * 4, "none": 0}


@pytest.mark.parametrize("base", ["alexnet", "vgg11", "convnet3", "resnet10", "resnet50"])
def test_only_batch_norm_mixes_images(base):
    images = torch.randn(3, 3, 16, 16)
    for token in ("bn", "in", "gn", "ln", "nonorm"):
        network = build(f"{base}-w8-{token}", (3, 16, 16), 4).train()
        together, alone = network(images)[:2], network(images[:2])
        assert torch.allclose(together, alone, atol=1e-4) == (token != "bn"), token


# Names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("convnet3", "convnet3-in-w128"),
        ("convnet", "convnet3-in-w128"),
        ("convnet-d3", "convnet3-in-w128"),
        ("convnet3-d4", "convnet-in-w128-d4"),
        ("convnet3-max-w32-swish-gn", "convnet3-gn-w32-swish-max"),
        ("convnet3-nonorm-nopool", "convnet3-nonorm-w128-nopool"),
        ("convnet3-relu-avg", "convnet3-in-w128"),
        ("resnet18-bn", "resnet18-bn-w64"),
        ("resnet18-bn-w16", "resnet18-bn-w16"),
        ("resnet18-pooled-bn", "resnet18-bn-w64-pooled"),
        ("resnet18-strided", "resnet18-in-w64"),
        ("resnet18-cifar", "resnet18-in-w64"),
        ("resnet18-imagenet-bn-w8", "resnet18-bn-w8-imagenet"),
        ("timm:resnet18", "timm:resnet18"),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
        ("mlp", "mlp-w128"),
        ("lenet-w12-sigmoid", "lenet-w12-sigmoid"),
        ("alexnet", "alexnet-nonorm-w128"),
        ("alexnet-bn", "alexnet-bn-w128"),
        ("vgg11-ln-w8", "vgg11-ln-w8"),
        ("vit", "vit-w192"),
        ("vit-d6-w64", "vit-w64-d6"),
    ],
)
def test_canonical_name(text, name):
    arch = parse(text)
    assert arch.name == name
    assert parse(arch.name) == arch


@pytest.mark.parametrize("base", FAMILIES)
def test_every_name_parses_back(base):
    activations = ("-swish", "-leakyrelu-w16") if "activation" in FAMILIES[base].defaults else ()
    for tokens in ("", "-w8", *activations):
        arch = parse(base + tokens)
        assert parse(arch.name) == arch


def test_parse_fills_every_field():
    assert parse("convnet3-w32-gn-swish-max-d2") == Arch("convnet", "group", 32, 2, "swish", "max")
    assert parse("mlp") == Arch("mlp", "none", 128, None, "relu", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet81", "unknown network 'resnet81', expected one of mlp, .*resnet50, timm:NAME; did you mean 'resnet18'"),
        ("ConvNet3", "did you mean 'convnet3'"),
        ("zzz", "resnet50, timm:NAME$"),
        ("", "unknown network ''"),
        ("resnet18-batchnorm", "unknown part 'batchnorm' .* bn, in, gn, ln, nonorm"),
        ("resnet18-", "unknown part ''"),
        ("resnet18-w", "unknown part 'w'"),
        ("resnet18-w1.5", "unknown part 'w1.5'"),
        ("mlp-bn", "mlp takes no norm, so 'bn' .* it takes wN, relu"),
        ("lenet-nonorm", "lenet takes no norm"),
        ("resnet18-d4", "resnet18 takes no depth"),
        ("vgg11-max", "vgg11 takes no pooling"),
        ("vgg11-pooled", "vgg11 takes no shortcut"),
        ("resnet18-strided-pooled", "sets its shortcut twice"),
        ("resnet18-cifar-imagenet", "sets its stem twice"),
        ("vgg11-imagenet", "vgg11 takes no stem"),
        ("convnet3-bn-in", "sets its norm twice"),
        ("convnet3-w8-w8", "sets its width twice"),
        ("convnet3-w2", "width 2, the smallest is 4"),
        ("convnet-d0", "depth 0"),
    ],
)
def test_bad_names_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("convnet-w8-d5", (3, 16, 16), "depth 5 .*16x16"),
        ("convnet-w8-d6-bn", CIFAR, "depth 6 .*32x32"),
        ("convnet-w8-d6", CIFAR, "depth 6 .*32x32"),
        ("vit", (1, 30, 32), "patches of 4 pixels, which do not divide images of 30x32"),
        ("vit-w200", (3, 32, 32), "width 200 has 3 heads"),
        ("resnet18-w8", (1, 8, 8), "instance norm over a 1x1 map"),
        ("lenet", (1, 15, 16), "lenet .*15x16"),
        ("alexnet-w8", (1, 7, 8), "alexnet .*7x8"),
        ("convnet3-w6-gn", CIFAR, "do not divide a layer's 6 channels"),
        ("alexnet-w6-gn", CIFAR, "do not divide"),
    ],
)
def test_networks_that_cannot_work_are_refused(name, shape, message):
    with pytest.raises(ConfigError, match=message):
        build(name, shape, 10)


# Layers of which torch has one that does not serve.


# Two threads share 13 images unevenly; torch's own layer ends this process by a signal, mostly within a few turns.
TRAINED = """
import torch
from gdd.models import registry
torch.set_num_threads(2)
for _ in range(60):
    network = registry.build("resnet10-bn-w4", (1, 16, 16), 10).to(memory_format=torch.channels_last)
    network(torch.randn(13, 1, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
"""


@pytest.mark.parametrize("stride", [2, (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_strided_pointwise_convolution_is_torchs_own(stride, bias):
    ours = StridedPointwise(5, 7, 1, stride=stride, bias=bias).double()
    torchs = nn.Conv2d(5, 7, 1, stride=stride, bias=bias).double()
    torchs.load_state_dict(ours.state_dict())
    answers, gradients = [], []
    for layer in (ours, torchs):
        x = torch.linspace(-1, 1, 3 * 5 * 9 * 8, dtype=torch.float64).view(3, 5, 9, 8).sin().requires_grad_()
        answers.append(layer(x))
        gradients.append(torch.autograd.grad(answers[-1].square().sum(), [x, *layer.parameters()]))
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(*gradients)


def test_narrow_residual_networks_train_on_several_threads_without_damage():
    ended = subprocess.run([sys.executable, "-c", TRAINED], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


# What is dropped, where it is, and what is left then.


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
    kept = path_masks(10_000, 4, rate, Draws(3, "test"))
    assert torch.equal(kept, path_masks(10_000, 4, rate, Draws(3, "test")))
    assert {*kept.unique().tolist()} <= {0.0, torch.tensor(1 / rate).item() if rate else 0.0}
    share = (kept > 0).float()
    deviation = (rate * (1 - rate) / 10_000) ** 0.5
    assert ((share.mean(0) - rate).abs() <= 5 * deviation).all()
    covariance = share.T.cov(correction=0).fill_diagonal_(0)
    assert covariance.abs().max() <= 5 * rate * (1 - rate) / 100
