"""Near copies and nearer samples: values by hand, another library's, and what real images give by mathematics."""

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from gdd.evaluation.copies import Proportion, near_copies, nearer_to_training, proportion, relative


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(("hits", "count"), [(0, 50), (3, 10), (50, 50), (17, 1000)])
def test_the_interval_is_wilsons(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    found = proportion(hits / count, count, 0.01)
    assert (found.share, found.expected) == (hits / count, 0.01)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_relative_distances_by_hand():
    assert relative(values(1, 2, 3)[None]).tolist() == [0.5]
    assert relative(values(4, 4)[None]).tolist() == [1]
    assert relative(values(0, 5)[None]).tolist() == [0]
    assert relative(values(0, 0)[None]).tolist() == [0]


def test_near_copies_are_as_near_as_1_percent_of_the_held_out_images():
    held_out = torch.arange(1, 300).double()  # k = 3
    found, threshold = near_copies(values(3, 3.5, 100, 2), held_out)
    assert threshold == 3
    assert found == proportion(0.5, 4 * 299 / (4 + 299), 3 / 300)


def test_copies_are_found_where_held_out_images_have_copies_too():
    found, threshold = near_copies(values(0, 0, 0.5, 0.5), values(*[0.0] * 30, *[1.0] * 169))
    assert (found.share, threshold) == (0.5, 0)
    assert found.expected == 30 / 200


def test_new_real_images_have_the_expected_share():
    """Its mean over trials, each with 1 % of other held-out images; it misses by less than 4 standard errors."""
    random = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(2000):
        held_out, new = (torch.rand(count, generator=random) for count in (150, 40))
        found, _ = near_copies(new, held_out)
        shares.append(found.share)
    error = torch.tensor(shares).std().item() / 2000**0.5
    assert found.expected == 1 / 151
    assert abs(sum(shares) / 2000 - 1 / 151) < 4 * error < 0.002


@pytest.mark.parametrize(("made", "known"), [(1000, 150), (600, 300), (300, 6000)])
def test_95_percent_of_intervals_have_the_expected_share_of_new_real_images(made, known):
    """Of 1000 trials. By the number of samples alone, at the first of these sizes 55 % would."""
    random = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(1000):
        found, _ = near_copies(torch.rand(made, generator=random), torch.rand(known, generator=random))
        covered += found.low <= found.expected <= found.high
    assert 0.925 <= covered / 1000 <= 0.975


def test_nearer_samples_by_hand():
    found = nearer_to_training(values(1, 1, 1, 2, 5), values(2, 2, 2, 1, 5), torch.tensor([0, 1, 2, 3, 0]))
    assert found == proportion(0.75, 4, 0.5)
    nothing = nearer_to_training(values(5), values(5), torch.tensor([0]))
    assert nothing == Proportion(0.5, 0, 1, 0.5)


def test_samples_of_one_image_count_as_one():
    near, far = torch.ones(100), torch.full((100,), 2.0)
    found = nearer_to_training(near, far, torch.zeros(100, dtype=torch.int64))
    assert found == proportion(1, 1, 0.5)


def test_95_percent_of_intervals_cover_a_half_where_samples_crowd_around_some_images():
    """Of 1000 trials; by the number of samples alone fewer than 80 % would."""
    random = torch.Generator().manual_seed(0)
    covered, naive = 0, 0
    for _ in range(1000):
        rows = (torch.rand(400, generator=random) ** 2 * 200).long()
        is_training = torch.rand(200, generator=random) < 0.5
        distances = is_training[rows].double()
        found = nearer_to_training(1 - distances, distances, rows)
        covered += found.low <= 0.5 <= found.high
        plain = proportion(found.share, 400, 0.5)
        naive += plain.low <= 0.5 <= plain.high
    assert 0.925 <= covered / 1000 <= 0.975
    assert naive < 800
