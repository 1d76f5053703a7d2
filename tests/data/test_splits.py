"""Splitting by class and resizing, by hand."""

import pytest
import torch

from gdd import rng
from gdd.data.splits import Split, resized, stratified_split


class TestStratifiedSplit:
    labels = torch.tensor([0] * 20 + [1] * 100 + [2] * 3)

    def test_holds_out_the_fraction_of_every_class(self) -> None:
        kept, held_out = stratified_split(self.labels, 0.1, 0, rng.SPLIT_VALIDATION)
        assert self.labels[held_out].bincount().tolist() == [2, 10, 1]
        assert self.labels[kept].bincount().tolist() == [18, 90, 2]

    def test_is_a_partition_in_order(self) -> None:
        kept, held_out = stratified_split(self.labels, 0.3, 0, rng.SPLIT_VALIDATION)
        assert sorted(kept.tolist() + held_out.tolist()) == list(range(len(self.labels)))
        assert kept.tolist() == sorted(kept.tolist())
        assert held_out.tolist() == sorted(held_out.tolist())

    def test_depends_on_seed_and_purpose_alone(self) -> None:
        _, first = stratified_split(self.labels, 0.1, 0, rng.SPLIT_VALIDATION)
        torch.manual_seed(5)
        assert torch.equal(first, stratified_split(self.labels, 0.1, 0, rng.SPLIT_VALIDATION)[1])
        assert not torch.equal(first, stratified_split(self.labels, 0.1, 1, rng.SPLIT_VALIDATION)[1])
        assert not torch.equal(first, stratified_split(self.labels, 0.1, 0, rng.SPLIT_TEST)[1])

    def test_smaller_fraction_is_a_subset(self) -> None:
        small, large = (stratified_split(self.labels, fraction, 0, rng.SPLIT_VALIDATION)[1] for fraction in (0.1, 0.4))
        assert set(small.tolist()) < set(large.tolist())

    def test_keeps_one_and_holds_out_one(self) -> None:
        labels = torch.tensor([0, 0, 1, 1])
        for fraction in (0.01, 0.99):
            kept, held_out = stratified_split(labels, fraction, 0, rng.SPLIT_VALIDATION)
            assert labels[kept].tolist() == labels[held_out].tolist() == [0, 1]

    def test_zero_holds_out_nothing(self) -> None:
        kept, held_out = stratified_split(torch.tensor([0, 1]), 0, 0, rng.SPLIT_VALIDATION)
        assert kept.tolist() == [0, 1]
        assert len(held_out) == 0

    def test_refuses_a_class_of_one(self) -> None:
        with pytest.raises(ValueError, match="class 1 has 1 sample"):
            stratified_split(torch.tensor([0, 0, 1]), 0.1, 0, rng.SPLIT_VALIDATION)


class TestResized:
    def test_resize_averages(self) -> None:
        stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(8).expand(1, 1, 16, 16)
        shrunk = resized(Split(stripes, torch.zeros(1)), (2, 2), None).images_u8
        assert ((shrunk.float() - 127.5).abs() < 10).all()  # without antialiasing these are 0 or 255

    def test_grey_is_luma(self) -> None:
        primaries = torch.eye(3).mul(255).to(torch.uint8).view(3, 3, 1, 1).expand(3, 3, 4, 4)
        grey = resized(Split(primaries, torch.arange(3)), None, 1).images_u8
        assert grey[:, 0, 0, 0].tolist() == [76, 150, 29]  # ITU-R 601: .299, .587, .114

    def test_nothing_to_do_copies_nothing(self) -> None:
        split = Split(torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2))
        assert resized(split, (4, 5), 3) is split
