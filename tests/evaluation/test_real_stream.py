"""Fresh real images at every step: what they hold, and how streams are measured by them."""

import pytest
import torch

from gdd.data.pixels import Normalizer
from gdd.data.splits import Split, random_real
from gdd.evaluation import sources
from gdd.evaluation.batches import RealStream
from gdd.evaluation.images import images_key
from gdd.evaluation.recipe import Job

CLASSES, SIZES = 3, (5, 7, 12)
NORMALIZE = Normalizer((0.0,), (1.0,), torch.device("cpu"))


@pytest.fixture
def train() -> Split:
    """Images of one pixel, each of a value of its own."""
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(SIZES)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return Split(images, labels[order])


def seen(stream: RealStream, epoch: int) -> list[list[int]]:
    """Return the values of an epoch's images by class."""
    images, labels = stream.batch(epoch, None)
    values = (images.flatten() * 255).round().int()
    return [values[labels == label].tolist() for label in range(CLASSES)]


def test_epoch_0_is_the_floors_set_of_the_seed(train):
    stream, fixed = RealStream(train, CLASSES, 4, 7, NORMALIZE), random_real(train, CLASSES, 4, 7)
    images, labels = stream.batch(0, None)
    assert torch.equal(images, NORMALIZE.from_u8(fixed.images_u8))
    assert torch.equal(labels, fixed.labels)


@pytest.mark.parametrize("ipc", [1, 2, 4, 6, 13])
def test_each_image_comes_once_before_any_comes_again(train, ipc):
    stream = RealStream(train, CLASSES, ipc, 0, NORMALIZE)
    epochs = [seen(stream, epoch) for epoch in range(30)]
    for label, size in enumerate(SIZES):
        flat = [value for epoch in epochs for value in epoch[label]]
        assert len(flat) == 30 * ipc
        members = set((train.labels == label).nonzero().flatten().tolist())
        turns = [flat[start : start + size] for start in range(0, len(flat) - size + 1, size)]
        assert all(set(turn) == members for turn in turns)
        assert len(turns) < 2 or turns[0] != turns[1]


def test_epochs_may_come_in_any_order(train):
    forward, backward = (RealStream(train, CLASSES, 3, 0, NORMALIZE) for _ in range(2))
    expected = [seen(forward, epoch) for epoch in range(6)]
    assert [seen(backward, epoch) for epoch in reversed(range(6))][::-1] == expected


def test_it_counts_what_is_distinct(train):
    stream = RealStream(train, CLASSES, 4, 0, NORMALIZE)
    assert stream.count == 12
    assert stream.distinct(5) == 5
    assert stream.distinct(12) == 12
    assert stream.distinct(24) == 5 + 7 + 8
    assert stream.distinct(3600) == sum(SIZES)


def test_a_batch_is_chosen_within_its_epoch(train):
    stream = RealStream(train, CLASSES, 4, 0, NORMALIZE)
    images, labels = stream.batch(1, None)
    some = torch.tensor([5, 0, 11])
    assert torch.equal(stream.batch(1, some)[0], images[some])
    assert torch.equal(stream.batch(1, some)[1], labels[some])


def test_seeds_have_images_of_their_own(train):
    one, two = (RealStream(train, CLASSES, 4, seed, NORMALIZE) for seed in (0, 1))
    assert seen(one, 0) != seen(two, 0)
    job = Job(sources.read("real:stream"), 4, "stream", "mlp", 1)
    assert images_key(job) == job
