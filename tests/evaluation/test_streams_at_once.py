"""Streams of several seeds, generated at once and by a replayed pass, are those of each seed alone."""

import pytest
import torch
from tape import as_on_a_card
from torch import Tensor

from gdd import rng
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.evaluation import batches
from gdd.evaluation.batches import GeneratedStream, StackedBatches, StudentBatches
from gdd.evaluation.recipe import Recipe
from gdd.models.gan import make_generator
from gdd.sampling.generator_file import LoadedGenerator
from gdd.training.generator_choice import with_own_statistics

SPEC = DatasetSpec("toy", 1, 16, 16, ("a", "b", "c"), (0.4,), (0.3,), flip=True)
IPC, SEEDS, STEPS = 7, (0, 4, 9), 12


@pytest.fixture(scope="module")
def loaded() -> LoadedGenerator:
    with rng.seeded(0, "test"):
        generator = make_generator("dim", SPEC.shape, SPEC.num_classes, 8, 6)
    return LoadedGenerator(with_own_statistics(generator, 0), SPEC, "hash", 0, {})  # or all images were alike


def students(loaded: LoadedGenerator) -> list[StudentBatches]:
    recipe = Recipe("test", lr=0.1, steps=STEPS, batch_size=IPC * SPEC.num_classes)
    streams = [GeneratedStream(loaded, IPC, seed, Normalizer(SPEC.mean, SPEC.std)) for seed in SEEDS]
    return [StudentBatches(stream, recipe, seed, "student") for stream, seed in zip(streams, SEEDS, strict=True)]


@pytest.fixture(scope="module")
def alone(loaded: LoadedGenerator) -> list[tuple[Tensor, Tensor]]:
    """What the students see in each step, one after another: images (S, N, C, H, W) and labels (S, N)."""
    own = students(loaded)
    seen = [[batches(step) for batches in own] for step in range(STEPS)]
    assert len({images.sum().item() for step in seen for images, _ in step}) == STEPS * len(SEEDS)
    return [tuple(map(torch.stack, zip(*step, strict=True))) for step in seen]  # type: ignore[misc]


@pytest.mark.parametrize("images", [batches.PASS, 18], ids=["one pass", "passes of two indices and a rest"])
@pytest.mark.parametrize("captured", [False, True])
def test_at_once_is_alone(
    loaded: LoadedGenerator,
    alone: list[tuple[Tensor, Tensor]],
    captured: bool,
    images: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "PASS", images)
    with as_on_a_card(captured=captured) as tape:
        own = students(loaded)
        stacked = StackedBatches(own)
        seen = [stacked(step) for step in range(STEPS)]
    assert (tape.replays > 0) is captured
    for (pixels, labels), (wanted, wanted_labels) in zip(seen, alone, strict=True):
        grey_level = 1 / 255 / SPEC.std[0]
        torch.testing.assert_close(pixels, wanted, rtol=0, atol=1.01 * grey_level)
        assert ((pixels - wanted).abs() > 0.5 * grey_level).float().mean() < 0.01
        assert torch.equal(labels, wanted_labels)
    seconds = [student.data.seconds_generating for student in own]
    assert min(seconds) == max(seconds) > 0
