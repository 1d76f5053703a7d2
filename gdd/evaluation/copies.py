"""Which share of samples are near copies of training images, or nearer to these than to held-out ones."""

import math
from dataclasses import dataclass

from scipy.special import ndtri
from torch import Tensor

from gdd.config.fields import Share

NEIGHBOURS = 50  # nearest training images that a distance is compared with, as in Carlini et al. 2023
QUANTILE = 0.01  # of held-out images, that are as near as a near copy


@dataclass(frozen=True)
class Proportion:
    """A share of the samples, in [0, 1]."""

    share: Share
    low: Share  # end of Wilson's 95 % confidence interval
    high: Share  # its other end
    expected: Share  # if the samples were real images that nobody has trained on


def relative(distances: Tensor) -> Tensor:
    """Return how near the nearest training image is, relative to all near ones: (N,) in [0, 1].

        l(x) = d(x, x_1) / mean_i d(x, x_i),    i = 1..k

    of the distances (N, k) to the k nearest training images, ascending. It is the measure of near copies of Carlini et
    al. (USENIX Security 2023, arXiv 2301.13188) without its factor, which only scales it. A plain image is near to many
    others, a copy to one.
    """
    return (distances[:, 0] / distances.mean(1)).nan_to_num(0)  # of a copy of k equal images


def near_copies(of_samples: Tensor, of_held_out: Tensor) -> tuple[Proportion, float]:
    """Return the share of near copies, and the relative distance that is near enough.

    That is the quantile of held-out images at 1 %, the k-th smallest of their n relative distances for the whole part k
    of 0.01 (n + 1): a new real image is as near with probability k / (n + 1), whatever their distribution. The interval
    is that of a share of 1 / (1 / N + 1 / n) samples, for the quantile is known from n images only: it has the expected
    share in 95 of 100 audits of new real images.

    Args:
        of_samples: relative distances (N,).
        of_held_out: relative distances (n,), n at least 99.
    """
    made, known = len(of_samples), len(of_held_out)
    threshold = of_held_out.kthvalue(int(QUANTILE * (known + 1))).values
    expected = int((of_held_out <= threshold).sum()) / (known + 1)
    share = (of_samples <= threshold).double().mean().item()
    return proportion(share, 1 / (1 / made + 1 / known), expected), threshold.item()


def nearer_to_training(to_training: Tensor, to_held_out: Tensor, rows: Tensor) -> Proportion:
    """Return the share of samples that are nearer to a group of training images than to one of held-out images.

    Half would be if nothing was remembered, however plain or blurred samples are (Platzer and Reutterer, Frontiers in
    Big Data 2021). Samples of one nearest image are near to the same group, so the interval counts them as Kish's
    effective number (Survey Sampling, 1965): N^2 / sum_g n_g^2, of N samples, n_g of which are nearest to image g.

    Args:
        to_training: distances (N,) to the nearest image of the one group.
        to_held_out: distances (N,) to that of the other, equally large; samples as near to both do not count.
        rows: (N,) which image of both groups is nearest.
    """
    differ = to_training != to_held_out
    if not differ.any():
        return Proportion(0.5, 0.0, 1.0, 0.5)
    share = (to_training < to_held_out)[differ].double().mean().item()
    sizes = rows[differ].bincount().double()
    return proportion(share, (sizes.sum().square() / sizes.square().sum()).item(), 0.5)


def proportion(share: float, count: float, expected: float) -> Proportion:
    """Return a share of so many trials with Wilson's 95 % confidence interval (JASA 1927)."""
    z = float(ndtri(0.975))
    scale, middle = 1 + z**2 / count, share + z**2 / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Proportion(share, max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale), expected)
