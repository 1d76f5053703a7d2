"""Command lines as tasks of an array job, which submitit hands to SLURM or starts on this machine."""

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gdd.config import ConfigError
from gdd.runtime import signals

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

logger = logging.getLogger(__name__)

FOLDER = "submitit"  # of a run's, with what submitit writes: scripts, logs, and its pickles of command lines
# What SLURM sends to all processes of a task before it ends or requeues it; submitit hears it, and decides.
_OF_THE_CLUSTER = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2}
_BETWEEN_LOOKS = 1.0  # seconds


class CommandLine:
    """What a task does: it gives a command and, if the cluster ends it before that has ended, gives it again."""

    def __call__(self, command: list[str]) -> None:
        logging.getLogger("submitit").info(shlex.join(command))  # which can be given by hand, from the task's log
        with contextlib.ExitStack() as stack:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_CLUSTER)
            process = stack.enter_context(subprocess.Popen(command))  # it never gets a signal that is blocked here
            stack.callback(process.send_signal, signal.SIGUSR1)  # if this process ends first, it ends in order
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if code := process.wait():
                raise RuntimeError(f"the command ended with exit code {code}")

    def checkpoint(self, command: list[str]) -> "DelayedSubmission":
        """Tell submitit how the task goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, command)


@dataclass(frozen=True)
class Array:
    """How a command's work is shared among the tasks of an array job."""

    tasks: int  # at least 1
    share: int | None = None  # of them, the one that this process does; none: it submits them
    cluster: Literal["slurm", "local"] = "local"
    parameters: Mapping[str, Any] = field(default_factory=dict)  # submitit's, such as timeout_min, slurm_partition

    def run_shares(self, most: int, folder: Path, max_minutes: float | None) -> None:
        """Run the command line of this process once for each share of its work, of which there are `most` at most."""
        count = min(self.tasks, most)
        command = [sys.executable, *sys.orig_argv[1:]]
        self.run([[*command, "--share", f"{share}/{count}"] for share in range(count)], folder, max_minutes)

    def run(self, commands: Sequence[list[str]], folder: Path, max_minutes: float | None = None) -> None:
        """Run each command line in a task, and wait for all; ending early cancels those that are left.

        Args:
            commands: which go on if they are given again.
            folder: for submitit, seen by all machines.
            max_minutes: since the start of this process, after which it ends.

        Raises:
            ConfigError: submitit refuses its parameters, or a task failed; the others have ended then.
            Stopped: a signal came, or `max_minutes` had passed.
        """
        import submitit

        of_sbatch = {name: os.environ[name] for name in os.environ if name.startswith(("SBATCH_", "SLURM_CONF"))}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster)
            executor.update_parameters(**self.parameters)
            with submitit.helpers.clean_env():  # submitted by a job, tasks would take its variables for theirs
                os.environ.update(of_sbatch)
                jobs = executor.map_array(CommandLine(), commands)
        except Exception as error:  # an AssertionError, a NameError and more of a parameter; whatever sbatch says
            raise ConfigError(f"submitit refuses the tasks: {error}") from error
        try:
            logger.info("submitted %d tasks, whose logs are in %s", len(jobs), folder)
            while not all(job.done() for job in jobs):
                if signals.is_due(max_minutes):
                    raise signals.Stopped("stopped before all tasks had ended; the same command goes on")
                time.sleep(_BETWEEN_LOOKS)
        finally:
            with signals.blocked():
                for job in jobs:
                    if not job.done():
                        job.cancel(check=False)
        failed = [job for job in jobs if job.exception() is not None]
        if failed:
            raise ConfigError(f"{len(failed)} of {len(jobs)} tasks failed, the first as {failed[0].paths.stderr} says")


def require_submitit() -> None:
    """Raise ConfigError where submitit is not installed."""
    if find_spec("submitit") is None:
        raise ConfigError("--submit needs submitit: pip install 'gdd[slurm]'")
