"""What refinement asks of generated images: that a network of the pool finds them as it finds the real ones.

Each loss maps a network and two batches in classifier space, whose rows have the same classes, to a scalar with a
gradient at the generated images. One that compares rows with each other (`OF_ALL`) sees those of all W processes: its
gradient has to be counted W times, since gradients are then averaged over the processes.
"""

from collections.abc import Callable
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gdd.config import RefineConfig
from gdd.losses.distances import class_gradient_distance, moment_distance, standardized_by
from gdd.losses.logits import log_probability_mse, paired, skd
from gdd.models.layers import Classifier
from gdd.runtime.execution import Execution

OF_ALL = ("features", "gradient")

BY_OTHERS = ("features",)  # what also takes other real images

# Network, real images (B, C, H, W), generated images (B, C, H, W), labels (B,), perhaps other real images (B, C, H, W).
RefineLoss = Callable[..., Tensor]


def make_loss(settings: RefineConfig, execution: Execution, accelerator: Accelerator) -> RefineLoss:
    """Return the loss that the settings name; networks are executed by `execution`."""
    if settings.loss == "features":
        return partial(feature_loss, accelerator=accelerator)
    if settings.loss == "gradient":
        return partial(gradient_loss, accelerator=accelerator)
    compare: Callable[[Tensor, Tensor], Tensor] = log_probability_mse
    if settings.loss == "skd":
        compare = partial(skd, tau=settings.tau, tau_mode=settings.tau_mode, standardized=settings.standardize)
    pairs = accelerator if settings.pairing == "optimal" else None
    return partial(logit_loss, compare=compare, execution=execution, optimal_over=pairs)


def logit_loss(
    network: nn.Module,
    real_std: Tensor,
    fake_std: Tensor,
    labels: Tensor,
    compare: Callable[[Tensor, Tensor], Tensor],
    execution: Execution,
    optimal_over: Accelerator | None,
) -> Tensor:
    """Compare each generated image's logits with those of the real one in its row, or of its optimal pair."""
    with torch.no_grad():
        real_logits = execution(network, real_std)  # (B, K)
    fake_logits = execution(network, fake_std)
    if optimal_over is not None:
        rows = (optimal_over.gather(one) for one in (real_logits, fake_logits.detach(), labels))
        real_logits = paired(*rows)[optimal_over.process_index * len(labels) :][: len(labels)]  # (B, K)
    return compare(real_logits, fake_logits)


def feature_loss(
    network: nn.Module,
    real_std: Tensor,
    fake_std: Tensor,
    labels: Tensor,
    others_std: Tensor,
    accelerator: Accelerator,
) -> Tensor:
    """Compare mean and covariance of each class's features, the mean over the network's layers.

    Features are standardized by those of other real images, whose draw is independent of the compared ones: then the
    loss is least in expectation where both sides have the same moments. By the compared images themselves it would be
    least where the generated ones vary too little, for their scale is that of the very images that they are held to.

    In float32: covariances need more digits than bfloat16 has.
    """
    assert isinstance(network, Classifier)
    labels = accelerator.gather(labels)
    with torch.no_grad():
        real_layers, other_layers = (
            [accelerator.gather(layer) for layer in network.activations(images)] for images in (real_std, others_std)
        )
    fake_layers = [_of_all(layer, accelerator) for layer in network.activations(fake_std)]
    layers = map(standardized_by, other_layers, real_layers, fake_layers)
    distances = [moment_distance(real, fake, labels, labels) for real, fake in layers]
    return torch.stack(distances).mean()


def gradient_loss(
    network: nn.Module, real_std: Tensor, fake_std: Tensor, labels: Tensor, accelerator: Accelerator
) -> Tensor:
    """Compare the gradients that each class's images cause in the network: the objective of gradient matching.

    In float32: it is a derivative of a derivative. Every process takes the gradients of all images.
    """
    network.requires_grad_(True)
    real_std, fake_std, labels = (
        accelerator.gather(real_std),
        _of_all(fake_std, accelerator),
        accelerator.gather(labels),
    )
    return class_gradient_distance(network, real_std, fake_std, labels)


def _of_all(rows: Tensor, accelerator: Accelerator) -> Tensor:
    """Return the rows of all processes (W * B, ...), of which this one's own are in their graph."""
    gathered = accelerator.gather(rows.detach()).clone()
    gathered[accelerator.process_index * len(rows) :][: len(rows)] = rows
    return gathered
