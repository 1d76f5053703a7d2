"""How gdd init deals the minutes: the GAN learns in two thirds of them at least, and what would be enough is enough."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gdd import pipeline
from gdd.cli import suggest, summary
from gdd.data.readers import Dataset, Split
from gdd.data.spec import DatasetSpec

CLASSES, EACH = 200, 24


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Many classes of colour images, as Tiny-ImageNet has, but with fewer images of each."""
    names = tuple(f"{label:03d}" for label in range(CLASSES))
    spec = DatasetSpec("many", 3, 32, 32, names, (0.5,) * 3, (0.25,) * 3, True)

    def part(each: int) -> Split:
        labels = torch.arange(CLASSES).repeat(each)
        return Split(torch.zeros(len(labels), *spec.shape, dtype=torch.uint8), labels)

    return Dataset(spec, part(EACH), part(3), lambda: part(1))


def estimate_on(dataset: Dataset, speed: float) -> suggest.MinutesOf:
    """Return the minutes of stages on a CPU of this many FLOP a second."""
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=1)

    def estimate(config, stages):
        jobs = pipeline.plan(config, dataset, []) if "evaluate" in stages else []
        at = summary.Speed(speed, speed)
        return summary.estimated_minutes(config, dataset, accelerator, stages, jobs, at)

    return estimate


@pytest.mark.parametrize("speed", [2e10, 2e11])
@pytest.mark.parametrize("minutes", [30, 60, 600])
def test_scoring_takes_a_third_of_the_minutes_at_most(minutes, speed, dataset):
    estimate = estimate_on(dataset, speed)
    config = suggest.config_of(suggest.suggest([], dataset, False, minutes, estimate))
    learning, scoring = (estimate(config, stages) for stages in (["pretrain", "refine"], ["evaluate"]))
    assert learning + scoring <= minutes or config.pretrain.steps == 300
    assert scoring <= minutes / 3
    assert (
        scoring <= (learning + scoring) / 3
        or config.pretrain.steps >= suggest.ENOUGH * len(dataset.train.labels) / config.pretrain.batch_size
    )


def test_the_minutes_that_are_called_enough_let_the_gan_see_every_image_often_enough(dataset):
    estimate = estimate_on(dataset, 2e10)
    enough = suggest.minutes_enough([], dataset, False, estimate)
    for minutes, holds in ((enough, True), (enough / 2, False)):
        config = suggest.config_of(suggest.suggest([], dataset, False, minutes, estimate))
        seen = config.pretrain.steps * config.pretrain.batch_size / len(dataset.train.labels)
        assert (seen >= suggest.ENOUGH) == holds


@pytest.mark.parametrize(
    ("sizes", "on_gpu", "minutes", "side"),
    [
        ({(64, 64): 9}, False, 60, 32),
        ({(64, 64): 9}, False, 120, 64),  # as they are, if there is time
        ({(64, 64): 9}, True, 60, 64),
        ({(64, 48): 9, (64, 64): 1}, False, 600, 32),  # photographs of all sizes are reduced on a CPU
        ({(224, 224): 9}, False, 600, 32),
        ({(224, 224): 9}, True, 60, 64),
    ],
)
def test_64_pixels_are_for_gpus_and_for_long_runs_on_images_of_that_size(sizes, on_gpu, minutes, side):
    assert suggest.side_for(Counter(sizes), on_gpu, minutes) == side


def test_students_of_64_pixels_have_a_convnet_of_four_blocks(dataset):
    def archs(side: int) -> tuple[str, ...]:
        spec = replace(dataset.spec, height=side, width=side)
        settings = suggest.suggest([], replace(dataset, spec=spec), False, 60, lambda config, stages: 1.0)
        return suggest.config_of(settings).evaluate.archs

    assert archs(32) == ("convnet3-w24", "resnet18-bn-w8", "alexnet-bn-w8", "mlp")
    assert archs(64) == ("convnet-w24-d4", "resnet18-bn-w8", "alexnet-bn-w8", "mlp")
