"""The short form of kill.py: a few kills of every job but refine and match, which tests/integration kills."""

import random
import runpy
import sys
import time
from pathlib import Path

import pytest
from jobs import JOBS
from kill import Attack, Tally

pytestmark = pytest.mark.slow


class Quick(Attack):
    """An attack whose undisturbed runs are made in this process, which has imported torch already."""

    def _undisturbed(self) -> tuple[float, float]:
        begun = time.monotonic()
        self._run_here(self.out / "reference")
        return 0.0, time.monotonic() - begun

    def _once(self, root: Path, moment: str | None) -> bool:
        if moment is not None:
            return super()._once(root, moment)
        self._run_here(root)
        return False

    def _run_here(self, root: Path) -> None:
        arguments = self.job.arguments(root, self.stage_1, self.kills)
        module = arguments[0] == "-m"
        name, *flags = arguments[module:]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *flags])
            with pytest.raises(SystemExit) as ended:
                (runpy.run_module if module else runpy.run_path)(name, run_name="__main__")
        assert not ended.value.code


def _attacked(name: str, moments: list[str], seed: int, root: Path, stage_1: Path) -> tuple[Tally, Path]:
    attack = Quick(JOBS[name], 1, len(moments), random.Random(seed), root / name, stage_1)
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


@pytest.mark.parametrize(("name", "moment"), [("evaluate", "line"), ("sample", "end")])
def test_a_job_on_its_generator_that_is_killed_loses_nothing(name, moment, pretrained, tmp_path):
    tally, _ = _attacked(name, [moment], 1, tmp_path, pretrained[1])
    assert tally.faults == []
    assert tally.kills == 1
