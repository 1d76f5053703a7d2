"""One iteration of matching written out, class by class and row by row, from the streams that it draws from."""

import torch
from steps import cross_entropy
from torch import Tensor, nn
from toy import CLASSES, SPEC

from gdd import rng
from gdd.data import augment
from gdd.data.readers import Dataset
from gdd.models import registry
from gdd.training.matching import Matcher


def class_gradient(network: nn.Module, images: Tensor, label: int, **how) -> tuple[Tensor, ...]:
    """Return the gradient of the mean cross-entropy of images of one class, a tensor per parameter."""
    loss = -network(images).log_softmax(1)[:, label].sum() / len(images)
    return torch.autograd.grad(loss, list(network.parameters()), **how)


def _row_distance(a: Tensor, b: Tensor) -> Tensor | float:
    """1 - cosine; a dead unit's row is 0."""
    if not (a.any() and b.any()):
        return float(bool(a.any()) != bool(b.any()))
    return 1 - (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


def matching_loss(network: nn.Module, synthetic: Tensor, real: Tensor, label: int, kind: str) -> Tensor:
    """Return the loss of one class, differentiable in its synthetic images (ipc, C, H, W)."""
    if kind == "embedding":
        # Sums over images one by one, for the network mixes none.
        means = [sum(network.features(x[None]).flatten() for x in images) / len(images) for images in (synthetic, real)]
        return ((means[0] - means[1]) ** 2).sum()
    sides = class_gradient(network, synthetic, label, create_graph=True), class_gradient(network, real, label)
    if kind == "dc":
        matrices = [(a, b) for a, b in zip(*sides, strict=True) if a.ndim > 1]
        return sum(_row_distance(a[row].flatten(), b[row].flatten()) for a, b in matrices for row in range(len(a)))
    a, b = (torch.cat([x.flatten() for x in side]) for side in sides)
    return ((a - b) ** 2).sum() if kind == "mse" else _row_distance(a, b)


def iteration_reference(
    matcher: Matcher, dataset: Dataset, iteration: int, images: Tensor, velocity: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what an iteration of a pool of one model makes of images (K, ipc, C, H, W) and their velocity, and the
    mean loss."""
    seed, kind = matcher.seed, "embedding" if matcher.objective == "embedding" else matcher.distance
    with rng.seeded(seed, rng.INIT_POOL, 0, iteration):
        network = registry.build(matcher.pool.main, SPEC.shape, CLASSES).double()
    parameters = list(network.parameters())

    def real(label: int, count: int, *stream: str | int) -> Tensor:
        known = dataset.train.images_u8[dataset.train.labels == label]
        order = rng.Draws(seed, *stream, label).permutation(len(known))
        return (known[order[:count]].double() / 255 - SPEC.mean[0]) / SPEC.std[0]

    def take_statistics(norm: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
        values = arguments[0].detach().transpose(0, 1).flatten(1)
        norm.running_mean, norm.running_var = values.mean(1), values.var(1)

    def freeze_statistics(turn: int) -> None:
        """At those of 16 real images of each class."""
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        hooks = [norm.register_forward_hook(take_statistics) for norm in norms]
        classes = range(CLASSES)
        network.train()(torch.cat([real(label, 16, rng.MATCHING_STATISTICS, iteration, turn) for label in classes]))
        for hook in hooks:
            hook.remove()
        network.eval()

    def train(turn: int) -> None:
        """By plain SGD on the set; every image is augmented by itself."""
        labels, step = torch.arange(CLASSES).repeat_interleave(images.shape[1]), 0
        for epoch in range(matcher.inner):
            order = rng.Draws(seed, rng.INNER_ORDER, iteration, turn, epoch).permutation(len(labels))
            for chosen in order.split(matcher.batch_train):
                random = rng.Draws(seed, rng.INNER_AUGMENT, iteration, turn, step)
                drawn = augment.draw(matcher.augmentations, len(chosen), random, shared=False, pick="one")
                loss = cross_entropy(network(augment.apply(drawn, images.flatten(0, 1)[chosen])), labels[chosen])
                for weight, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    weight.data -= matcher.lr_network * slope
                step += 1

    losses = []
    freeze_statistics(0)
    for turn in range(matcher.outer):
        if turn or matcher.inner_first:
            train(turn)
            freeze_statistics(turn + 1)
        slopes = []
        for label in range(CLASSES):
            # One augmentation for real and synthetic images alike.
            random = rng.Draws(seed, rng.MATCHING_AUGMENT, iteration, turn, label)
            drawn = augment.draw(matcher.augmentations, 1, random, shared=True, pick="one")
            pixels = images[label].clone().requires_grad_()
            batch = real(label, matcher.batch_real, rng.MATCHING_REAL, iteration, turn)
            loss = matching_loss(network, *(augment.apply(drawn, x) for x in (pixels, batch)), label, kind)
            slopes += torch.autograd.grad(loss, pixels)
            losses.append(loss.detach())
        velocity = 0.5 * velocity + torch.stack(slopes)
        images = images - matcher.lr_image * velocity
    return images, velocity, torch.stack(losses).mean()
