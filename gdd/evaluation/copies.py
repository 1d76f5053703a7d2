"""How like training images samples are: nearest images, near copies, and what membership attacks tell.

Membership scores are those of a full black-box attack, which sees samples alone (GAN-Leaks; Chen et al., CCS 2020,
arXiv 1909.03935): minus the distance to the nearest sample.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.special import ndtri
from scipy.stats import rankdata
from torch import Tensor

from gdd.config.fields import Share
from gdd.data.mapped import ImageRows

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
    of 0.01 (n + 1): a new real image is as near with probability k / (n + 1), whatever their distribution. The
    threshold is estimated too, so the effective sample size is 1 / (1 / N + 1 / n), and the interval holds the expected
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


_VALUES = 2**22  # pixels of either side that are compared at once, 32 MiB as float64
_PAIRS = 2**22  # distances that are held at once, 32 MiB as float64
_MOST_ROWS = 2**10  # images that are compared at once


def nearest(
    images_u8: ImageRows, real_u8: ImageRows, count: int = 1, itself: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return each image's Euclidean distances to the real ones nearest to it, and the rows of those.

    By a matrix product of parts, so that beside the images less than 256 MiB are taken, whatever their number.

    Args:
        images_u8: (N, C, H, W) uint8.
        real_u8: (M, C, H, W) uint8.
        count: of real images for each, at most M.
        itself: rows (N,) that are no neighbours, because they are the images themselves; at most M - 1 remain then.

    Returns:
        Distances (N, count) of pixels in [0, 1], ascending, 0 for a copy alone, and rows (N, count).
    """
    pixels = math.prod(images_u8.shape[1:])
    rows = min(max(1, _VALUES // pixels), _MOST_ROWS)
    nearest_of_parts = [
        _nearest(part, real_u8, count, None if itself is None else itself[start : start + rows])
        for start, part in zip(range(0, len(images_u8), rows), images_u8.split(rows), strict=True)
    ]
    distances, places = zip(*nearest_of_parts, strict=True)
    return torch.cat(distances), torch.cat(places)


def _nearest(images_u8: Tensor, real_u8: ImageRows, count: int, itself: Tensor | None) -> tuple[Tensor, Tensor]:
    # Sums of squares of whole numbers are exact in float64, and so is the distance of a copy.
    images = images_u8.flatten(1).double()
    lengths = images.square().sum(1, keepdim=True)
    squares, rows = torch.empty(len(images), 0).double(), torch.empty(len(images), 0).long()
    size = max(1, min(_VALUES // images.shape[1], _PAIRS // len(images)))
    for start in range(0, len(real_u8), size):
        real = real_u8[start : start + size].flatten(1).double()
        distances = torch.addmm(real.square().sum(1), images, real.T, alpha=-2).add_(lengths)  # (N, size)
        if itself is not None:
            distances[itself[:, None] == torch.arange(start, start + len(real))] = math.inf
        least, places = distances.topk(min(count, len(real)), largest=False)
        squares, rows = torch.cat([squares, least], 1), torch.cat([rows, places + start], 1)
        squares, places = squares.topk(min(count, squares.shape[1]), largest=False)
        rows = rows.gather(1, places)
    return squares.sqrt() / 255, rows
