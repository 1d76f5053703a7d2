"""In which order the samples of a class are taken into a set, so that the first n are a good set of n."""

from typing import Literal

import torch
from torch import Tensor

Selection = Literal["herding", "kmeans", "confident"]


def standardized(features: Tensor) -> Tensor:
    """Return features (N, F) with mean 0 and standard deviation 1 in every dimension that varies."""
    centred = features - features.mean(0)
    std = centred.square().mean(0).sqrt()
    return centred / torch.where(std > 1e-6 * (1 + features.abs().amax(0)), std, torch.ones_like(std))


def herding(features: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of rows whose running mean stays closest to the mean of all (Welling 2009).

    Args:
        features: (N, F).
        count: at most N.
    """
    mean, total = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen = []
    for taken in range(count):
        distances = (mean - (total + features) / (taken + 1)).square().sum(1)
        index = int(distances.where(free, torch.inf).argmin())
        chosen.append(index)
        free[index] = False
        total = total + features[index]
    return torch.tensor(chosen)


def kmeans(features: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of rows, each of which most lowers the k-means cost of all rows.

    The cost is the sum of squared distances to the nearest chosen row. Greedy choice gets at least 1 - 1/e of what the
    best rows save (Nemhauser, Wolsey and Fisher 1978), and its first n are its choice of n, which k-means' are not.

    Args:
        features: (N, F).
        count: at most N.
    """
    distances = torch.cdist(features, features).square()  # (N, N)
    # What the first one saves is measured from a cost that no choice exceeds.
    cost = distances.amax(1)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen = []
    for _ in range(count):
        saved = (cost[:, None] - distances).clamp(min=0).sum(0)
        index = int(saved.where(free, -torch.inf).argmax())
        chosen.append(index)
        free[index] = False
        cost = torch.minimum(cost, distances[:, index])
    return torch.tensor(chosen)


def confident(logits: Tensor, label: int, count: int) -> Tensor:
    """Return the indices (count,) of the rows of logits (N, K) with the highest probability of a class."""
    return logits.log_softmax(1)[:, label].argsort(descending=True, stable=True)[:count]
