import pytest
import torch

from gdd import rng
from gdd.data.batches import Batches
from gdd.data.splits import Split, resized, stratified_split


def numbered(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose only pixel and whose label are their own number."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count)


def make(count: int = 20, batch_size: int = 6, seed: int = 0, purpose: str = "test", **process: int) -> Batches:
    return Batches(*numbered(count), batch_size, seed, purpose, **process)


def test_a_batch_depends_on_its_step_alone():
    wanted = [make().indices(step).tolist() for step in range(12)]
    used = make()
    for step in (11, 0, 5, 5, 2, 9, 11, 1):
        assert used.indices(step).tolist() == wanted[step]
    torch.manual_seed(5)
    assert make().indices(7).tolist() == wanted[7]


def test_images_and_labels_belong_together():
    batches = make()
    for step in range(7):
        images, labels = batches(step)
        assert images.dtype == torch.uint8
        assert images.shape == (6, 1, 1, 1)
        assert torch.equal(images.flatten().long(), labels)
        assert torch.equal(labels, batches.indices(step))


@pytest.mark.parametrize(("count", "batch_size"), [(20, 6), (20, 5), (20, 20), (7, 4), (5, 1)])
def test_an_epoch_shows_every_image_at_most_once(count, batch_size):
    batches = make(count, batch_size)
    for epoch in range(3):
        seen = [x for k in range(batches.per_epoch) for x in batches.indices(epoch * batches.per_epoch + k).tolist()]
        assert len(seen) == len(set(seen)) == count - count % batch_size
        assert set(seen) <= set(range(count))


def test_images_left_over_in_one_epoch_come_in_others():
    batches = make(7, 4)
    assert {x for step in range(20) for x in batches.indices(step).tolist()} == set(range(7))


@pytest.mark.parametrize(("count", "batch_size"), [(20, 6), (20, 10), (21, 10), (7, 1)])
def test_other_images_are_as_many_and_none_of_the_batch(count, batch_size):
    batches = make(count, batch_size)
    ranks = [make(count, batch_size, rank=rank, world_size=2) for rank in range(2)]
    for step in range(3 * batches.per_epoch):
        others = batches.others(step).flatten().tolist()
        assert len(set(others)) == batch_size
        assert not {*others} & {*batches.indices(step).tolist()}
        assert [rank.others(step).flatten().tolist() for rank in ranks] == [others[0::2], others[1::2]]


def test_epochs_have_different_orders():
    batches = make(20, 20)
    orders = {tuple(batches.indices(epoch).tolist()) for epoch in range(10)}
    assert len(orders) == 10
    assert tuple(range(20)) not in orders


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(("count", "batch_size"), [(20, 6), (20, 7), (3, 64)])
def test_processes_share_the_batch_of_one_process(world_size, count, batch_size):
    alone = make(count, batch_size)
    ranks = [make(count, batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(8):
        whole = alone.indices(step)
        for rank, batches in enumerate(ranks):
            assert torch.equal(batches.indices(step), whole[rank::world_size])
        union = [x for batches in ranks for x in batches.indices(step).tolist()]
        assert sorted(union) == sorted(whole.tolist())


def test_a_dataset_smaller_than_a_batch_makes_smaller_batches():
    batches = make(5, 64)
    assert batches.batch_size == 5
    assert batches.per_epoch == 1
    for step in range(4):
        assert sorted(batches.indices(step).tolist()) == list(range(5))


@pytest.mark.parametrize("other", [{"seed": 1}, {"purpose": "other"}])
def test_another_seed_or_purpose_is_another_stream(other):
    one, two = make(20, 20), make(20, 20, **other)
    assert all(one.indices(step).tolist() != two.indices(step).tolist() for step in range(5))


def test_every_image_is_equally_likely():
    # 10 of 40 images 400 times: each is expected 100 times, with a deviation of sqrt(100 * .75) = 8.7.
    batches = make(40, 10)
    counts = torch.zeros(40)
    for epoch in range(400):
        counts[batches.indices(4 * epoch)] += 1
    assert (counts - 100).abs().max() < 5 * 75**0.5


# Splitting by class and resizing, by hand.


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
