"""Every network written out as formulas that take its parameters one after another, to compare outputs with."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdd import rng
from gdd.models.registry import Arch

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "leakyrelu": lambda x: x.where(x > 0, 0.01 * x),
    "swish": lambda x: x / (1 + (-x).exp()),
}


def perturb(network: nn.Module) -> nn.Module:
    """Move every parameter, so that no norm is left with the factor 1 and the offset 0."""
    random = rng.generator(0, "perturb")
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return network


class Layers:
    """The layers of a network, each with the parameters that come next.

    Args:
        network: gives its parameters in the order in which it was built.
        activation: of all layers.
        has_norm: whether the norm is an instance norm or none.
    """

    def __init__(self, network: nn.Module, activation: Callable[[Tensor], Tensor], has_norm: bool = True) -> None:
        self.parameters: Iterator[Tensor] = iter(list(network.parameters()))
        self.activation, self.has_norm = activation, has_norm

    def all_used(self) -> bool:
        return next(self.parameters, None) is None

    def linear(self, x: Tensor) -> Tensor:
        return x @ next(self.parameters).T + next(self.parameters)

    def convolution(self, x: Tensor, stride: int = 1, padding: int = 1, bias: bool = True) -> Tensor:
        weight = next(self.parameters)
        return F.conv2d(x, weight, next(self.parameters) if bias else None, stride, padding)

    def patches(self, x: Tensor) -> Tensor:
        return F.conv2d(x, next(self.parameters), next(self.parameters), stride=4)

    def norm(self, x: Tensor) -> Tensor:
        return self.norm_over((2, 3), x) if self.has_norm else x

    def norm_over(self, axes: tuple[int, ...], x: Tensor) -> Tensor:
        weight, bias = next(self.parameters), next(self.parameters)
        if weight.ndim == 1 and x.ndim == 4:
            weight, bias = weight[:, None, None], bias[:, None, None]
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt() * weight + bias

    def block(self, x: Tensor, padding: int = 1) -> Tensor:
        return self.activation(self.norm(self.convolution(x, padding=padding)))


def mlp(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    x = layers.activation(layers.linear(x.flatten(1)))
    return layers.linear(layers.activation(layers.linear(x)))


def lenet(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    for _ in range(2):
        x = F.max_pool2d(layers.activation(layers.convolution(x, padding=0)), 2)
    x = x.flatten(1)
    for _ in range(2):
        x = layers.activation(layers.linear(x))
    return layers.linear(x)


def alexnet(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    x = F.max_pool2d(layers.block(x, padding=2), 2)
    x = F.max_pool2d(layers.block(x, padding=2), 2)
    x = layers.block(layers.block(layers.block(x)))
    return layers.linear(F.max_pool2d(x, 2).flatten(1))


def vgg11(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    for convolutions in (1, 1, 2, 2, 2):
        for _ in range(convolutions):
            x = layers.block(x)
        x = F.max_pool2d(x, 2)
    return layers.linear(x.mean((2, 3)))


def convnet(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    pools = {"avg": F.avg_pool2d, "max": F.max_pool2d, "none": lambda x, side: x}
    for _ in range(arch.depth or 0):
        x = pools[arch.pooling or ""](layers.block(x), 2)
    return layers.linear(x.flatten(1))


def resnet(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    def convolved(x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return layers.norm(layers.convolution(x, stride, padding, bias=False))

    x = layers.activation(convolved(x))
    counts = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
    for stage, count in enumerate(counts[arch.base]):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            if arch.base == "resnet50":
                branch = layers.activation(convolved(x, padding=0))
                branch = layers.activation(convolved(branch, stride))
                branch = convolved(branch, padding=0)
            else:
                branch = convolved(layers.activation(convolved(x, stride)))
            if branch.shape == x.shape:
                shortcut = x
            elif arch.shortcut == "pooled" and stride == 2:
                odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
                shortcut = convolved(F.max_pool2d(F.pad(x, odd, value=-torch.inf), 2), padding=0)
            else:
                shortcut = convolved(x, stride, padding=0)
            x = layers.activation(branch + shortcut)
    return layers.linear(x.mean((2, 3)))


def vit(layers: Layers, x: Tensor, arch: Arch) -> Tensor:
    """Attention has two heads."""
    token, places = next(layers.parameters), next(layers.parameters)
    patches = layers.patches(x).flatten(2).transpose(1, 2)
    x = torch.cat([token.expand(len(x), -1, -1), patches], 1) + places
    for _ in range(arch.depth or 0):
        query, key, value = layers.linear(layers.norm_over((2,), x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(3)
        x = x + layers.linear((attention @ value).transpose(1, 2).flatten(2))
        x = x + layers.linear(layers.activation(layers.linear(layers.norm_over((2,), x))))
    return layers.linear(layers.norm_over((2,), x)[:, 0])


REFERENCES: dict[str, Callable[[Layers, Tensor, Arch], Tensor]] = {
    "mlp": mlp,
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg11": vgg11,
    "convnet": convnet,
    "convnet3": convnet,
    "resnet10": resnet,
    "resnet18": resnet,
    "resnet50": resnet,
}


def generator(layers: Layers, noise: Tensor, labels: Tensor, base: tuple[int, int, int]) -> Tensor:
    """Return images (B, C, H, W); batch norm in train mode.

    Args:
        layers: of the generator.
        noise: (B, noise_dim).
        labels: (B,).
        base: (width, H, W) of the first map.
    """

    def finished(x: Tensor) -> Tensor:
        return layers.activation(layers.norm_over((0, *range(2, x.ndim)), x))

    def upsampled(x: Tensor) -> Tensor:
        weight, bias = next(layers.parameters), next(layers.parameters)
        return finished(F.conv_transpose2d(x, weight, bias, stride=2, padding=1))

    one_hot = (labels[:, None] == torch.arange(3)).float()
    x = finished(layers.linear(torch.cat([noise, one_hot], 1))).view(-1, *base)
    x = upsampled(x)
    for _ in range(3):
        x = finished(layers.convolution(x))
    x = finished(layers.convolution(upsampled(x)))
    return layers.convolution(upsampled(x)).tanh()


def discriminator(layers: Layers, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (B,) and class logits (B, K)."""
    x = images
    for stride in (1, 2, 1, 2, 1, 1, 1, 2):
        x = layers.activation(layers.norm_over((1, 2, 3), layers.convolution(x, stride)))
    x = x.amax((2, 3))
    return layers.linear(x).squeeze(1), layers.linear(x)
