"""A small dataset of real scans, an untrained generator, and a short evaluation."""

from pathlib import Path

import pytest
from scoring import SHORT, Evaluate

from gdd import rng
from gdd.config import EvaluateConfig, RunConfig
from gdd.data.readers import Dataset, open_dataset
from gdd.evaluation import grid, sources
from gdd.evaluation.recipe import Conditions, Recipe
from gdd.evaluation.row import Row
from gdd.models.gan import Generator
from gdd.runtime.device import make_accelerator
from gdd.runtime.run import Run
from gdd.sampling import generator_file


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return open_dataset("digits", Path("data"))


@pytest.fixture
def generator(dataset: Dataset, tmp_path: Path) -> Path:
    """The folder of an untrained generator whose samples differ."""
    with rng.seeded(0, "test"):
        network = Generator(dataset.spec.shape, dataset.spec.num_classes, width=4, noise_dim=8)
        for parameter in network.parameters():
            parameter.data.mul_(3)
    folder = tmp_path / "generator"
    folder.mkdir()
    generator_file.save(folder, network, dataset.spec, 4, {"method": "gan", "stage": "pretrain", "seconds": 2.5})
    return folder


@pytest.fixture
def evaluate(dataset: Dataset, tmp_path: Path) -> Evaluate:
    """Evaluate in a run folder of its own: small students, one seed and IPC 1 unless told."""

    def call(
        *texts: str,
        recipe: Recipe = SHORT,
        folder: str = "run",
        data: Dataset = dataset,
        run: RunConfig | None = None,
        **settings: object,
    ) -> list[Row]:
        defaults = {"archs": ("mlp-w16",), "ipc": (1,), "seeds": (0,), "all_epochs": 1}
        chosen = EvaluateConfig(**{**defaults, **settings})  # type: ignore[arg-type]
        completed, floor_ipcs = sources.complete([sources.read(text) for text in texts], chosen.ipc, data)
        jobs = grid.enumerate_jobs(completed, chosen.ipc, floor_ipcs, chosen.protocols, chosen.archs, chosen.seeds)
        opened = Run(tmp_path / folder, run or RunConfig(), {}, "test", make_accelerator(RunConfig()))
        return grid.evaluate(jobs, Conditions.of(chosen, data.spec, recipe), data, opened, config_hash="")

    return call
