"""What matching asks of a set on one network: the gradients, or the mean features, that real images have there.

Gradients: DC (Zhao, Mopuri and Bilen 2021), summed over classes; features: DM (Zhao and Bilen 2023). Batch norms are
frozen at the statistics of real images first.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gdd import rng
from gdd.data.batches import ClassBatches
from gdd.losses import distances
from gdd.models.layers import Classifier
from gdd.runtime.execution import EAGER, Execution

# Real images of each class whose statistics batch norms are frozen at (DatasetCondensation, main.py).
STATISTICS_IMAGES = 16
# Activations of so many images stay in a CPU's cache.
CPU_CHUNK = 32


def freeze_statistics(network: nn.Module, real: ClassBatches, *counters: int) -> None:
    """Set every batch norm's running statistics to those of one real batch of all classes, and use them from now on.

    DC updates them once with momentum 0.1, which leaves nine tenths of the initial values, and its inner loop lets
    them move again.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        indices = torch.cat(real(STATISTICS_IMAGES, rng.MATCHING_STATISTICS, *counters))
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = 1.0  # this batch's, all of them
        network.train()
        with torch.no_grad():
            network(real.images(indices))
    network.eval()


def real_gradient(network: nn.Module, images_std: Tensor, label: Tensor, execution: Execution = EAGER) -> list[Tensor]:
    """Return the gradient of the mean cross-entropy of images of one class (1,), a tensor per parameter.

    On CPUs the images go through in chunks: exact but for rounding, since no layer in eval mode mixes images.
    """
    parameters = list(network.parameters())
    chunk = CPU_CHUNK if images_std.device.type == "cpu" else len(images_std)
    total: list[Tensor] | None = None
    for part in images_std.split(chunk):
        logits = execution(network, part, compiled=len(part) == chunk)
        loss = F.cross_entropy(logits, label.expand(len(part)), reduction="sum") / len(images_std)
        gradient = torch.autograd.grad(loss, parameters)
        total = list(gradient) if total is None else [x.add_(y) for x, y in zip(total, gradient, strict=True)]
    assert total is not None
    return total


def gradient_loss(
    network: nn.Module,
    synthetic: Tensor,
    real: Sequence[Tensor],
    labels: Tensor,
    distance: distances.Distance,
    execution: Execution = EAGER,
) -> Tensor:
    """Return how far apart the gradients of real and synthetic images are, summed over some classes.

    The classes' gradients are taken in one graph, as a vmap over stacked batches: for single images on two AVX2 cores
    twice as fast as one by one with networks of width 24 and 32, and level with 10 images of width 128.

    Args:
        network: a Classifier in eval mode.
        synthetic: (G, ipc, C, H, W) in classifier space, a row per class; the loss is differentiable in it.
        real: G batches (B, C, H, W).
        labels: (G,), the classes.
        distance: between two gradients.
        execution: of the network on real images; the gradient of a gradient is taken in float32, not compiled.
    """
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    buffers = dict(network.named_buffers())
    targets = labels[:, None].expand(synthetic.shape[:2])  # (G, ipc)

    def loss(weights: dict[str, Tensor], images: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, (weights, buffers), (images,)), target)

    def class_distance(images: Tensor, target: Tensor, *real_gradients: Tensor) -> Tensor:
        synthetic_gradients = grad(loss)(parameters, images, target)
        return distances.distance(list(synthetic_gradients.values()), real_gradients, distance)

    by_class = [
        real_gradient(network, images, label, execution) for images, label in zip(real, labels.split(1), strict=True)
    ]
    stacked = [torch.stack(tensors) for tensors in zip(*by_class, strict=True)]
    return vmap(class_distance)(synthetic, targets, *stacked).sum()


def embedding_loss(network: nn.Module, synthetic: Tensor, real: Sequence[Tensor]) -> Tensor:
    """Return how far apart the mean features of real and synthetic images are; arguments as of `gradient_loss`."""
    assert isinstance(network, Classifier)
    features = network.embed(rearrange(synthetic, "g ipc c h w -> (g ipc) c h w"))
    features = rearrange(features, "(g ipc) f -> g ipc f", g=len(synthetic))
    with torch.no_grad():
        targets = [network.embed(images) for images in real]
    return torch.stack([distances.embedding_distance(*pair) for pair in zip(features, targets, strict=True)]).sum()
