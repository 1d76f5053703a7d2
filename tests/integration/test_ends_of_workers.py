"""Signals and kills of an evaluation with two workers: none is left behind, and the same command goes on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import ROOT, TINY, command_of

pytestmark = pytest.mark.slow

PATIENCE = 120  # seconds


def command(root: Path, all_epochs: int, workers: int) -> list[str]:
    """Return an evaluation of the floor, soon done, and of the ceiling, which takes so many epochs."""
    flags = ("--evaluate.seeds", "[0]", "--evaluate.sources", "[real:random, real:all]")
    flags += ("--evaluate.all_epochs", str(all_epochs), "--run.root", str(root), "--run.workers", str(workers))
    return command_of(ROOT / "evaluate.py", *TINY, *flags)


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows_in(root: Path) -> int:
    file = root / "digits/evaluate/rows.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


@contextmanager
def training(root: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Give a command of which a worker has scored the floor while another trains for hours, and what it started."""
    begun = subprocess.Popen(
        command(root, 10**6, 2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: rows_in(root) == 1 or begun.poll() is not None)
        started = [int(pid) for pid in Path(f"/proc/{begun.pid}/task/{begun.pid}/children").read_text().split()]
        assert started
        yield begun, started
    finally:
        begun.kill()
        begun.communicate()


def workers_among(processes: list[int]) -> list[int]:
    """Leave out the process by which Python tracks shared resources."""
    return [pid for pid in processes if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def goes_on(root: Path, done: Callable[..., str]) -> None:
    assert rows_in(root) == 1
    kept = (root / "digits/evaluate/rows.jsonl").read_text()
    done("evaluate", *command(root, 1, 1)[2:])
    assert (root / "digits/evaluate/rows.jsonl").read_text().startswith(kept)
    assert rows_in(root) == 2
    assert not list((root / "digits/evaluate").glob(".*.tmp"))


def ends(begun: subprocess.Popen[str], started: list[int], code: int, sentence: str) -> None:
    """Assert that a command ends with a code and a sentence, and that nobody it started is left."""
    said, _ = begun.communicate(timeout=PATIENCE)
    assert begun.returncode == code, said
    assert sentence in said
    assert "Traceback" not in said
    wait_for(lambda: not any(map(is_alive, started)))


@pytest.mark.parametrize(
    ("send", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)], ids=["to the command", "Ctrl-C"]
)
def test_a_signal_ends_all(send, number, tmp_path, done):
    with training(tmp_path) as (begun, started):
        send(begun.pid, number)
        ends(begun, started, 0, f"stopped by {number.name}; the same command goes on")
    goes_on(tmp_path, done)


def test_a_killed_command_leaves_nobody_behind(tmp_path, done):
    with training(tmp_path) as (begun, started):
        begun.kill()
        wait_for(lambda: not any(map(is_alive, started)))
    goes_on(tmp_path, done)


def test_a_killed_worker_is_told_in_a_sentence(tmp_path, done):
    with training(tmp_path) as (begun, started):
        for worker in workers_among(started):  # which of them trains, is not told
            os.kill(worker, signal.SIGKILL)
        ends(begun, started, 2, "evaluate.py: one of run.workers was ended by SIGKILL; the same command goes on")
    goes_on(tmp_path, done)
