"""Exactly IPC images per class, every epoch all of them, and a stream of the same shape."""

from pathlib import Path

import pytest
import torch
from scoring import SHORT

from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.data.splits import random_real
from gdd.evaluation.batches import Fixed, GeneratedStream, StudentBatches, to_std
from gdd.evaluation.recipe import Recipe
from gdd.sampling import generator_file, sample

NORMALIZE = Normalizer((0.0,), (1.0,))


def numbered(count: int) -> Fixed:
    """Images that hold their own number."""
    images = torch.arange(count).float().view(-1, 1, 1, 1)
    return Fixed(images, torch.arange(count), NORMALIZE)


@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_set_holds_ipc_images_of_each_class(dataset: Dataset, generator: Path, ipc: int) -> None:
    made = sample.sample_set(generator_file.load(generator), ipc, seed=3)
    real = random_real(dataset.train, 10, ipc, seed=3)
    for labels in (made.labels, real.labels):
        assert len(labels) == 10 * ipc
        assert labels.bincount().tolist() == [ipc] * 10


@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_stream_takes_the_steps_sizes_and_labels_of_fixed(generator: Path, ipc: int) -> None:
    made = generator_file.load(generator)
    stored = sample.sample_set(made, ipc, seed=3)
    fixed = StudentBatches(Fixed(stored.images, stored.labels, NORMALIZE), SHORT, 3, "student")
    stream = StudentBatches(GeneratedStream(made, ipc, 3, NORMALIZE), SHORT, 3, "student")
    per_epoch = -(-10 * ipc // 256)
    assert fixed.total == stream.total == 3 * per_epoch
    for step in range(fixed.total):
        assert torch.equal(fixed(step)[1], stream(step)[1])
        assert fixed(step)[0].shape == stream(step)[0].shape
    labels = torch.cat([stream(step)[1] for step in range(per_epoch)])
    assert labels.bincount().tolist() == [ipc] * 10


def test_stream_begins_with_the_fixed_set_and_never_repeats(generator: Path) -> None:
    made = generator_file.load(generator)
    stored = sample.sample_set(made, 10, seed=3)
    stream = GeneratedStream(made, 10, 3, NORMALIZE)
    first, _ = stream.batch(0, None)
    second, _ = stream.batch(1, None)
    # Another batch size may round a pixel to the next of 256 levels.
    assert torch.allclose(first, to_std(stored.images, NORMALIZE), atol=1.01 / 255)
    together = torch.cat([first, second]).flatten(1)
    assert len(together.unique(dim=0)) == 200


def test_large_stream_in_several_passes_keeps_the_order(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator_file.load(generator)
    whole = GeneratedStream(made, 10, 3, NORMALIZE).batch(1, None)
    monkeypatch.setattr("gdd.evaluation.batches.PASS", 30)
    parts = GeneratedStream(made, 10, 3, NORMALIZE).batch(1, None)
    assert torch.equal(whole[1], parts[1])
    assert torch.allclose(whole[0], parts[0], atol=1.01 / 255)


@pytest.mark.parametrize("count", [5, 8, 9, 24])
def test_every_epoch_sees_every_image_once(count: int) -> None:
    batches = StudentBatches(numbered(count), Recipe("test", 0.1, epochs=2, batch_size=8), 0, "student")
    assert batches.total == 2 * -(-count // 8)
    for epoch in range(2):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        seen = torch.cat([batches(step)[1] for step in steps])
        assert sorted(seen.tolist()) == list(range(count))


def test_order_depends_on_seed_and_step_alone() -> None:
    recipe = Recipe("test", 0.1, epochs=4, batch_size=8)
    one, other = StudentBatches(numbered(20), recipe, 0, "student"), StudentBatches(numbered(20), recipe, 0, "student")
    forward = [one(step)[1].tolist() for step in range(one.total)]
    backward = [other(step)[1].tolist() for step in reversed(range(other.total))]
    assert forward == backward[::-1]
    assert forward != [StudentBatches(numbered(20), recipe, 1, "student")(step)[1].tolist() for step in range(12)]


def test_random_real_images_of_a_small_ipc_begin_those_of_a_large_one(dataset: Dataset) -> None:
    small, large = (random_real(dataset.train, 10, ipc, seed=1) for ipc in (2, 5))
    start = large.images_u8.unflatten(0, (10, 5))[:, :2].flatten(0, 1)
    assert torch.equal(small.images_u8, start)


def test_random_real_images_are_others_for_another_seed(dataset: Dataset) -> None:
    first, second = (random_real(dataset.train, 10, 2, seed) for seed in (0, 1))
    # Of 20 places, each with one of 129 images, more than three have the same in 1 of 60,000 pairs of draws.
    assert (first.images_u8 == second.images_u8).flatten(1).all(1).sum() <= 3


def test_float_set_is_normalised_like_the_same_uint8_set() -> None:
    images = torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8)
    normalize = Normalizer((0.3,), (0.2,))
    assert torch.allclose(to_std(images, normalize), to_std(images.float() / 255, normalize))
