"""Random images and a Matcher for the tests of matching."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matching import CLASSES, PER_CLASS, SPEC, settings, toy

from gdd.config import Config, to_plain
from gdd.data.readers import Dataset
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run
from gdd.training import matching
from gdd.training.matching import Matcher


@pytest.fixture(scope="module")
def noisy() -> Dataset:
    """Random pixels, so that every image can be told from every other."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CLASSES * PER_CLASS, *SPEC.shape), generator=draw, dtype=torch.uint8)
    return toy(images, torch.arange(len(images)) % CLASSES)


@pytest.fixture
def open_run(tmp_path: Path) -> Callable[..., Run]:
    def call(config: Config, dataset: Dataset, folder: str = "run") -> Run:
        return Run(
            tmp_path / folder,
            config.run,
            to_plain(config),
            matching.fingerprint(config, dataset),
            make_accelerator(config.run),
        )

    return call


@pytest.fixture
def make(open_run, noisy):
    """Return a function that builds a Matcher."""

    def call(dataset: Dataset = noisy, folder: str = "run", **own) -> Matcher:
        config = settings(**own)
        return Matcher(config, dataset, open_run(config, dataset, folder))

    return call
