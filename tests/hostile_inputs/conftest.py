"""A tiny stage 1 to attack, made once."""

import shutil
from pathlib import Path

import pytest
from commands import TINY

from gdd.cli import main

STAGE_1 = ["--pretrain.steps", "1", "--run.keep", "1"]


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    assert main(["train-gan", *TINY, *STAGE_1, "--run.root", str(root)]) == 0
    return root


@pytest.fixture
def runs(_trained: Path, tmp_path: Path) -> Path:
    """Return a run.root whose digits/pretrain has finished stage 1, with one checkpoint."""
    return shutil.copytree(_trained, tmp_path / "runs")


@pytest.fixture
def flags(runs: Path) -> list[str]:
    """Return the flags that stage 1 was run with."""
    return [*TINY, *STAGE_1, "--run.root", str(runs)]
