"""Distances between the gradients, or the features, that real and synthetic images cause (DC, DSA, DM)."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Distance = Literal["dc", "cos", "mse"]


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum over rows of 1 - cosine of (R, F) and (R, F).

    The directions alone decide: rescaling either side changes nothing, and equal sides give 0. DC adds 1e-6 to the
    product of the norms instead, which makes a row of small gradients count as distant from itself. A row that is
    zero on one side counts 1, on both sides 0, without gradient.
    """
    zero_a, zero_b = a.eq(0).all(1), b.eq(0).all(1)
    either = (zero_a | zero_b)[:, None]
    # Where a norm is 0 its slope is infinite; such rows are kept out of the graph.
    a, b = a.where(~either, torch.ones_like(a)), b.where(~either, torch.ones_like(b))
    # Scaled by the largest entry first, since squares of small gradients underflow.
    a, b = (x / x.detach().abs().amax(1, keepdim=True) for x in (a, b))
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
    # Half the squared distance of unit vectors is 1 - cosine, and exactly 0 for equal ones.
    apart = (a - b).square().sum(1) / 2
    return torch.where(either[:, 0], (zero_a != zero_b).to(apart.dtype), apart).sum()


def distance(synthetic: Sequence[Tensor], real: Sequence[Tensor], kind: Distance = "dc") -> Tensor:
    """Return the distance between two gradients of one network, a scalar (DC: Zhao, Mopuri and Bilen 2021).

    Args:
        synthetic: one gradient per parameter tensor.
        real: the same of the real images.
        kind: `dc` sums 1 - cosine over every output row of every tensor and leaves out 1-D tensors (biases and
            affine parameters); `cos` is 1 - cosine, `mse` the squared distance, of all tensors joined.

    Raises:
        ValueError: the gradients differ in number or shape.
    """
    if [x.shape for x in synthetic] != [x.shape for x in real]:
        raise ValueError("the two gradients are not of the same parameters")
    if kind == "dc":
        # Rows are outputs: the first axis of convolutions (O, I, h, w), linear layers (O, I) and layer norms (C, h, w).
        pairs = [(a, b) for a, b in zip(synthetic, real, strict=True) if a.ndim > 1]
        return torch.stack([cosine_distance(a.flatten(1), b.flatten(1)) for a, b in pairs]).sum()
    a, b = (torch.cat([x.flatten() for x in gradient]) for gradient in (synthetic, real))
    if kind == "cos":
        return cosine_distance(a[None], b[None])
    return (a - b).square().sum()


def embedding_distance(synthetic: Tensor, real: Tensor) -> Tensor:
    """Return the squared distance between the mean features (B, F) and (B', F) (DM: Zhao and Bilen 2023)."""
    return (synthetic.mean(0) - real.mean(0)).square().sum()


def class_gradient_distance(
    network: nn.Module, real_std: Tensor, synthetic_std: Tensor, labels: Tensor, kind: Distance = "dc"
) -> Tensor:
    """Return how far apart the gradients are that a class's real and synthetic images cause, its mean over classes.

    Args:
        network: in eval mode; its weights must require gradients.
        real_std: (B, C, H, W) in classifier space.
        synthetic_std: the same; the distance is differentiable in it.
        labels: (B,), the classes of the rows of either.
        kind: as of `distance`.
    """
    parameters, distances = list(network.parameters()), []
    targets, order = labels.sort(stable=True)
    counts = [*Counter(targets.cpu().tolist()).values()]  # of each class; a GPU waits for this
    parts = (rows.split(counts) for rows in (real_std[order], synthetic_std[order], targets))
    for real, synthetic, target in zip(*parts, strict=True):
        aim = torch.autograd.grad(F.cross_entropy(network(real), target), parameters)
        asked = torch.autograd.grad(F.cross_entropy(network(synthetic), target), parameters, create_graph=True)
        distances.append(distance(asked, aim, kind))
    return torch.stack(distances).mean()


def moment_distance(real: Tensor, synthetic: Tensor, real_labels: Tensor, synthetic_labels: Tensor) -> Tensor:
    """Return the squared MMD with the kernel (x . y / F + 1)^2 between the features of each class, its mean over them.

    In expectation it is |E xx' - E yy'|^2 / F^2 + 2 |E x - E y|^2 / F, which is 0 where mean and covariance agree. The
    unbiased estimate (Gretton et al. 2012, eq. 3) leaves out the pairs of a sample with itself. A distance between the
    moments of two batches has them, so that it falls as the samples of a class become alike: a generator that follows
    it collapses.

    Args:
        real: (B, F), a constant: no gradient flows into it.
        synthetic: (B', F).
        real_labels: (B,); a class with one row in either batch has no covariance and does not count.
        synthetic_labels: (B',).

    Returns:
        A scalar, which may be below 0; 0 with no gradient if no class counts.
    """
    real = real.detach()
    same = {
        "xx": real_labels[:, None] == real_labels,
        "xy": real_labels[:, None] == synthetic_labels,
        "yy": synthetic_labels[:, None] == synthetic_labels,
    }
    # Of each row, how many of its class there are: a pair weighs as much as makes a mean of its class's pairs.
    x_in_x, x_in_y, y_in_y, y_in_x = (pairs.sum(1) for pairs in (same["xx"], same["xy"], same["yy"], same["xy"].T))
    counts_x, counts_y = (x_in_x > 1) & (x_in_y > 1), (y_in_y > 1) & (y_in_x > 1)
    within_x = _weights(same["xx"], counts_x / (x_in_x * (x_in_x - 1)).clamp(min=1), diagonal=False)
    within_y = _weights(same["yy"], counts_y / (y_in_y * (y_in_y - 1)).clamp(min=1), diagonal=False)
    between = _weights(same["xy"], counts_x / (x_in_x * x_in_y).clamp(min=1), diagonal=True)
    total = (_kernel(real, real) * within_x).sum() + (_kernel(synthetic, synthetic) * within_y).sum()
    classes = (counts_y / y_in_y).sum()
    return (total - 2 * (_kernel(real, synthetic) * between).sum()) / classes.clamp(min=1)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1).square()


def _weights(pairs: Tensor, of_row: Tensor, diagonal: bool) -> Tensor:
    """Return the weight of each pair of rows that is marked, with or without those of a row with itself."""
    weights = pairs * of_row[:, None]
    return weights if diagonal else weights - weights.diagonal().diag()


def standardized_by(reference: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    """Return features (B, F), shifted and scaled so that the reference (N, F) has mean 0 and mean square 1.

    One scale for all dimensions, since one that hardly varies says little.
    """
    reference = reference.detach()
    mean = reference.mean(0)
    scale = (reference - mean).square().mean().sqrt().clamp(min=1e-6)
    return tuple((rows - mean) / scale for rows in features)
