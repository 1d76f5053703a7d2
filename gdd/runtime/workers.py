"""Processes of one machine that do tasks of one kind at once on its CPUs, each with its share of the threads."""

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gdd.config import ConfigError, RunConfig
from gdd.runtime import checkpoint, signals
from gdd.runtime.device import count_cores, set_up_worker
from gdd.runtime.run import Run

Task = TypeVar("Task")
Result = TypeVar("Result")
Late = Callable[[], Any]
Make = Callable[[Late], Callable[[Task], Result]]


@dataclass(frozen=True)
class Team:
    """How many processes work at once, and with how many threads each."""

    workers: int
    threads: int


def team_for(settings: RunConfig, device: torch.device, world_size: int, tasks: int) -> Team:
    """Return who does `tasks` tasks: this process alone on a GPU or among a launcher's, else workers on CPUs.

    Threads may change a result's last bits, so they must not depend on how many of the tasks were done before.
    """
    cores = count_cores()
    workers = max(1, min(tasks, settings.workers or cores // (settings.threads or 1)))
    if workers == 1 or device.type != "cpu" or world_size > 1:
        return Team(1, torch.get_num_threads())
    return Team(workers, settings.threads or max(1, cores // workers))


def run_tasks(
    run: Run,
    team: Team,
    tasks: Sequence[Task],
    make: Make[Task, Result],
    late: Late,
    deal: Callable[[int], int | None],
) -> Generator[Result, None, None]:
    """Do tasks in new processes and yield their results as they come; closing the iterator ends the processes.

    Args:
        run: its folder takes temporary files, whose tensors all processes share; its settings are theirs too.
        team: how many of them, if there are tasks for so many.
        tasks: what can be done; they and `make` are pickled.
        make: called once in each process, with a function that fetches what `late` returns; returns what does a task.
        late: called here when a process first asks for it; all share its tensors.
        deal: given a worker's number, returns the index of its next task, or none if there is nothing left for it.

    Raises:
        ConfigError: a process was killed.
        Exception: what a task raised, with the traceback as a note.
    """
    # A kill leaves them to the next start, which removes what is called so.
    inputs, fetched = run.folder / ".workers-inputs.tmp", run.folder / ".workers-late.tmp"
    fetch = cache(lambda: _save(fetched, late()))
    processes: dict[Connection, SpawnProcess] = {}
    try:
        rest = _save(inputs, (make, tasks))
        for _ in range(min(team.workers, len(tasks))):  # fewer tasks may be left than the team is for
            _start(processes, inputs, rest, fetched, run.settings, team.threads)
        numbers = {connection: number for number, connection in enumerate(processes)}
        while numbers:
            for connection in wait(list(numbers)):
                assert isinstance(connection, Connection)
                kind, value = _receive(connection, processes[connection])
                if kind == "error":
                    raise value
                if kind == "late":
                    connection.send(fetch())
                    continue
                if kind == "result":
                    yield value
                connection.send(index := deal(numbers[connection]))
                if index is None:
                    del numbers[connection]
    finally:
        with signals.blocked():  # or a second signal would leave some of them
            for connection, process in processes.items():
                process.kill()
                process.join()
                connection.close()
            inputs.unlink(missing_ok=True)
            fetched.unlink(missing_ok=True)


def _save(path: Path, content: object) -> bytes:
    """Write the content's tensors to a file, and return the rest as a pickle that names them by number.

    Mapped, the file is in memory once, however many processes read it. It is in a user's folder, so nothing but tensors
    is read from it; the pickle goes from process to process.
    """
    tensors: list[Tensor] = []

    class WithoutTensors(pickle.Pickler):
        def persistent_id(self, value: object) -> int | None:
            if not isinstance(value, Tensor):
                return None
            tensors.append(value)
            return len(tensors) - 1

    rest = io.BytesIO()
    WithoutTensors(rest).dump(content)
    checkpoint.write_atomically(path, lambda temporary: torch.save(tensors, temporary))
    return rest.getvalue()


def _load(path: Path, rest: bytes) -> Any:
    """Return what `_save` was given."""
    tensors = torch.load(path, mmap=True, weights_only=True)

    class WithTensors(pickle.Unpickler):
        def persistent_load(self, number: int) -> Tensor:
            return tensors[number]

    return WithTensors(io.BytesIO(rest)).load()


def _start(
    processes: dict[Connection, SpawnProcess],
    inputs: Path,
    rest: bytes,
    fetched: Path,
    settings: RunConfig,
    threads: int,
) -> None:
    """Start a process for `_serve` that hears of no signal: the one that started it decides when it ends."""
    with signals.blocked():  # started with the first process, it would unblock signals; some were before
        resource_tracker.ensure_running()
    ours, theirs = multiprocessing.Pipe()
    # Not forked: OpenMP's threads would be missing in the copy.
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_serve, args=(theirs, inputs, rest, fetched, settings, threads), daemon=True)
    with signals.blocked():
        process.start()
        processes[ours] = process
    theirs.close()


def _receive(connection: Connection, process: SpawnProcess) -> tuple[str, Any]:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    raise ConfigError(f"one of run.workers {how}; the same command goes on, if memory was short with fewer of them")


def _serve(connection: Connection, inputs: Path, rest: bytes, fetched: Path, settings: RunConfig, threads: int) -> None:
    """Do the tasks whose indices come, until none comes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up_worker(settings, threads)

    def late() -> Any:
        connection.send(("late", None))
        return _load(fetched, connection.recv())

    try:
        make, tasks = _load(inputs, rest)
        work = make(late)
        connection.send(("ready", None))
        for index in iter(connection.recv, None):
            connection.send(("result", work(tasks[index])))
    except Exception as error:
        error.add_note(traceback.format_exc())
        connection.send(("error", error))


def _end_with_parent() -> None:
    """End this process when its parent has ended: a killed one can tell nobody to stop."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    with contextlib.suppress(OSError):
        parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
