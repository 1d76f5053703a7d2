"""Ctrl-C, SIGTERM and SIGUSR1 end a command in order: a checkpoint at the next step, exit code 0, nothing twice."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, TINY, command_of

from gdd.cli import main
from gdd.runtime import checkpoint, signals
from gdd.sampling import generator_file

STEPS = 150
PATIENCE = 120  # seconds


def interrupt(command: list[str], number: int, begun: Callable[[], bool]) -> tuple[int, str]:
    """Start a command, send it a signal once it has begun, and return its exit code and all that it said."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not begun() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def flags(root: Path) -> list[str]:
    return [*TINY, "--run.root", str(root), "--pretrain.steps", str(STEPS), "--run.save_every", "10000"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("undisturbed")
    assert main(["train-gan", *flags(root)]) == 0
    return generator_file.load(root / "digits/pretrain").hash


@pytest.mark.parametrize(
    ("launched", "number"),
    [
        (False, signal.SIGINT),
        pytest.param(False, signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(True, signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C", "SLURM", "accelerate launch"],
)
def test_a_signal_ends_training_with_a_checkpoint_and_it_goes_on(launched, number, undisturbed, tmp_path, gdd):
    folder = tmp_path / "digits/pretrain"
    start = ("-m", "accelerate.commands.launch", "-q") if launched else ()
    command = command_of(*start, ROOT / "train_gan.py", *flags(tmp_path))
    code, said = interrupt(command, number, (folder / "metrics.jsonl").exists)
    # The launcher of one process dies of the signal itself; its process hears of that.
    assert code == (-number if launched else 0), said
    wait_for(lambda: checkpoint.steps(folder))
    (step,) = checkpoint.steps(folder)
    assert 0 < step < STEPS
    assert f"stopped after step {step} of {STEPS}; the same command goes on" in " ".join(said.split())
    assert "Traceback" not in said
    while (folder / ".lock").exists() and "is in use" in (answer := gdd("train-gan", *flags(tmp_path)))[2]:
        time.sleep(0.1)  # the process of a launcher that died may still be leaving
    assert answer[0] == 0
    assert generator_file.load(folder).hash == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_reaches_the_processes_of_a_launcher(processes, tmp_path):
    """A terminal sends it to all of them, and the launcher to its own once more: it is one press of the keys."""
    folder = tmp_path / "digits/pretrain"
    words = [ROOT / "train_gan.py", *flags(tmp_path), "--pretrain.steps", "100000"]
    launcher = ["-m", "accelerate.commands.launch", "-q"] if processes == 1 else []
    command = command_of(*launcher, *words, processes=processes)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment) as begun:
        wait_for((folder / "metrics.jsonl").exists)
        os.killpg(begun.pid, signal.SIGINT)
        said = begun.communicate(timeout=PATIENCE)[1]
    wait_for(lambda: checkpoint.steps(folder))
    assert "train_gan.py" not in said  # the launcher has a traceback of its own
    assert "cli/main.py" not in said


@pytest.mark.slow
def test_a_signal_ends_an_evaluation_within_a_student(tmp_path):
    """A student may take an hour; its row is written when it is done, and the rows of others stay."""
    rows = tmp_path / "digits/evaluate/rows.jsonl"
    command = command_of(ROOT / "evaluate.py", *TINY, "--run.root", tmp_path)
    command += ["--evaluate.sources", "[real:random, real:all]", "--evaluate.all_epochs", "100000"]
    code, said = interrupt(command, signal.SIGTERM, lambda: rows.exists() and rows.stat().st_size > 0)
    assert code == 0, said
    assert "stopped by SIGTERM; the same command goes on" in said
    assert "Traceback" not in said
    assert 1 <= len(rows.read_text().splitlines()) <= 2  # those of the floor; the ceiling would have taken hours


class TestHandlers:
    def test_outside_a_step_a_signal_stops_at_once(self):
        with signals.on_signals(), pytest.raises(signals.Stopped, match="stopped by SIGUSR1"):
            signal.raise_signal(signal.SIGUSR1)

    def test_within_a_step_it_waits_to_be_asked(self):
        with signals.on_signals(), signals.at_the_end_of_a_step():
            assert not signals.is_due(None)
            signal.raise_signal(signal.SIGTERM)
            assert signals.is_due(None)
        with signals.on_signals():
            assert not signals.is_due(None)  # the next command starts anew

    def test_a_second_ctrl_c_ends_a_step_at_once(self, monkeypatch):
        moments = iter([10.0, 10.9, 11.1])
        monkeypatch.setattr(signals.time, "monotonic", lambda: next(moments))
        with signals.on_signals(), signals.at_the_end_of_a_step():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # a launcher has passed the first on
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_what_comes_while_the_command_ends_changes_nothing(self):
        with signals.on_signals():
            with pytest.raises(signals.Stopped, match="stopped by SIGINT"):
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)

    def test_what_a_shell_has_put_into_the_background_hears_no_ctrl_c(self):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with signals.on_signals():
                signal.raise_signal(signal.SIGINT)
                assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)

    def test_ctrl_c_ends_what_keeps_no_state_without_a_traceback(self, gdd, monkeypatch):
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("gdd.cli.doctor._installed", interrupted)
        assert gdd("doctor") == (130, "", "gdd: stopped at once\n")

    def test_the_former_handlers_come_back(self):
        before = [signal.getsignal(number) for number in signals.SIGNALS]
        with signals.on_signals():
            assert [signal.getsignal(number) for number in signals.SIGNALS] != before
        assert [signal.getsignal(number) for number in signals.SIGNALS] == before

    def test_minutes_are_counted_from_the_start_of_the_process(self):
        assert signals.is_due(1e-9)
        assert not signals.is_due(1e9)
