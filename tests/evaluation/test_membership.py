"""AUC, its interval and the true positive rate: values by hand, another library's, and what intervals cover."""

import math

import pytest
import torch
from scipy.special import ndtr
from scipy.stats import mannwhitneyu
from torch import Tensor

from gdd.evaluation.membership import auc, true_positive_rate


def scores(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_auc_and_interval_by_hand():
    """Of four pairs the member wins three. Members beat 1 and 1/2 of the others, others lose to 1/2 and 1 of them."""
    found = auc(scores(3, 1), scores(2, 0))
    assert found.auc == 0.75
    reach = 1.959963984540054 * math.sqrt(0.125 / 2 + 0.125 / 2)
    assert (found.low, found.high) == (pytest.approx(0.75 - reach), 1)


def test_ties_count_half():
    assert auc(scores(1, 1), scores(1, 0)).auc == 0.75
    assert auc(scores(2, 2), scores(2, 2)) == (0.5, 0.5, 0.5)


def test_scores_that_tell_all_or_the_opposite():
    assert auc(scores(3, 2), scores(1, 0)) == (1, 1, 1)
    assert auc(scores(1, 0), scores(3, 2)) == (0, 0, 0)


def test_it_is_mann_and_whitneys_statistic():
    random = torch.Generator().manual_seed(0)
    members, others = (torch.randint(20, (size,), generator=random).double() for size in (70, 110))
    wins = mannwhitneyu(members, others).statistic
    assert auc(members, others).auc == pytest.approx(wins / (70 * 110), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_95_percent_of_intervals_cover_the_area(shift):
    """Of 1000 trials, which miss by chance less than 2.5 points; of normal scores the area is Phi(shift / sqrt 2)."""
    random = torch.Generator().manual_seed(1)
    area = float(ndtr(shift / math.sqrt(2)))
    covered = 0
    for _ in range(1000):
        members, others = torch.randn(2, 80, generator=random, dtype=torch.float64)
        found = auc(members + shift, others)
        covered += found.low <= area <= found.high
    assert 0.925 <= covered / 1000 <= 0.975


def test_true_positives_at_the_threshold_that_1_percent_of_the_others_pass():
    others = torch.arange(200).double()  # 198 and 199 pass
    assert true_positive_rate(scores(0, 197, 198, 500), others) == 0.5
    assert true_positive_rate(others + 200, others) == 1
    assert true_positive_rate(torch.ones(100), torch.ones(100)) == 0  # a threshold that lets one pass lets all
