"""When a command ends before its work is done: at SIGTERM, SIGUSR1, or the end of run.max_minutes."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

# What SLURM sends before a time limit or a preemption, by default and with --signal=USR1@60.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_PROCESS_START = time.monotonic()


class Stopped(BaseException):
    """The command ends early with everything kept; the same command goes on.

    No Exception: code that was reading a file would catch it and call the file damaged.
    """


class _Signals:
    """The signal received, and whether it has to wait for the end of a step."""

    received: str | None = None
    deferred: bool = False


def _receive(number: int, frame: FrameType | None) -> None:
    _Signals.received = signal.Signals(number).name
    if not _Signals.deferred:
        raise Stopped(f"stopped by {_Signals.received}; the same command goes on")


def is_launched() -> bool:
    """Tell whether `accelerate launch` started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def with_launcher() -> None:
    """Let Linux send SIGTERM when `accelerate launch` dies: a stray process would go on writing to the run folder."""
    pr_set_pdeathsig = 1  # sys/prctl.h
    if is_launched():
        parent = os.getppid()
        with contextlib.suppress(OSError, AttributeError):  # not Linux
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:
            raise Stopped("stopped, for its launcher has ended")


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Raise Stopped at a signal while the block runs; main thread only, the former handlers come back.

    Not around the building of an Accelerator: while it waits for the other processes, no handler runs.
    """
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    try:
        yield
    finally:
        _Signals.received = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Let signals, Ctrl-C among them, wait for the end of the block; processes started within never get one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *SIGNALS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def at_the_end_of_a_step() -> Iterator[None]:
    """Let a signal wait, in the block, until somebody asks `is_due`."""
    _Signals.deferred = True
    try:
        yield
    finally:
        _Signals.deferred = False


def is_due(max_minutes: float | None) -> bool:
    """Tell whether a signal came or `max_minutes`, counted from the start of the process, are over."""
    over = max_minutes is not None and time.monotonic() - _PROCESS_START > 60 * max_minutes
    return over or _Signals.received is not None
