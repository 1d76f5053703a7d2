"""The distance between the means and covariances of features, by an estimate that small batches do not bias."""

import torch
from torch import Tensor


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
    distances = [synthetic.sum() * 0]
    for label in synthetic_labels.unique():
        x, y = real[real_labels == label], synthetic[synthetic_labels == label]
        if min(len(x), len(y)) > 1:
            distances.append(_within(x) + _within(y) - 2 * _kernel(x, y).mean())
    return torch.stack(distances).sum() / max(1, len(distances) - 1)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1).square()


def _within(x: Tensor) -> Tensor:
    """Return the mean of the kernel over pairs of different rows."""
    values = _kernel(x, x)
    return (values.sum() - values.diagonal().sum()) / (len(x) * (len(x) - 1))


def standardized_by(reference: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    """Return features (B, F), shifted and scaled so that the reference (N, F) has mean 0 and mean square 1.

    One scale for all dimensions, since one that hardly varies says little.
    """
    reference = reference.detach()
    mean = reference.mean(0)
    scale = (reference - mean).square().mean().sqrt().clamp(min=1e-6)
    return tuple((rows - mean) / scale for rows in features)
