"""In which order samples are taken into a set."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from gdd.sampling.select import confident, herding, kmeans, standardized

CENTRES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def clusters(sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Return tight clusters in mixed order, and of which cluster each row is."""
    draw = torch.Generator().manual_seed(0)
    of = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    of = of[torch.randperm(len(of), generator=draw)]
    return CENTRES[of] + 0.01 * torch.randn(len(of), 2, generator=draw), of


def cost(features: Tensor, chosen: list[int]) -> float:
    return torch.cdist(features, features[chosen]).square().amin(1).sum().item()


@pytest.mark.parametrize("choose", [herding, kmeans])
def test_a_smaller_choice_is_the_beginning_of_a_larger_one_without_repeats(choose) -> None:
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    whole = choose(features, 40)
    assert sorted(whole.tolist()) == list(range(40))
    for count in (1, 7, 39):
        assert torch.equal(choose(features, count), whole[:count])


def test_kmeans_takes_one_of_each_cluster_however_small() -> None:
    features, of = clusters((20, 6, 4))
    assert {*of[kmeans(features, 3)].tolist()} == {0, 1, 2}


def test_kmeans_first_choice_has_the_least_cost_and_the_rest_save_most_of_what_can_be_saved() -> None:
    features = torch.randn(12, 2, generator=torch.Generator().manual_seed(2))
    first, *_ = chosen = kmeans(features, 4).tolist()
    assert cost(features, [first]) == pytest.approx(min(cost(features, [row]) for row in range(12)))
    best = min(cost(features, list(rows)) for rows in combinations(range(12), 4))
    most = torch.cdist(features, features).square().amax(1).sum().item()
    assert most - cost(features, chosen) >= (1 - 1 / torch.e) * (most - best)


def test_herding_starts_at_the_mean_and_follows_it() -> None:
    features, of = clusters((20, 10, 10))
    mean = features.mean(0)
    chosen = herding(features, 20)
    assert chosen[0] == (features - mean).square().sum(1).argmin()
    # Each cluster gets its share, so that the mean of the chosen is that of all.
    assert of[chosen].bincount().tolist() == [10, 5, 5]
    random = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:20]
    assert (features[chosen].mean(0) - mean).norm() < 0.1 * (features[random].mean(0) - mean).norm()


def test_confident_is_by_the_probability_of_the_class() -> None:
    logits = torch.tensor([[2.0, 2.0], [3.0, 0.0], [9.0, 8.0], [3.0, 0.0]])
    assert confident(logits, 0, 4).tolist() == [1, 3, 2, 0]
    assert confident(logits, 1, 2).tolist() == [0, 2]


def test_dimensions_that_do_not_vary_say_nothing() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert standardized(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
