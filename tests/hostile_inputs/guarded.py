"""One command in a process of its own with limited memory, forked from one that has imported everything."""

import importlib
import io
import multiprocessing
import os
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NamedTuple

import pytest

from gdd.cli.main import _parser, main

MOST_MB = 100  # that a refusal may take
ROOM_MB = 1500  # that an attack can take before it fails, so that it cannot harm the machine
MOST_SECONDS = 30

# What the commands would import on first use, and what takes longer than most of them.
for name in (
    "gdd.pipeline",
    "gdd.formats.dc_mtt",
    "gdd.formats.webdataset",
    "sklearn.datasets",
    "einops._torch_specific",
):
    importlib.import_module(name)
_parser("gdd")


@cache
def _processes() -> ForkServerContext:
    """Start the process from which the others are forked: it imports this module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


class Outcome(NamedTuple):
    code: int
    error: str
    grown_mb: int


def _work(arguments: list[str], connection: Connection) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + ROOM_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as error:
        code = main(arguments)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    connection.send(Outcome(code, error.getvalue(), grown // 1024))


def run(*arguments: object) -> Outcome:
    """Run a command line; EOFError if its process died, be it of an exception."""
    processes = _processes()
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=_work, args=([str(argument) for argument in arguments], sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def refused(*arguments: object, naming: object) -> str:
    """Run a command that has to end with exit code 2 and one sentence, and return that sentence."""
    outcome = run(*arguments)
    lines = [line for line in outcome.error.splitlines() if line.startswith("gdd: ")]
    assert outcome.code == 2, outcome
    assert len(lines) == 1, outcome.error
    assert str(naming) in lines[0]
    assert len(lines[0]) < 1000
    assert lines[0].isprintable()
    assert "Traceback" not in outcome.error
    assert outcome.grown_mb < MOST_MB
    return lines[0]
