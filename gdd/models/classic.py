"""MLP, LeNet, AlexNet and VGG11 as dataset condensation uses them (DatasetCondensation, networks.py).

`width` is the first layer's; the other layers keep their published proportion to it.
"""

from torch import nn

from gdd.models.layers import ACTIVATIONS, Classifier, Shape, halve, make_norm, require_map, scaled, stem


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
        layers += [
            nn.Conv2d(channels, planes, kernel, padding=padding),
            make_norm(norm, planes, size),
            ACTIVATIONS[activation](),
        ]
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
            layers += [
                nn.Conv2d(channels, planes, kernel_size=3, padding=padding),
                make_norm(norm, planes, size),
                ACTIVATIONS[activation](),
            ]
            channels, padding = planes, 1
        smallest = 1 if number == len(stages) else 2
        if min(halve(size)) >= smallest:
            layers.append(nn.MaxPool2d(2))
            size = halve(size)
    layers.append(nn.AdaptiveAvgPool2d(1))
    return Classifier(nn.Sequential(*layers), nn.Linear(channels, num_classes))
