"""A run that was stopped or killed ends with the same bits as one that was not."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from commands import ALONE, MATCHING, TINY, command_of

from gdd.cli import main
from gdd.runtime import checkpoint
from gdd.sampling import generator_file, set_file

LONG = ["--pretrain.steps", "60", "--refine.steps", "30", "--matching.iterations", "25", "--run.save_every", "5"]
LONG += ["--run.snapshots", "[3]", *ALONE]


def flags(method: str, root: Path) -> list[str]:
    return [*TINY, *(MATCHING if method == "matching" else []), *LONG, "--run.root", str(root)]


def states(folder: Path) -> list[object]:
    """Return what the newest checkpoint and the finished files of a stage hold, without clocks."""
    newest = checkpoint.path_at(folder, checkpoint.steps(folder)[-1])
    saved = torch.load(newest, weights_only=True)["states"]
    saved.pop("clock")
    if (folder / generator_file.FILE).exists():
        return [saved, generator_file.load(folder).hash]
    sets = [set_file.load(folder / name) for name in (set_file.FILE, "set-00000003.safetensors")]
    return [saved, *(part for each in sets for part in (each.images, each.hash))]


def equal(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a method's run of which nothing was killed."""
    root = tmp_path_factory.mktemp("undisturbed")

    @cache
    def run(method: str) -> Path:
        assert main(["distill", *flags(method, root)]) == 0
        return root / "digits"

    return run


@pytest.mark.parametrize(
    "stage", [*(pytest.param(s, marks=pytest.mark.slow) for s in ("pretrain", "refine")), "matching"]
)
def test_kill_9_then_the_same_command_gives_the_same_bits(stage, undisturbed, done, tmp_path):
    whole = undisturbed("matching" if stage == "matching" else "generator")
    folder = tmp_path / "digits" / stage
    command = ["distill", *flags(stage, tmp_path)]
    process = subprocess.Popen(command_of("-m", "gdd", *command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300  # a busy machine takes minutes to import torch
    while not checkpoint.steps(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < checkpoint.steps(folder)[-1] < checkpoint.steps(whole / stage)[-1]
    assert not {generator_file.FILE, set_file.FILE} & {path.name for path in folder.iterdir()}
    done(*command)
    stages = ["matching"] if stage == "matching" else ["pretrain", "refine"]
    for name in stages:
        assert equal(states(tmp_path / "digits" / name), states(whole / name))


def test_another_seed_gives_another_generator(distilled, done, tiny, tmp_path):
    done("distill", *tiny, *ALONE, "--run.root", tmp_path / "other", "--seed", "1")
    one, other = (generator_file.load(run / "refine") for run in (distilled[0], tmp_path / "other/digits"))
    assert one.hash != other.hash


def test_another_seed_gives_another_set(matched, done, tiny, tmp_path):
    done("distill", *tiny, *MATCHING, *ALONE, "--run.root", tmp_path / "other", "--seed", "1")
    one, other = (set_file.load(run / "matching" / set_file.FILE) for run in (matched[0], tmp_path / "other/digits"))
    assert one.hash != other.hash


@pytest.mark.parametrize(
    ("command", "stage", "last"), [(["train-gan"], "pretrain", 6), (["distill", *MATCHING, *ALONE], "matching", 3)]
)
def test_max_minutes_stops_with_a_checkpoint_and_goes_on(command, stage, last, done, tiny, tmp_path):
    command = [command[0], *tiny, *command[1:], "--run.snapshots", "[3]"]
    folder = tmp_path / "runs/digits" / stage
    assert "goes on" in done(*command, "--run.max_minutes", "0.00001")
    assert checkpoint.steps(folder) == [1]
    done(*command)
    assert checkpoint.steps(folder)[-1] == last
    done(*command, "--run.root", tmp_path / "whole")
    assert equal(states(folder), states(tmp_path / "whole/digits" / stage))


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_good_checkpoint(refused, tiny, tmp_path):
    refused("train-gan", *tiny, "--pretrain.lr", "1e30", "--pretrain.steps", "50", naming="at step")
    folder = tmp_path / "runs/digits/pretrain"
    for step in checkpoint.steps(folder):
        saved = torch.load(checkpoint.path_at(folder, step), weights_only=True)["states"]["generator"]
        assert all(bool(value.isfinite().all()) for value in saved.values())
