"""A task of an array job: what its command hears of signals, how it ends with it, and what is told of a failure."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from gdd.config import ConfigError
from gdd.runtime import signals
from gdd.runtime.array import Array, CommandLine

pytest.importorskip("submitit")

STARTED = "import os, signal, sys, time; out = open(sys.argv[1], 'w'); "
BLOCKED = STARTED + "print([*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))], file=out)"
# Says when it runs, and how it is ended.
WAITS = STARTED + (
    "signal.signal(signal.SIGUSR1, lambda *_: (print('in order', file=out, flush=True), os._exit(0)));"
    "print(os.getpid(), file=out, flush=True); time.sleep(60)"
)


def test_a_command_hears_nothing_that_a_cluster_sends_to_all_processes(tmp_path):
    CommandLine()([sys.executable, "-c", BLOCKED, str(tmp_path / "out")])
    blocked = json.loads((tmp_path / "out").read_text())
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2} <= {*blocked}
    assert signal.SIGUSR1 not in blocked
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_command_that_fails_fails_its_task():
    with pytest.raises(RuntimeError, match="exit code 3"):
        CommandLine()([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_task_that_ends_first_lets_its_command_end_in_order(tmp_path):
    """As when submitit hears SIGUSR2: it leaves by SystemExit, wherever the task is."""
    out = tmp_path / "out"

    def leave(*_: object) -> None:
        while not (out.exists() and out.read_text()):
            time.sleep(0.01)
        raise SystemExit

    before = signal.signal(signal.SIGUSR2, leave)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        with pytest.raises(SystemExit):
            CommandLine()([sys.executable, "-c", WAITS, str(out)])
    finally:
        signal.signal(signal.SIGUSR2, before)
    process, how = out.read_text().split("\n", 1)
    assert how == "in order\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(process), 0)


def test_parameters_that_submitit_does_not_know_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"submitit refuses the tasks: .*colour"):
        Array(1, parameters={"slurm_colour": "red"}).run([["true"]], tmp_path)


def test_a_failed_task_is_told_when_all_have_ended(tmp_path):
    slow = [sys.executable, "-c", "import pathlib, sys, time; time.sleep(.3); pathlib.Path(sys.argv[1]).touch()"]
    with pytest.raises(ConfigError, match=r"1 of 2 tasks failed, the first as .*_log.err says"):
        Array(2).run([["false"], [*slow, str(tmp_path / "done")]], tmp_path / "logs")
    assert (tmp_path / "done").exists()


def test_ending_early_ends_the_tasks(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(signals, "is_due", lambda _: out.exists() and out.read_text())
    with pytest.raises(signals.Stopped, match="the same command goes on"):
        Array(1).run([[sys.executable, "-c", WAITS, str(out)]], tmp_path / "logs")
    deadline = time.monotonic() + 20
    while "in order" not in out.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
