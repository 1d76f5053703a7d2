import pytest
import torch

from gdd.data.batches import Batches


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
