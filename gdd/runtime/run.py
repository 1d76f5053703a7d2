"""One stage's run: its folder, trackers, cadence, and the loop that resumes and stops."""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from gdd.config import ConfigError, RunConfig
from gdd.runtime import checkpoint, execution, signals
from gdd.runtime.checkpoint import Stateful
from gdd.runtime.execution import Execution, Precision

logger = logging.getLogger(__name__)


class Diverged(ConfigError):
    """A loss became infinite or not a number."""


@dataclass(eq=False, repr=False)
class Run:
    """Open the folder of one stage, refusing another configuration's, and drive its loop.

    A context manager: until it is closed, no other process can open the folder.
    """

    folder: Path  # <run.root>/<name>/<stage>
    settings: RunConfig  # cadence, limits, whether to overwrite
    config: dict[str, Any]  # the resolved configuration as JSON values, written to config.json
    fingerprint: str  # hash of everything that decides the result; a folder of another one is refused
    accelerator: Accelerator  # shared by all stages of a process

    def __post_init__(self) -> None:
        folder, device = self.folder, self.accelerator.device
        # Two processes on CPUs are told "cpu:0", which torch.load does not know.
        self.device = torch.device("cpu") if device.type == "cpu" else device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.fixed_world_size = True
        self.executions: list[str] = []
        self.started, self.earlier_seconds = time.monotonic(), 0.0
        # A lock file that a killed job left behind must not stop the next one, so no fallback to its mere existence.
        self._lock = FileLock(folder / ".lock", timeout=0, fallback_to_soft=False)
        try:
            if self.is_main:
                self._claim()
            self.accelerator.wait_for_everyone()
            if self.all_reduce_mean([float((folder / "config.json").exists())])[0] < 1:
                raise ConfigError(f"{folder} is not seen by all processes; set run.root to a folder of all machines")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _claim(self) -> None:
        mark = self.folder / "config.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if mark.exists():
                stored = self._stored_fingerprint(mark)
                if stored != self.fingerprint and not self.settings.overwrite:
                    raise ConfigError(
                        f"{self.folder} holds a run of another configuration ({stored}, this one is "
                        f"{self.fingerprint}); choose another --name or add --run.overwrite true"
                    )
                if stored != self.fingerprint:
                    self._empty()
            elif any(path.suffix in (".pt", ".safetensors") for path in self.folder.iterdir()):
                raise ConfigError(
                    f"{self.folder} holds results but no config.json that says of what; choose another --name"
                )
            for folder in (self.folder, *self.folder.glob("*/*/")):  # also those of teachers
                checkpoint.remove_unfinished(folder)
            checkpoint.write_json(mark, {"fingerprint": self.fingerprint, "config": self.config})
        except OSError as error:
            raise ConfigError(f"{self.folder} cannot be written to ({error.strerror}); set run.root") from error

    def _take_lock(self) -> None:
        """Lock the folder: two processes that write to it would undo each other's work."""
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"{self.folder} is in use by another process; wait for it or choose another --name"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            logger.warning("%s cannot be locked (%s); let no other process write to it", self.folder, error.strerror)

    def _empty(self) -> None:
        """Remove all but the mark of the old configuration: cut short, the rest must not be taken for the new one's."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (".lock", "config.json"):
                path.unlink()

    def _stored_fingerprint(self, mark: Path) -> str | None:
        try:
            return str(checkpoint.read_json(mark)["fingerprint"])
        except (ConfigError, KeyError, TypeError) as error:
            if self.settings.overwrite:
                return None
            raise ConfigError(f"{mark} is damaged; add --run.overwrite true or choose another --name") from error

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of this stage over all its sessions, as far as they reached a checkpoint."""
        return round(self.earlier_seconds + time.monotonic() - self.started, 1)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "processes": self.world_size, "execution": self.executions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.earlier_seconds, self.started = state["seconds"], time.monotonic()
        now = self.state_dict()
        for key in ("processes", "execution") if self.fixed_world_size else ("execution",):
            if state[key] != now[key]:
                raise ConfigError(f"{key} was {_words(state[key])} and is now {_words(now[key])}; go on as it began")

    def precision(self, flop: Iterable[float]) -> Precision:
        """Return that of networks by the settings, the device, and the FLOP of each for an image, forwards."""
        return execution.resolve(self.settings.precision, self.device, min(flop, default=math.inf))

    def execution(self, networks: Sequence[torch.nn.Module], precision: Precision, flop: float) -> Execution:
        """Decide how networks are executed, by the settings and the `flop` of all their work, gradients included."""
        compiled = self.settings.compile if self.world_size == 1 else "off"  # a compiler would part from the processes
        chosen = execution.decide(precision, compiled, self.device, networks, flop)
        self.executions.append(chosen.name)
        return chosen

    def stop_is_due(self, done: int, agreed_every: int) -> bool:
        """Tell after a step whether any process got a signal or ran out of run.max_minutes; all must ask alike.

        Several GPUs agree on that in some steps alone, since they wait for the answer.
        """
        if self.world_size > 1 and self.device.type == "cuda" and done % agreed_every:
            return False
        due = signals.is_due(self.settings.max_minutes)
        # Processes must agree, or some would stop in a step the others wait in.
        return self.all_reduce_mean([float(due)])[0] > 0

    def all_reduce_mean(self, values: Sequence[float]) -> list[float]:
        """Return the means over all processes, which all must ask for."""
        if self.world_size == 1:
            return list(values)
        local = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self.accelerator.reduce(local, "mean").tolist()

    def loop(
        self,
        states: Mapping[str, Stateful],
        total: int,
        images_per_step: int,
        title: str,
        fixed_world_size: bool = True,
        agreed_every: int = 16,
    ) -> Iterator["Step"]:
        """Yield the steps still to do, resuming from the newest whole checkpoint and writing new ones on the way.

        Args:
            states: all that a checkpoint holds.
            total: steps of the stage.
            images_per_step: for the speed that is shown.
            title: of the progress bar.
            fixed_world_size: whether another number of processes would give another result, so that it may not change
                on the way; nor may the precision.
            agreed_every: steps after which several GPUs ask each other whether to stop; 1 for long ones.

        Raises:
            Stopped: after the step at which a signal came or run.max_minutes had passed.
            Diverged: a recorded loss was not finite when it was logged or about to be saved.
        """
        states, self.fixed_world_size = {**states, "clock": self}, fixed_world_size
        with contextlib.ExitStack() as stack:
            stack.enter_context(signals.at_the_end_of_a_step())
            start = self._resume(states)
            if self.is_main and 0 < start < total:
                logger.info("%s: going on after step %d of %d", title, start, total)
            meter = stack.enter_context(MetricLogger(self, start, total, images_per_step, title))
            for index in range(start, total):
                step = Step(index, total, self.settings)
                yield step
                meter.count(step)
                due = self.stop_is_due(step.done, agreed_every)
                if due or step.done % self.settings.save_every == 0 or step.done == total:
                    meter.require_finite(step)
                    self._require_finite_weights(states, step, title)
                    if self.is_main:
                        checkpoint.save(self.folder, step.done, states, self.settings.keep)
                    self.accelerator.wait_for_everyone()
                if due and step.done < total:
                    raise signals.Stopped(
                        f"{title}: stopped after step {step.done} of {total}; the same command goes on"
                    )

    def _resume(self, states: Mapping[str, Stateful]) -> int:
        """Load the newest whole checkpoint, set damaged newer ones aside, and return its step, or 0 without any."""
        paths = [checkpoint.path_at(self.folder, step) for step in reversed(checkpoint.steps(self.folder))]
        for count, path in enumerate(paths):
            try:
                start = checkpoint.load(path, states)
            except checkpoint.Damaged as error:
                if path == paths[-1]:
                    raise ConfigError(
                        f"{error}; there is no earlier one, remove {self.folder} to start anew"
                    ) from error
                logger.warning("%s; going on from the one before", error)
                continue
            self._require_agreement(start)  # all have read before any is renamed
            if self.is_main:
                for damaged in paths[:count]:
                    damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
            return start
        return 0

    def _require_agreement(self, start: int) -> None:
        """Stop all processes if one has read another checkpoint, perhaps for an error of its own machine."""
        (mean,) = self.all_reduce_mean([float(start)])
        (apart,) = self.all_reduce_mean([abs(start - mean)])
        if apart > 0:
            raise ConfigError(f"the processes read different checkpoints of {self.folder}; give the command again")

    def _require_finite_weights(self, states: Mapping[str, Stateful], step: "Step", title: str) -> None:
        """Raise Diverged if a weight is not finite: losses are taken before the update, so they do not show it."""
        for name, state in states.items():
            if isinstance(state, torch.nn.Module) and not all(bool(p.isfinite().all()) for p in state.parameters()):
                raise Diverged(f"{title}: the weights of {name} are not finite after step {step.done}")


def _words(value: int | list[str]) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


class Step:
    """One step of a loop: its number, what is due, and the scalars that it recorded."""

    def __init__(self, index: int, total: int, settings: RunConfig) -> None:
        self.index, self.done, self.total = index, index + 1, total
        last = self.done == total
        self.log_due = last or self.done % settings.log_every == 0
        self.grid_due = last or self.done % settings.grid_every == 0
        self.scalars: dict[str, Tensor | float] = {}
        self.images: Tensor | None = None

    def record(self, scalars: Mapping[str, Tensor | float]) -> None:
        """Keep scalars; tensors are read, and checked to be finite, only when a line is due."""
        self.scalars.update(scalars)


def progress_bar(shown: bool, *columns: ProgressColumn) -> Progress:
    """Return a bar with its title, count and remaining time before the given columns."""
    first = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*first, *columns, disable=not shown)


class MetricLogger:
    """Progress bar and metrics of a loop, on the main process only."""

    def __init__(self, run: Run, start: int, total: int, images_per_step: int, title: str) -> None:
        self.run, self.images_per_step, self.title = run, images_per_step, title
        self.start, self.begun = start, time.monotonic()
        self.progress = progress_bar(run.is_main, TextColumn("{task.fields[speed]}"))
        self.task = self.progress.add_task(title, total=total, completed=start, speed="")
        self.writer: Any = None
        self.hook = threading.excepthook

    def __enter__(self) -> "MetricLogger":
        if self.run.is_main:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self.hook, threading.excepthook = threading.excepthook, self._thread_failed
            self.writer = SummaryWriter(self.run.folder / "tensorboard", purge_step=self.start + 1)
            drop_lines_after(self.run.folder / "metrics.jsonl", self.start)
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self.writer is not None:
            try:
                with _said_of(self.run.folder):
                    self.writer.close()
            finally:
                threading.excepthook = self.hook

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Leave out the traceback of TensorBoard's thread on a full disk, whose error the next call raises here."""
        if not issubclass(failure.exc_type, OSError):
            self.hook(failure)

    def require_finite(self, step: Step) -> dict[str, float]:
        """Return the scalars' means over all processes, which all must ask for; Diverged if one is not finite."""
        means = self.run.all_reduce_mean([float(value) for value in step.scalars.values()])
        values = dict(zip(step.scalars, means, strict=True))
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if bad:
            good = checkpoint.steps(self.run.folder)
            last = str(checkpoint.path_at(self.run.folder, good[-1])) if good else "none was written yet"
            raise Diverged(f"{self.title}: {bad} at step {step.done}; last good checkpoint: {last}")
        return values

    def count(self, step: Step) -> None:
        speed = (step.done - self.start) * self.images_per_step / (time.monotonic() - self.begun)
        self.progress.update(self.task, completed=step.done, speed=f"{speed:.0f} images/s")
        values = self.require_finite(step) if step.log_due else {}
        if not self.run.is_main:
            return
        with _said_of(self.run.folder):
            if step.log_due:
                self._log(step.done, {"images_per_second": round(speed, 1), **values})
            if step.images is not None:
                self.writer.add_image("samples", step.images, step.done)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        with (self.run.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave a checkpoint without the lines before it
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)


@contextlib.contextmanager
def _said_of(folder: Path) -> Iterator[None]:
    """Let an error of the disk name the folder, which TensorBoard's do not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the metrics of steps that a killed run did after its last checkpoint; they are done again."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line)
        except ValueError:  # a line cut by a kill
            continue
    checkpoint.write_atomically(path, lambda temporary: temporary.write_text("".join(f"{line}\n" for line in lines)))
