"""The classifiers of dataset condensation, of any width and for any image size.

MLP, LeNet, AlexNet, VGG11, ConvNet and ResNet as DatasetCondensation has them (networks.py), and a vision transformer
for small images. `width` is the first layer's; the other layers keep their published proportion to it.
"""

from functools import partial

from torch import nn

from gdd.config import ConfigError
from gdd.models.layers import (
    ACTIVATIONS,
    POOLINGS,
    Classifier,
    DifferentiableLayerNorm,
    Residual,
    Shape,
    Size,
    StridedPointwise,
    halve,
    make_norm,
    require_map,
    scaled,
    stem,
)

_BOTTLENECK_EXPANSION = 4
_PATCH, _HEAD_WIDTH = 4, 64  # of a vision transformer


def _convolved(
    inputs: int, outputs: int, kernel: int, padding: int, norm: str, activation: str, size: Size
) -> list[nn.Module]:
    """Return a convolution, its norm over maps of this size, and its activation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding)
    return [convolution, make_norm(norm, outputs, size), ACTIVATIONS[activation]()]


def convnet(
    shape: Shape, num_classes: int, *, width: int, depth: int, norm: str, activation: str, pooling: str
) -> Classifier:
    """Build `depth` times [3x3 convolution, norm, activation, 2x2 pool] and a linear head.

    Raises:
        ConfigError: `depth` pools leave no pixel of an image.
    """
    channels = shape[0]
    padding, size = stem(shape[1:], padding=1)
    if pooling != "none":
        smallest = min(size) // 2**depth
        require_map(f"a convnet of depth {depth}", (smallest, smallest), shape)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [*_convolved(channels, width, 3, padding, norm, activation, size), POOLINGS[pooling]()]
        channels, padding = width, 1
        if pooling != "none":
            size = halve(size)
    return Classifier(nn.Sequential(*layers), nn.Linear(width * size[0] * size[1], num_classes))


def mlp(shape: Shape, num_classes: int, *, width: int, activation: str) -> Classifier:
    """Build two hidden layers of `width` units."""
    act = ACTIVATIONS[activation]
    pixels = shape[0] * shape[1] * shape[2]
    layers = [nn.Flatten(), nn.Linear(pixels, width), act(), nn.Linear(width, width), act()]
    return Classifier(nn.Sequential(*layers), nn.Linear(width, num_classes))


def lenet(shape: Shape, num_classes: int, *, width: int, activation: str) -> Classifier:
    """Build LeNet-5 with max pools.

    Raises:
        ConfigError: images below 16 pixels a side, of which two 5x5 convolutions and two pools leave nothing.
    """
    act = ACTIVATIONS[activation]
    second, third, fourth = (scaled(planes, width, 6) for planes in (16, 120, 84))
    padding, (height, columns) = stem(shape[1:], padding=0)
    for _ in range(2):
        height, columns = halve((height - 4, columns - 4))
    require_map("lenet", (height, columns), shape)
    features = nn.Sequential(
        nn.Conv2d(shape[0], width, kernel_size=5, padding=padding),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, kernel_size=5),
        act(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * height * columns, third),
        act(),
        nn.Linear(third, fourth),
        act(),
    )
    return Classifier(features, nn.Linear(fourth, num_classes))


def alexnet(shape: Shape, num_classes: int, *, width: int, norm: str, activation: str) -> Classifier:
    """Build the small AlexNet; norm `batch` gives DC's AlexNetBN.

    Raises:
        ConfigError: images below 8 pixels a side.
    """
    channels = shape[0]
    first_padding, size = stem(shape[1:], padding=2)
    # (published channels, kernel, padding, pool afterwards)
    plan = (
        (128, 5, first_padding, True),
        (192, 5, 2, True),
        (256, 3, 1, False),
        (192, 3, 1, False),
        (192, 3, 1, True),
    )
    layers: list[nn.Module] = []
    for published, kernel, padding, pool in plan:
        planes = scaled(published, width, 128)
        layers += _convolved(channels, planes, kernel, padding, norm, activation, size)
        channels = planes
        if pool:
            layers.append(nn.MaxPool2d(2))
            size = halve(size)
            require_map("alexnet", size, shape)
    return Classifier(nn.Sequential(*layers), nn.Linear(channels * size[0] * size[1], num_classes))


def vgg11(shape: Shape, num_classes: int, *, width: int, norm: str, activation: str) -> Classifier:
    """Build VGG11 with a global average pool, which on 32 pixels is the published network.

    On smaller images a max pool is left out where it would leave a side of one pixel to a further stage,
    since an instance norm over one pixel is constant, or no pixel at all. The parameter count does not
    depend on the size.
    """
    channels = shape[0]
    padding, size = stem(shape[1:], padding=1)
    stages = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    layers: list[nn.Module] = []
    for number, stage in enumerate(stages, start=1):
        for published in stage:
            planes = scaled(published, width, 64)
            layers += _convolved(channels, planes, 3, padding, norm, activation, size)
            channels, padding = planes, 1
        smallest = 1 if number == len(stages) else 2
        if min(halve(size)) >= smallest:
            layers.append(nn.MaxPool2d(2))
            size = halve(size)
    layers.append(nn.AdaptiveAvgPool2d(1))
    return Classifier(nn.Sequential(*layers), nn.Linear(channels, num_classes))


def _strided(size: Size, stride: int) -> Size:
    """Return the map size after a convolution that pads to keep the size at stride 1."""
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


def resnet(
    shape: Shape,
    num_classes: int,
    *,
    blocks: tuple[int, int, int, int],
    bottleneck: bool,
    width: int,
    norm: str,
    activation: str,
    shortcut: str,
    stem: str,
) -> Classifier:
    """Build a ResNet with a global average pool, which on 28 and 32 pixels is the published pool of 4.

    Args:
        shape: (C, H, W), as of all classifiers.
        num_classes: outputs.
        blocks: residual blocks in each of the four stages.
        bottleneck: 1x1, 3x3, 1x1 convolutions per block instead of two of 3x3.
        width: channels of the first stage; each further stage doubles them.
        norm: one of NORMS.
        activation: one of ACTIVATIONS.
        shortcut: how a shortcut halves a map: `strided`, a 1x1 convolution of stride 2, which drops three positions of
            four, or `pooled`, a max pool and a 1x1 convolution of stride 1 (Zhong and Liu, arXiv 2309.04195, figure 2).
        stem: what it begins with: `cifar`, a 3x3 convolution, or `imagenet`, one of 7x7 and stride 2 and a max pool,
            which leave maps a quarter as high and wide: for large images (He et al. 2016, table 1).
    """

    def convolution(inputs: int, outputs: int, kernel: int, stride: int, size: Size) -> list[nn.Module]:
        kind = StridedPointwise if kernel == 1 and stride > 1 else nn.Conv2d
        convolved = kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        return [convolved, make_norm(norm, outputs, _strided(size, stride))]

    act = ACTIVATIONS[activation]
    size = shape[1:]
    layers: list[nn.Module]
    if stem == "imagenet":
        layers = [*convolution(shape[0], width, 7, 2, size), act(), nn.MaxPool2d(3, stride=2, padding=1)]
        size = _strided(_strided(size, 2), 2)
    else:
        layers = [*convolution(shape[0], width, 3, 1, size), act()]
    channels = width
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        outputs = planes * _BOTTLENECK_EXPANSION if bottleneck else planes
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            small = _strided(size, stride)
            if bottleneck:
                branch = [
                    *convolution(channels, planes, 1, 1, size),
                    act(),
                    *convolution(planes, planes, 3, stride, size),
                    act(),
                    *convolution(planes, outputs, 1, 1, small),
                ]
            else:
                branch = [
                    *convolution(channels, planes, 3, stride, size),
                    act(),
                    *convolution(planes, planes, 3, 1, small),
                ]
            if stride == 1 and channels == outputs:
                path = list[nn.Module]()
            elif stride == 2 and shortcut == "pooled":
                # Odd maps keep their last row and column, as they do under the branch's padded stride.
                path = [nn.MaxPool2d(2, ceil_mode=True), *convolution(channels, outputs, 1, 1, small)]
            else:
                path = convolution(channels, outputs, 1, stride, size)
            layers.append(Residual(nn.Sequential(*branch), nn.Sequential(*path), act()))
            channels, size = outputs, small
    layers.append(nn.AdaptiveAvgPool2d(1))
    return Classifier(nn.Sequential(*layers), nn.Linear(channels, num_classes))


def vit(shape: Shape, num_classes: int, *, width: int, depth: int) -> Classifier:
    """Build timm's transformer (Dosovitskiy et al. 2021) over patches of 4x4 pixels; width 192 is ViT-Tiny's.

    Its class token is the embedding. Every 64 channels of a token, or a narrower token as a whole, are one head.

    Raises:
        ConfigError: the patches do not divide an image, or the heads a token.
    """
    from timm.models.vision_transformer import Attention, VisionTransformer  # which takes seconds

    if shape[1] % _PATCH or shape[2] % _PATCH:
        raise ConfigError(f"a vit has patches of {_PATCH} pixels, which do not divide images of {shape[1]}x{shape[2]}")
    heads = max(1, width // _HEAD_WIDTH)
    if width % heads:
        raise ConfigError(f"a vit of width {width} has {heads} heads, which do not divide it: choose another width")
    features = VisionTransformer(
        img_size=shape[1:],
        patch_size=_PATCH,
        in_chans=shape[0],
        num_classes=0,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        norm_layer=partial(DifferentiableLayerNorm, eps=1e-6),
    )
    for module in features.modules():
        if isinstance(module, Attention):
            module.fused_attn = False  # type: ignore[misc]  # the fused kernel has no second derivative
    return Classifier(nn.Sequential(features), nn.Linear(width, num_classes))
