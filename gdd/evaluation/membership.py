"""How well a score tells members of a training set from other images.

The scores are those of a full black-box attack, which sees samples alone (GAN-Leaks; Chen et al., CCS 2020, arXiv
1909.03935): minus the distance to the nearest sample.
"""

import math
from typing import NamedTuple

import torch
from scipy.special import ndtri
from scipy.stats import rankdata
from torch import Tensor

FALSE_POSITIVES = 0.01  # share of the others that a threshold lets pass


class Auc(NamedTuple):
    """Area under the ROC curve: 1 if every member scores higher than every other image, 0.5 if chance does as well."""

    auc: float  # in [0, 1]
    low: float  # end of the 95 % confidence interval, in [0, 1]
    high: float  # its other end


def auc(members: Tensor, others: Tensor) -> Auc:
    """Return how often a member scores higher than another image, ties counted half, with its interval.

    The variance is that of DeLong, DeLong and Clarke-Pearson (Biometrics 1988), by ranks (Sun and Xu, 2014). It is 0
    where all members score higher than all others, or lower, and so is the interval's length then.

    Args:
        members: scores (n,) of training images, n at least 2.
        others: scores (m,) of images that were not trained on, m at least 2.
    """
    inside, outside = members.numpy(), others.numpy()
    ranks = rankdata(torch.cat([members, others]).numpy())  # of several that are equal, the mean of their ranks
    # Of each member the share of others that score lower, of each other image the share of members that score higher.
    below = (ranks[: len(inside)] - rankdata(inside)) / len(outside)
    above = 1 - (ranks[len(inside) :] - rankdata(outside)) / len(inside)
    area = float(below.mean())
    reach = float(ndtri(0.975)) * math.sqrt(below.var(ddof=1) / len(inside) + above.var(ddof=1) / len(outside))
    return Auc(area, max(0.0, area - reach), min(1.0, area + reach))


def true_positive_rate(members: Tensor, others: Tensor) -> float:
    """Return the share of members that score above all but 1 % of the others, in [0, 1].

    Membership inference is to be judged at few false positives (Carlini et al., S&P 2022, arXiv 2112.03570); a random
    guess has a true positive rate of 1 % as well.
    """
    threshold = others.sort(descending=True).values[int(FALSE_POSITIVES * len(others))]
    return (members > threshold).double().mean().item()
