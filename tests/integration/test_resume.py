"""A run that was stopped or killed ends with the same bits as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import TINY

from gdd.runtime import checkpoint
from gdd.sampling import generator_file

ROOT = Path(__file__).parents[2]
LONG = ["--pretrain.steps", "120", "--refine.steps", "40", "--run.save_every", "7", "--score", "false"]


def _command(root: Path) -> list[str]:
    return [sys.executable, str(ROOT / "distill.py"), *TINY, *LONG, "--run.root", str(root)]


def _states(root: Path) -> list[dict[str, torch.Tensor]]:
    states = []
    for stage in ("pretrain", "refine"):
        folder = root / "digits" / stage
        newest = checkpoint.path_of(folder, checkpoint.steps(folder)[-1])
        saved = torch.load(newest, weights_only=True)["states"]
        saved.pop("clock")
        states.append(saved)
    return states


def _equal(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(_command(root), check=True, capture_output=True)
    return root


@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_kill_9_then_the_same_command_gives_the_same_bits(stage, undisturbed, tmp_path):
    process = subprocess.Popen(_command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint.steps(tmp_path / "digits" / stage) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "digits" / stage / generator_file.FILE).exists()
    assert checkpoint.steps(tmp_path / "digits" / stage)
    subprocess.run(_command(tmp_path), check=True, capture_output=True)
    assert _equal(_states(tmp_path), _states(undisturbed))
    hashes = [generator_file.load(root / "digits/refine").hash for root in (tmp_path, undisturbed)]
    assert hashes[0] == hashes[1]


def test_another_seed_gives_other_weights(undisturbed, tmp_path):
    subprocess.run([*_command(tmp_path), "--seed", "1"], check=True, capture_output=True)
    hashes = [generator_file.load(root / "digits/refine").hash for root in (tmp_path, undisturbed)]
    assert hashes[0] != hashes[1]


def test_max_minutes_stops_with_a_checkpoint_and_goes_on(gdd, tiny, tmp_path):
    code, out, _ = gdd("train-gan", *tiny, "--run.max_minutes", "0.00001")
    folder = tmp_path / "runs/digits/pretrain"
    assert code == 0
    assert "goes on" in out
    assert checkpoint.steps(folder) == [1]
    assert gdd("train-gan", *tiny)[0] == 0
    whole = generator_file.load(folder).hash
    assert gdd("train-gan", *tiny, "--run.root", tmp_path / "whole")[0] == 0
    assert generator_file.load(tmp_path / "whole/digits/pretrain").hash == whole


def test_a_truncated_checkpoint_is_refused_by_name(gdd, tiny, tmp_path):
    gdd("train-gan", *tiny, "--run.max_minutes", "0.00001")
    path = checkpoint.path_of(tmp_path / "runs/digits/pretrain", 1)
    path.write_bytes(path.read_bytes()[:1000])
    code, _, error = gdd("train-gan", *tiny)
    assert code == 2
    assert path.name in error.replace("\n", "")


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_good_checkpoint(gdd, tiny, tmp_path):
    code, _, error = gdd("train-gan", *tiny, "--pretrain.lr", "1e30", "--pretrain.steps", "50")
    assert code == 2
    assert "at step" in error
    folder = tmp_path / "runs/digits/pretrain"
    for step in checkpoint.steps(folder):
        saved = torch.load(checkpoint.path_of(folder, step), weights_only=True)["states"]["generator"]
        assert all(bool(value.isfinite().all()) for value in saved.values())
