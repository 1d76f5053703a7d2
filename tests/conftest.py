"""Shared by the tests: one command line in this process, and a configuration that runs in seconds."""

import os
from pathlib import Path

import pytest
import torch
from commands import TINY

from gdd.cli import main

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
