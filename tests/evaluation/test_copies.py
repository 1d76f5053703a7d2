"""Near copies and nearer samples: values by hand, another library's, and what real images give by mathematics."""

import math

import pytest
import torch
from scipy.special import ndtr
from scipy.stats import binomtest, mannwhitneyu
from torch import Tensor

from gdd.evaluation import copies as module
from gdd.evaluation.copies import (
    Proportion,
    auc,
    near_copies,
    nearer_to_training,
    nearest,
    proportion,
    relative,
    true_positive_rate,
)


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


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


# Of 27 pixels: one image at once on either side, two and a rest, all; also with few distances at once.
@pytest.mark.parametrize(("values", "pairs"), [(1, 1), (60, 2**22), (2**22, 2**22), (2**22, 6)])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_by_its_definition(values, pairs, count, monkeypatch):
    monkeypatch.setattr(module, "_VALUES", values)
    monkeypatch.setattr(module, "_PAIRS", pairs)
    images, real = noise(0, 5, 3, 3, 3), noise(1, 7, 3, 3, 3)
    all_distances = (images[:, None].double() - real[None].double()).flatten(2).norm(dim=2) / 255
    expected = all_distances.sort(dim=1)
    distances, rows = nearest(images, real, count)
    assert torch.equal(rows, expected.indices[:, :count])
    assert distances.flatten().tolist() == pytest.approx(expected.values[:, :count].flatten().tolist(), rel=1e-12)


def test_parts_give_the_same_bits(monkeypatch):
    images, real = noise(0, 50, 1, 6, 6), noise(1, 90, 1, 6, 6)
    whole = nearest(images, real, 5)
    monkeypatch.setattr(module, "_VALUES", 36 * 7)
    assert all(torch.equal(one, other) for one, other in zip(whole, nearest(images, real, 5), strict=True))


def test_only_a_copy_is_at_distance_0():
    """Also where sums of squares of all pixels are so large that float32 would round a grey level away."""
    real = noise(0, 3, 3, 64, 64) | 128
    almost = real[1:2].clone()
    almost[0, 0, 0, 0] -= 1
    distances, rows = nearest(torch.cat([real[2:], almost]), real)
    assert rows.tolist() == [[2], [1]]
    assert distances.tolist() == [[0], [1 / 255]]


def test_an_image_is_not_its_own_neighbour_but_its_double_is(monkeypatch):
    monkeypatch.setattr(module, "_VALUES", 16)  # so that each image is in a part of its own
    real = noise(0, 4, 1, 4, 4)
    real[3] = real[0]
    own = torch.tensor([0, 1])
    distances, rows = nearest(real[own], real, itself=own)
    assert (rows[0], distances[0]) == (3, 0)
    assert rows[1] != 1
    assert distances[1] > 0
