"""When a command ends before its work is done: at Ctrl-C, SIGTERM, SIGUSR1, or the end of run.max_minutes."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

# Ctrl-C, and what SLURM sends before a time limit or a preemption, by default and with --signal=USR1@60.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_ONE_PRESS = 1.0  # seconds in which a launcher may pass on the Ctrl-C that a terminal has sent already

_PROCESS_START = time.monotonic()


class Stopped(BaseException):
    """The command ends early with everything kept; the same command goes on.

    No Exception: code that was reading a file would catch it and call the file damaged.
    """


class _Signals:
    """The first signal received and when, whether it has to wait for the end of a step, whether Stopped is raised."""

    received: str | None = None
    moment: float = 0.0
    deferred: bool = False
    raised: bool = False


def _receive(number: int, frame: FrameType | None) -> None:
    """Let the first signal end the command in order, a second Ctrl-C at once; others change nothing."""
    first, now = _Signals.received is None, time.monotonic()
    if first:
        _Signals.received, _Signals.moment = signal.Signals(number).name, now
    elif number == signal.SIGINT and now - _Signals.moment > _ONE_PRESS:
        raise KeyboardInterrupt
    if not _Signals.deferred and not _Signals.raised:
        _Signals.raised = True
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

    Ctrl-C stays without effect on what a shell has put into the background.

    Not around the building of an Accelerator: while it waits for the other processes, no handler runs.
    """
    unheard = {signal.SIGINT} if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, _receive) for number in {*SIGNALS} - unheard}
    try:
        yield
    finally:
        _Signals.received, _Signals.raised = None, False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Let signals wait for the end of the block; processes started within never get one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
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
