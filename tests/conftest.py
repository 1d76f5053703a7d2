"""Shared by the tests: one command line in this process, and a configuration that runs in seconds."""

import os
from pathlib import Path

import pytest
import torch
from commands import TINY

from gdd import rng
from gdd.cli import main
from gdd.data.readers import Dataset, open_dataset
from gdd.models.gan import Generator
from gdd.sampling import generator_file

# Two cores shared by OpenMP and pytest's own work are slower with two threads than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Undo what an Accelerator of the test before has set: sums depend on it in their last bits."""
    torch.set_num_threads(1)


@pytest.fixture
def gdd(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs one command and gives its exit code, output and error text."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Return flags that make every stage run on digits within seconds, below tmp_path."""
    return [*TINY, "--run.root", str(tmp_path / "runs")]


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
