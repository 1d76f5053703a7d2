"""One stage's run: the only place that builds an Accelerator; folder, trackers, cadence, time limit."""

import contextlib
import ctypes
import json
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from gdd import checkpoint
from gdd.checkpoint import Stateful
from gdd.config import ConfigError, RunConfig

logger = logging.getLogger(__name__)


_PROCESS_START = time.monotonic()


class OutOfTime(Exception):
    """run.max_minutes is over; the checkpoint is written and the same command goes on."""


class Diverged(ConfigError):
    """A loss became infinite or not a number."""


class Run:
    """Open the folder of one stage, refusing another configuration's, and drive its loop.

    Args:
        folder: `<run.root>/<name>/<stage>`.
        settings: cadence, limits, whether to overwrite.
        config: the resolved configuration as JSON values, written to `config.json`.
        fingerprint: hash of everything that decides the result; a folder of another one is refused.
        accelerator: given to share one among several stages of a process.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunConfig,
        config: dict[str, Any],
        fingerprint: str,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.folder, self.settings, self.fingerprint = folder, settings, fingerprint
        self.accelerator = accelerator or make_accelerator()
        device = self.accelerator.device
        # Two processes on CPUs are told "cpu:0", which torch.load does not know.
        self.device = torch.device("cpu") if device.type == "cpu" else device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.started, self.earlier_seconds = time.monotonic(), 0.0
        if self.is_main:
            self._claim(config)
        self.accelerator.wait_for_everyone()

    def _claim(self, config: dict[str, Any]) -> None:
        mark = self.folder / "config.json"
        try:
            if mark.exists():
                found = self._found(mark)
                if found != self.fingerprint and not self.settings.overwrite:
                    raise ConfigError(
                        f"{self.folder} holds a run of another configuration ({found}, this one is "
                        f"{self.fingerprint}); choose another --name or add --run.overwrite true"
                    )
                if found != self.fingerprint:
                    shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.write_json(mark, {"fingerprint": self.fingerprint, "config": config})
        except OSError as error:
            raise ConfigError(f"{self.folder} cannot be written to ({error.strerror}); set run.root") from error

    def _found(self, mark: Path) -> str | None:
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
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.earlier_seconds, self.started = state["seconds"], time.monotonic()

    @property
    def out_of_time(self) -> bool:
        """Whether run.max_minutes, counted from the start of the command, are over on any process."""
        limit = self.settings.max_minutes
        over = limit is not None and time.monotonic() - _PROCESS_START > 60 * limit
        if self.world_size == 1:
            return over
        # Processes must agree, or some would stop in a step the others wait in.
        flag = torch.tensor([float(over)], device=self.device)
        return bool(self.accelerator.reduce(flag, "sum").item() > 0)

    def loop(self, states: Mapping[str, Stateful], total: int, images_per_step: int, title: str) -> Iterator["Step"]:
        """Yield the steps still to do, resuming from the newest checkpoint and writing new ones on the way.

        Raises:
            OutOfTime: after the step at which run.max_minutes had passed.
            Diverged: a recorded loss was not finite when it was logged or about to be saved.
        """
        states = {**states, "clock": self}
        done = checkpoint.steps(self.folder)
        start = 0
        if done:
            start = checkpoint.load(checkpoint.path_of(self.folder, done[-1]), states, self.device)
            if self.is_main and start < total:
                logger.info("%s: going on after step %d of %d", title, start, total)
        with Meter(self, start, total, images_per_step, title) as meter:
            for index in range(start, total):
                step = Step(index, total, self.settings)
                yield step
                meter.count(step)
                stop = self.out_of_time
                if stop or step.done % self.settings.save_every == 0 or step.done == total:
                    meter.require_finite(step)
                    self._require_finite_weights(states, step, title)
                    if self.is_main:
                        checkpoint.save(self.folder, step.done, states, self.settings.keep)
                    self.accelerator.wait_for_everyone()
                if stop and step.done < total:
                    raise OutOfTime(f"{title}: stopped after step {step.done} of {total}; the same command goes on")

    def _require_finite_weights(self, states: Mapping[str, Stateful], step: "Step", title: str) -> None:
        """Losses are taken before the update, so they cannot vouch for the weights that it left."""
        for name, state in states.items():
            if isinstance(state, torch.nn.Module) and not all(bool(p.isfinite().all()) for p in state.parameters()):
                raise Diverged(f"{title}: the weights of {name} are not finite after step {step.done}")


class Step:
    """One step of a loop: its number, what is due, and the scalars that it recorded."""

    def __init__(self, index: int, total: int, settings: RunConfig) -> None:
        self.index, self.done = index, index + 1
        last = self.done == total
        self.log_due = last or self.done % settings.log_every == 0
        self.grid_due = last or self.done % settings.grid_every == 0
        self.scalars: dict[str, Tensor | float] = {}
        self.images: Tensor | None = None

    def record(self, scalars: Mapping[str, Tensor | float]) -> None:
        """Keep scalars; tensors are read, and checked to be finite, only when a line is due."""
        self.scalars.update(scalars)


class Meter:
    """Progress bar and metrics of a loop, on the main process only."""

    def __init__(self, run: Run, start: int, total: int, images_per_step: int, title: str) -> None:
        self.run, self.images_per_step, self.title = run, images_per_step, title
        self.start, self.begun = start, time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[speed]}"), disable=not run.is_main)
        self.task = self.progress.add_task(title, total=total, completed=start, speed="")
        self.writer: Any = None

    def __enter__(self) -> "Meter":
        if self.run.is_main:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self.writer = SummaryWriter(self.run.folder / "tensorboard", purge_step=self.start + 1)
            drop_lines_after(self.run.folder / "metrics.jsonl", self.start)
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self.writer is not None:
            self.writer.close()

    def require_finite(self, step: Step) -> dict[str, float]:
        values = {name: float(value) for name, value in step.scalars.items()}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if bad:
            good = checkpoint.steps(self.run.folder)
            last = str(checkpoint.path_of(self.run.folder, good[-1])) if good else "none was written yet"
            raise Diverged(f"{self.title}: {bad} at step {step.done}; last good checkpoint: {last}")
        return values

    def count(self, step: Step) -> None:
        speed = (step.done - self.start) * self.images_per_step / (time.monotonic() - self.begun)
        self.progress.update(self.task, completed=step.done, speed=f"{speed:.0f} images/s")
        if step.log_due:
            values = self.require_finite(step)
            if self.run.is_main:
                line = {"step": step.done, "images_per_second": round(speed, 1), **values}
                with (self.run.folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                for name, value in values.items():
                    self.writer.add_scalar(name, value, step.done)
                self.writer.add_scalar("images_per_second", speed, step.done)
        if step.images is not None and self.run.is_main:
            self.writer.add_image("samples", step.images, step.done)


def drop_lines_after(path: Path, step: int) -> None:
    """Remove the metrics of steps that a killed run did after its last checkpoint; they are done again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:  # a line cut by a kill
            continue
    checkpoint.write_atomically(path, lambda temporary: temporary.write_text("".join(f"{x}\n" for x in kept)))


def make_accelerator(threads: int | None = None) -> Accelerator:
    """Build the process's Accelerator, refusing a launch that started fewer processes than were asked for.

    Args:
        threads: CPU threads of this process; none shares the cores among the processes of this machine, for
            `accelerate launch` would leave each with one.
    """
    # Batch statistics of the generator stay each process's own; the checkpoint holds rank 0's.
    # float32 whatever the user's accelerate config says: precision would change results without showing.
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_steps=1,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise ConfigError(
            f"WORLD_SIZE is {asked} but {accelerator.num_processes} process started; on CPUs use "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, cores // local))
    if accelerator.device.type == "cpu":
        _keep_freed_memory()
    return accelerator


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large freed blocks: fresh pages for activations slow training on CPUs 1.5 times or more."""
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(m_mmap_max, 0)
        library.mallopt(m_trim_threshold, 2**31 - 1)


@cache
def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.machine()
    threads = torch.get_num_threads()
    return f"{device.type} ({name}, {threads} thread{'s' * (threads > 1)})"
