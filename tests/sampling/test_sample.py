import pytest
import torch

from gdd import rng
from gdd.sampling.sample import balanced_labels, latents


def test_balanced_labels_are_ordered_by_class():
    labels, indices = balanced_labels(3, 2, 4)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert indices.tolist() == [2, 3, 2, 3, 2, 3]


@pytest.mark.parametrize("noise_dim", [1, 3, 4, 100])
def test_a_sample_has_draws_of_its_own(noise_dim):
    labels, indices = balanced_labels(3, 7, 9)
    pairs = zip(labels.tolist(), indices.tolist(), strict=True)
    expected = [rng.Draws(4, "latent", *pair).normal(noise_dim) for pair in pairs]
    assert torch.equal(latents(4, labels, indices, noise_dim), torch.stack(expected))


def test_no_two_of_a_million_samples_have_equal_noise():
    """Of torch's generators, which keep 32 bits of a seed, 113 pairs had."""
    labels, indices = balanced_labels(10, 0, 100_000)
    assert len(torch.unique(latents(0, labels, indices, 4), dim=0)) == 1_000_000


def test_ipc_10_is_a_prefix_of_ipc_50():
    small = latents(0, *balanced_labels(3, 0, 10), 16)
    large = latents(0, *balanced_labels(3, 0, 50), 16)
    assert torch.equal(large.view(3, 50, 16)[:, :10], small.view(3, 10, 16))


def test_the_same_latents_come_from_any_range():
    whole = latents(0, *balanced_labels(2, 0, 12), 5).view(2, 12, 5)
    parts = [latents(0, *balanced_labels(2, start, start + 4), 5).view(2, 4, 5) for start in (0, 4, 8)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_batching_changes_nothing(size):
    labels, indices = balanced_labels(3, 0, 10)
    pairs = zip(labels.split(size), indices.split(size), strict=True)
    assert torch.equal(torch.cat([latents(4, *pair, 16) for pair in pairs]), latents(4, labels, indices, 16))


def test_order_and_other_classes_change_nothing():
    labels, indices = balanced_labels(3, 0, 10)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(latents(4, labels[order], indices[order], 16), latents(4, labels, indices, 16)[order])
    # More classes do not move the latents of those that were there.
    assert torch.equal(latents(4, *balanced_labels(5, 0, 10), 16)[:30], latents(4, labels, indices, 16))


def test_seed_class_and_index_all_matter():
    labels, indices = balanced_labels(12, 0, 12)
    rows = torch.cat([latents(seed, labels, indices, 4) for seed in (0, 1, 11)])
    assert len(torch.unique(rows, dim=0)) == 3 * 12 * 12


def test_the_global_generator_is_neither_used_nor_changed():
    torch.manual_seed(1)
    first = latents(0, *balanced_labels(2, 0, 2), 4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(latents(0, *balanced_labels(2, 0, 2), 4), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_latents_are_independent_standard_normals():
    values = latents(0, *balanced_labels(10, 0, 100), 50).double()  # (1000, 50)
    n = values.numel()
    # Five standard errors of the mean, variance, third and fourth moment of N(0, 1).
    assert abs(values.mean()) < 5 * (1 / n) ** 0.5
    assert abs(values.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs(values.pow(3).mean()) < 5 * (15 / n) ** 0.5
    assert abs(values.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
    # Neighbouring indices and neighbouring entries are uncorrelated.
    assert abs((values[1:] * values[:-1]).mean()) < 5 * (1 / n) ** 0.5
    assert abs((values[:, 1:] * values[:, :-1]).mean()) < 5 * (1 / n) ** 0.5
