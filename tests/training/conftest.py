"""Random images, and the trainers of both methods at their smallest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from accelerate import Accelerator
from toy import CLASSES, PER_CLASS, SPEC, dataset_of

from gdd import rng
from gdd.config import RunConfig
from gdd.data.batches import ClassBatches
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.models.gan import DimDiscriminator, DimGenerator, Discriminator, Generator
from gdd.runtime.device import make_accelerator
from gdd.training.gan import GanTrainer
from gdd.training.matching import FreshPool, Matcher


@pytest.fixture(scope="session")
def accelerator() -> Accelerator:
    return make_accelerator(RunConfig(threads=1))


@pytest.fixture
def as_process(accelerator):
    """Return a context in which the accelerator says that this is one of several processes."""

    @contextmanager
    def pretend(rank: int, world_size: int) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(accelerator.state, "process_index", rank)
            patch.setattr(accelerator.state, "num_processes", world_size)
            yield

    return pretend


@pytest.fixture(scope="module")
def noisy() -> Dataset:
    """Random pixels, so that every image can be told from every other."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CLASSES * PER_CLASS, *SPEC.shape), generator=draw, dtype=torch.uint8)
    return dataset_of(images, torch.arange(len(images)) % CLASSES)


@pytest.fixture
def make_gan(accelerator) -> Callable[..., GanTrainer]:
    """Return a function that builds a GanTrainer; one seed has one start."""

    def build(networks: tuple[Generator, Discriminator] | None = None, **own) -> GanTrainer:
        values = {
            "loss": "ns", "lr": lambda step: 1e-3, "lr_discriminator": lambda step: 1e-3, "betas": (0.0, 0.99),
            "ema_decays": (0.99,), "aux_weight": 1.0, "gradient_penalty": 10.0,
            "r1": 0.2, "r1_every": 16, "augmentations": (), "seed": 0, "stage": "test", **own
        }  # fmt: skip
        with rng.seeded(values["seed"], "test-gan"):
            networks = networks or (DimGenerator(SPEC.shape, CLASSES, 4, 8), DimDiscriminator(SPEC.shape, CLASSES, 4))
        return GanTrainer(*networks, accelerator=accelerator, **values)

    return build


@pytest.fixture
def make_matcher(accelerator, noisy) -> Callable[..., Matcher]:
    """Return a function that builds a Matcher of noise and real images."""

    def build(dataset: Dataset = noisy, ipc: int = 2, main: str = "convnet3-w4", **own) -> Matcher:
        values = {
            "objective": "gradient", "distance": "dc", "outer": 2, "inner": 1, "inner_first": False, "batch_real": 8,
            "batch_train": 4, "lr_image": 0.1, "lr_network": 0.01, "augmentations": (), "seed": 0, **own
        }  # fmt: skip
        first_images = torch.randn(CLASSES, ipc, *SPEC.shape, generator=torch.Generator().manual_seed(0))
        real = ClassBatches(*dataset.train, CLASSES, Normalizer(SPEC.mean, SPEC.std), values["seed"])
        pool = FreshPool(
            SPEC.shape, CLASSES, kind="main", main=main, main_probability=1.0, main_probability_end=None, main_only=0,
            similar_depth=3, various=(), iterations=100, seed=values["seed"]
        )  # fmt: skip
        return Matcher(first_images, real, pool, accelerator=accelerator, **values)

    return build
