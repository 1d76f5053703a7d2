"""Pixel spaces convert back to what they came from."""

from fractions import Fraction

import pytest
import torch

from gdd.data.pixels import Normalizer, pm1_to_u8, u8_to_pm1, u8_to_unit, unit_to_u8

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_every_level_survives_both_round_trips() -> None:
    assert torch.equal(pm1_to_u8(u8_to_pm1(ALL_LEVELS)), ALL_LEVELS)
    assert torch.equal(unit_to_u8(u8_to_unit(ALL_LEVELS)), ALL_LEVELS)


def test_ends_of_the_ranges() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8)
    assert u8_to_pm1(ends).tolist() == [-1, 1]
    assert u8_to_unit(ends).tolist() == [0, 1]


def test_rounds_to_the_nearest_level() -> None:
    assert unit_to_u8(torch.tensor([99.4, 99.6]) / 255).tolist() == [99, 100]
    assert pm1_to_u8(torch.tensor([99.4, 99.6]) / 127.5 - 1).tolist() == [99, 100]


def test_values_outside_the_range_are_clamped_not_wrapped() -> None:
    assert unit_to_u8(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]
    assert pm1_to_u8(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


def test_normalizer_by_hand() -> None:
    normalizer = Normalizer(mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 0.1))
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = torch.tensor([0.8 / 0.5, 0.6 / 0.25, 0.4 / 0.1]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(normalizer.from_u8(white), expected)


def test_both_ways_into_classifier_space_agree() -> None:
    normalizer = Normalizer(mean=(0.3,), std=(0.2,))
    torch.testing.assert_close(normalizer.from_pm1(u8_to_pm1(ALL_LEVELS)), normalizer.from_u8(ALL_LEVELS))


def test_both_ways_rounded_once_are_the_exact_value_to_the_nearest_float() -> None:
    normalizer = Normalizer(mean=(0.1307,), std=(0.3081,))
    mean, std = Fraction(normalizer.mean.item()), Fraction(normalizer.std.item())
    values = torch.linspace(-3, 3, 101).view(1, 1, 1, -1)
    for found, exact in (
        (normalizer.to_unit(values), [Fraction(value) * std + mean for value in values.flatten().tolist()]),
        (normalizer.from_unit_rounded_once(values), [(Fraction(v) - mean) / std for v in values.flatten().tolist()]),
    ):
        assert found.flatten().tolist() == torch.tensor([float(value) for value in exact]).tolist()


def test_own_statistics_standardize() -> None:
    images = torch.randint(0, 256, (50, 2, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    unit = u8_to_unit(images)
    mean, std = unit.mean((0, 2, 3)), unit.std((0, 2, 3), correction=0)
    standardized = Normalizer(tuple(mean.tolist()), tuple(std.tolist())).from_u8(images)
    torch.testing.assert_close(standardized.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized.std((0, 2, 3), correction=0), torch.ones(2))


def test_gradient_reaches_the_generator() -> None:
    images = torch.zeros(1, 1, 2, 2, requires_grad=True)
    Normalizer((0.5,), (0.25,)).from_pm1(images).sum().backward()
    assert images.grad is not None
    assert images.grad.unique().tolist() == pytest.approx([2.0])  # 1 / (2 * 0.25)
