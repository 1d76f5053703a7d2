"""What a command says before it works: what it does, on which data and machine, for how long, and where results go."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator

from gdd.config import Config
from gdd.data.readers import Dataset
from gdd.evaluation.recipe import Job
from gdd.pipeline.stages import STAGES, Plan, Work
from gdd.runtime import speed as machine
from gdd.runtime.device import device_name
from gdd.runtime.execution import resolve
from gdd.runtime.workers import team_for

# The share of a large matrix product's speed that training reaches, and the seconds of a step's many small calls, both
# fitted once to runs on two CPU cores. Estimates are meant to tell minutes from hours.
_EFFICIENCY, _GAN_STEP, _STUDENT_STEP = 0.4, 0.03, 0.001
BUSY = 1.5  # times as long as alone, from which on it is told


class Speed(NamedTuple):
    """The FLOP in a second of training."""

    gan: float  # of generators and discriminators, in the precision that they are executed in
    others: float  # of students, which are so narrow that bfloat16 gives them little: as in float32
    busy: float = 1.0  # times as long as on a machine that does nothing else, at least 1


def block(
    config: Config, dataset: Dataset, accelerator: Accelerator, stages: Sequence[str], jobs: Sequence[Job]
) -> str:
    """Return the lines that a command begins with: its stages, of which evaluate and compare score the `jobs`."""
    spec, processes = dataset.spec, accelerator.num_processes
    works = _works(config, dataset, accelerator, stages, jobs)
    at = speed(config, accelerator.device)
    minutes = _minutes(works, at) / processes
    how = "estimated from the number of operations" if at.busy < BUSY else as_busy(minutes, at)
    size = f"{spec.height}x{spec.width}x{spec.channels}"
    images = f"{len(dataset.train.labels):,} training and {len(dataset.val.labels):,} validation images"
    lines = [("work" if index == 0 else "", work.text) for index, work in enumerate(works)]
    lines += [
        ("data", f"{spec.name}: {spec.num_classes} classes of {size}, {images}"),
        ("machine", device_name(accelerator.device) + (f", {processes} processes" if processes > 1 else "")),
        ("time", f"about {rounded(minutes)} for all of it, {how}"),
        ("results", f"{config.run.root / config.name}"),
    ]
    return "\n".join(f"{name:8} {text}" for name, text in lines)


def estimated_minutes(
    config: Config,
    dataset: Dataset,
    accelerator: Accelerator,
    stages: Sequence[str],
    jobs: Sequence[Job],
    at: Speed,
) -> float:
    """Return the minutes that `block` tells of the same stages on one process, at what `speed` has measured."""
    return _minutes(_works(config, dataset, accelerator, stages, jobs), at)


def _works(
    config: Config, dataset: Dataset, accelerator: Accelerator, stages: Sequence[str], jobs: Sequence[Job]
) -> list[Work]:
    team = team_for(config.run, accelerator.device, accelerator.num_processes, len(jobs))
    return [STAGES[stage].work(Plan(config, dataset, jobs, team)) for stage in stages]


def _minutes(works: Sequence[Work], at: Speed) -> float:
    seconds = (
        work.gan_steps * _GAN_STEP
        + work.student_steps * _STUDENT_STEP
        + work.flop / (at.gan if work.of_gan else at.others)
        for work in works
    )
    return sum(seconds) / 60


def rounded(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} days"


def as_busy(minutes: float, at: Speed) -> str:
    """Say how long it takes if others go on using the machine."""
    return f"{rounded(minutes * at.busy)} if the machine stays as busy as it is"


def speed(config: Config, device: torch.device) -> Speed:
    """Measure large matrix products on this process's threads, as if nobody else worked on the machine."""
    own = getattr(torch, resolve(config.run.precision, device))
    products = {dtype: machine.matrix_product_taken(device, dtype) for dtype in {own, torch.float32}}
    rates = {dtype: _EFFICIENCY * work / took.alone for dtype, (work, took) in products.items()}
    busy = max(took.now / took.alone for _, took in products.values())
    return Speed(rates[own], rates[torch.float32], max(1.0, busy))
