"""ResNets with a 3x3 stride-1 stem for small images (DatasetCondensation, networks.py)."""

from torch import nn

from gdd.models.drop_path import Residual
from gdd.models.layers import ACTIVATIONS, Classifier, Shape, Size, StridedPointwise, make_norm

BOTTLENECK_EXPANSION = 4


def strided(size: Size, stride: int) -> Size:
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
) -> Classifier:
    """Build a ResNet with a global average pool, which on 28 and 32 pixels is the published pool of 4.

    Args:
        shape: (C, H, W).
        num_classes: outputs.
        blocks: residual blocks in each of the four stages.
        bottleneck: 1x1, 3x3, 1x1 convolutions per block instead of two of 3x3.
        width: channels of the first stage; each further stage doubles them.
        norm: one of NORMS.
        activation: one of ACTIVATIONS.
        shortcut: how a shortcut halves a map: `strided`, a 1x1 convolution of stride 2, which drops three positions of
            four, or `pooled`, a max pool and a 1x1 convolution of stride 1 (Zhong and Liu, arXiv 2309.04195, figure 2).
    """

    def convolution(inputs: int, outputs: int, kernel: int, stride: int, size: Size) -> list[nn.Module]:
        kind = StridedPointwise if kernel == 1 and stride > 1 else nn.Conv2d
        convolved = kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        return [convolved, make_norm(norm, outputs, strided(size, stride))]

    act = ACTIVATIONS[activation]
    size = shape[1:]
    layers: list[nn.Module] = [*convolution(shape[0], width, 3, 1, size), act()]
    channels = width
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        outputs = planes * BOTTLENECK_EXPANSION if bottleneck else planes
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            small = strided(size, stride)
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
