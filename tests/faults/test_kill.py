"""The short form of kill.py: a few kills of a training stage and of the jobs that read what it made."""

import random
from pathlib import Path

import pytest
from jobs import JOBS
from kill import Attack, Tally

pytestmark = pytest.mark.slow


def _attacked(name: str, moments: list[str], seed: int, root: Path, stage_1: Path) -> tuple[Tally, Path]:
    attack = Attack(JOBS[name], 1, len(moments), random.Random(seed), root / name, stage_1)
    return attack.run(moments), attack.reference


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> tuple[Tally, Path]:
    root = tmp_path_factory.mktemp("killed")
    return _attacked("pretrain", ["write", "work", "end"], 0, root, root)


def test_a_training_stage_that_is_killed_three_times_loses_nothing(pretrained):
    tally, _ = pretrained
    assert tally.faults == []
    assert tally.kills == 3
    assert tally.torn > 0  # a temporary file proves that a kill cut a write


@pytest.mark.parametrize(("name", "moments"), [("evaluate", ["line"]), ("sample", ["end"])])
def test_a_job_on_its_generator_that_is_killed_loses_nothing(name, moments, pretrained, tmp_path):
    tally, _ = _attacked(name, moments, 1, tmp_path, pretrained[1])
    assert tally.faults == []
    assert tally.kills == len(moments)
