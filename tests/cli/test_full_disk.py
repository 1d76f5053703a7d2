"""On a full disk a command ends in a sentence and leaves nothing half: the same command works once there is room."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from gdd.config import RunConfig
from gdd.data.spec import DatasetSpec
from gdd.runtime import run as runs
from gdd.runtime.device import make_accelerator
from gdd.sampling import set_file


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse every byte of a file beyond `size`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def stored(tmp_path) -> Path:
    spec = DatasetSpec("pets", 1, 16, 16, ("cat", "dog"), (0.5,), (0.5,), False)
    images = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    set_file.save(tmp_path / "s.safetensors", set_file.SyntheticSet(images, torch.arange(4) % 2, spec, 2))
    return tmp_path / "s.safetensors"


@pytest.mark.parametrize(
    ("layout", "room"),
    [("folder", 40), ("folder", 400), ("hf", 400)],
    ids=["at the first image", "at the card", "at the images"],
)
def test_a_half_export_is_removed(layout, room, stored, refused, done, tmp_path):
    command = ["export", stored, "--to", layout, "--out", tmp_path / "out"]
    with files_of_at_most(room):
        refused(*command, naming="cannot be written")
    assert not (tmp_path / "out").exists()
    done(*command)
    assert (tmp_path / "out/README.md").exists()


def test_what_a_killed_export_left_does_not_stop_the_next(stored, done, tmp_path):
    left = tmp_path / "out/.unfinished.tmp/out/train"
    left.mkdir(parents=True)
    (left / "old.png").write_text("half")
    done("export", stored, "--to", "folder", "--out", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "train"]


def test_a_half_picture_is_not_left(stored, refused, done, tmp_path):
    out = tmp_path / "s.png"
    with files_of_at_most(20):
        refused("preview", stored, "--out", out, naming=f"{out} cannot be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.safetensors"]


def test_a_half_config_does_not_stop_the_next_init(refused, done, tmp_path):
    np.savez(tmp_path / "pets.npz", x_train=np.full((20, 28, 28), 200, np.uint8), y_train=np.arange(20) % 2)
    out = tmp_path / "a.yaml"
    with files_of_at_most(100):
        refused("init", tmp_path / "pets.npz", "--out", out, naming=f"{out} cannot be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets.npz"]
    done("init", tmp_path / "pets.npz", "--out", out)
    assert out.stat().st_size > 100


def test_tensorboard_s_thread_leaves_the_telling_to_the_loop(tmp_path, monkeypatch):
    heard = []

    def hear(failure: threading.ExceptHookArgs) -> None:
        heard.append(failure)

    monkeypatch.setattr(threading, "excepthook", hear)
    settings = RunConfig(log_every=1, save_every=10**6)
    run = runs.Run(tmp_path / "run", settings, {}, "", make_accelerator(settings))

    def write_on() -> None:
        with run, runs.MetricLogger(run, 0, 10**4, 1, "train") as bar:
            for index in range(10**4):
                step = runs.Step(index, 10**4, settings)
                step.images = torch.rand(3, 32, 32)
                with files_of_at_most(3000):
                    bar.count(step)

    with pytest.raises(OSError, match="File too large") as error:
        write_on()
    assert error.value.filename == str(run.folder)
    assert heard == []
    assert threading.excepthook is hear
