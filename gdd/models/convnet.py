"""The ConvNet of the field (DatasetCondensation, networks.py)."""

from torch import nn

from gdd.models.layers import ACTIVATIONS, POOLINGS, Classifier, Shape, halve, make_norm, require_map, stem


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
        layers += [
            nn.Conv2d(channels, width, kernel_size=3, padding=padding),
            make_norm(norm, width, size),
            ACTIVATIONS[activation](),
            POOLINGS[pooling](),
        ]
        channels, padding = width, 1
        if pooling != "none":
            size = halve(size)
    return Classifier(nn.Sequential(*layers), nn.Linear(width * size[0] * size[1], num_classes))
