"""Shared by the tests: one command line in this process, and runs that are read by many tests."""

import io
import os
import shutil
import signal
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from commands import MATCHING, TINY
from generators import save_generator

from gdd.cli import command, main
from gdd.data.readers import Dataset, open_dataset
from gdd.runtime import execution
from gdd.runtime.array import Array

# The tests' processes share the cores, and so do those that they start.
os.environ["OMP_NUM_THREADS"] = "1"
# Nor may any compile torch's source again: with the bytecode kept, importing it takes a third of the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure() -> None:
    """Give each of pytest's workers a core of its own: threads of two that share all cores wait for one another.

    What a test starts inherits it, and gdd, which counts the cores that it may use, starts as many threads.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Undo what an Accelerator of the test before has set: sums depend on it in their last bits."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _float32():
    """Let run.precision auto be the same on all machines; what tests bfloat16 asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "has_bfloat16", lambda device: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and so would the commands that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def gdd(capsys: pytest.CaptureFixture[str]):
    """Return a function that runs one command and gives its exit code, output and error text."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def done(gdd):
    """Return a function that runs a command which has to succeed, and gives its output."""

    def call(*arguments: object) -> str:
        code, out, error = gdd(*arguments)
        assert code == 0, error
        return out

    return call


@pytest.fixture
def refused(gdd):
    """Return a function that runs a command which has to end with exit code 2 and one sentence, and gives that."""

    def call(*arguments: object, naming: object = "") -> str:
        code, _, error = gdd(*arguments)
        (line,) = [line for line in error.splitlines() if line.startswith("gdd: ")]
        assert code == 2
        assert str(naming) in line
        assert "Traceback" not in error
        return line

    return call


@pytest.fixture
def submitted(done, monkeypatch):
    """Return a function that runs a command with --submit, whose tasks this process does, and gives the shares."""

    def call(*arguments: object, tasks: int = 2) -> list[str]:
        shares: list[str] = []

        def run_shares(self: Array, most: int, folder: Path, max_minutes: float | None) -> None:
            count = min(self.tasks, most)
            for share in range(count):
                shares.append(f"{share}/{count}")
                assert main([*map(str, arguments), "--share", shares[-1]]) == 0

        monkeypatch.setattr(Array, "run_shares", run_shares)
        monkeypatch.setattr(command, "require_submitit", lambda: None)
        done(*arguments, "--submit", "local", "--tasks", tasks)
        return shares

    return call


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Return flags that make every stage run on digits within seconds, below tmp_path."""
    return [*TINY, "--run.root", str(tmp_path / "runs")]


def _run_once(root: Path, *arguments: str) -> tuple[Path, str]:
    """Run a command below a root folder; return that and the output."""
    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()) as output:
        assert main([*arguments, *TINY, "--run.root", str(root)]) == 0
    return root, output.getvalue()


@pytest.fixture(scope="session")
def distilled_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return _run_once(tmp_path_factory.mktemp("distilled"), "distill")


@pytest.fixture(scope="session")
def matched_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return _run_once(tmp_path_factory.mktemp("matched"), "distill", *MATCHING)


@pytest.fixture(scope="session")
def pretrained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run_once(tmp_path_factory.mktemp("pretrained"), "train-gan")[0]


@pytest.fixture
def distilled(distilled_once: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of a finished run's folder below tmp_path, and what the command printed."""
    return shutil.copytree(distilled_once[0], tmp_path / "runs") / "digits", distilled_once[1]


@pytest.fixture
def matched(matched_once: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """The same of gradient matching."""
    return shutil.copytree(matched_once[0], tmp_path / "runs") / "digits", matched_once[1]


@pytest.fixture
def pretrained(pretrained_once: Path, tmp_path: Path) -> Path:
    """A copy of the run folder of a finished stage 1, below tmp_path."""
    return shutil.copytree(pretrained_once, tmp_path / "runs") / "digits/pretrain"


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return open_dataset("digits", Path("data"))


@pytest.fixture
def generator(dataset: Dataset, tmp_path: Path) -> Path:
    """The folder of an untrained generator whose samples differ."""
    provenance = {"stage": "pretrain", "seconds": 2.5, "data": dataset.fingerprint}
    return save_generator(tmp_path / "generator", dataset.spec, gain=3.0, **provenance).parent
