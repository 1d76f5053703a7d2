"""What a command says before it works: what it does, on which data and machine, for how long; what a dry run adds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from accelerate import Accelerator
from rich.table import Table
from torch import Tensor, nn

from gdd.config import Config
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation.recipe import Job
from gdd.models import registry
from gdd.models.cost import forward_flop
from gdd.models.gan import make_discriminator, make_generator, width_of
from gdd.pipeline.stages import STAGES, Scope, Work
from gdd.runtime import device as machine
from gdd.runtime.device import device_name
from gdd.runtime.execution import resolve
from gdd.runtime.workers import team_for


class Cost(NamedTuple):
    """What work costs besides its operations; estimates are meant to tell minutes from hours."""

    gan: float  # share of a large matrix product's speed that a GAN's training reaches
    others: float  # and that of other networks
    gan_step: float  # seconds of a step's many small operations, however small its images are
    student_step: float  # of one student, or of a stack
    start: float = 0.0  # seconds until the first step, and of captures


# Fitted to runs on two CPU cores; and to the time that an H200 worked in eager steps, since no replay was timed yet.
_COSTS = {"cpu": Cost(0.4, 0.4, 0.03, 0.001), "cuda": Cost(0.15, 0.4, 0.0035, 0.0012, start=10.0)}
BUSY = 1.5  # times as long as alone, from which on it is told


class Speed(NamedTuple):
    """The FLOP in a second of training."""

    gan: float  # of generators and discriminators, in the precision that they are executed in
    others: float  # of students, which are so narrow that bfloat16 gives them little: as in float32
    busy: float = 1.0  # times as long as on a machine that does nothing else, at least 1
    cost: Cost = _COSTS["cpu"]  # besides


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
    return [STAGES[stage].work(Scope(config, dataset, jobs, team, accelerator.device)) for stage in stages]


def _minutes(works: Sequence[Work], at: Speed) -> float:
    seconds = (
        work.gan_steps * at.cost.gan_step
        + work.student_steps * at.cost.student_step
        + work.flop / (at.gan if work.of_gan else at.others)
        for work in works
    )
    return (at.cost.start + sum(seconds)) / 60


def rounded(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} days"


def as_busy(minutes: float, at: Speed) -> str:
    """Say how long it takes if others go on using the machine."""
    return f"{rounded(minutes * at.busy)} if the machine stays as busy as it is"


def speed(config: Config, device: torch.device) -> Speed:
    """Measure large matrix products on this process's threads, as if nobody else worked on the machine."""
    precision = getattr(torch, resolve(config.run.precision, device))
    products = {dtype: machine.matrix_product_taken(device, dtype) for dtype in {precision, torch.float32}}
    rates = {dtype: work / took.alone for dtype, (work, took) in products.items()}
    busy = max(took.now / took.alone for _, took in products.values())
    cost = _COSTS[device.type]
    return Speed(cost.gan * rates[precision], cost.others * rates[torch.float32], max(1.0, busy), cost)


_PROBE = 2  # images; batch norm in train mode needs more than one


def cost_of(network: nn.Module, call: Callable[[], object]) -> tuple[int, float, int]:
    """Return a network's parameters, forward GFLOP per image, and bytes kept per image for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        flop = forward_flop(network, call)
    for parameter in network.parameters():
        kept.pop(parameter.data_ptr(), None)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, flop / 1e9, sum(kept.values()) // _PROBE


def _gan_rows(
    config: Config, spec: DatasetSpec, images: Tensor
) -> list[tuple[str, nn.Module, Callable[[], object], int]]:
    sizes = config.gan.arch, spec.shape, spec.num_classes, width_of(config.gan, spec.shape)
    generator, discriminator = make_generator(*sizes, config.gan.noise_dim), make_discriminator(*sizes)
    noise, labels = torch.zeros(_PROBE, config.gan.noise_dim), torch.zeros(_PROBE, dtype=torch.int64)
    batch = max(config.pretrain.batch_size, config.refine.batch_size)
    return [
        ("generator", generator, lambda: generator(noise, labels), batch),
        ("discriminator", discriminator, lambda: discriminator(images), 2 * batch),
    ]


def costs(config: Config, spec: DatasetSpec, stages: Sequence[str]) -> Table:
    """Return a table with a row per network of the stages; memory is weights, gradients, two moments, activations."""
    images = torch.zeros(_PROBE, *spec.shape)
    records = [STAGES[stage] for stage in stages]
    rows = _gan_rows(config, spec, images) if any(record.has_gan for record in records) else []
    for networks in (record.networks(config, spec) for record in records if record.networks is not None):
        for name in dict.fromkeys(networks.archs):
            classifier = registry.build(name, spec.shape, spec.num_classes)
            rows.append((f"{networks.purpose} {name}", classifier, partial(classifier, images), networks.batch_size))
    result = Table("network", "parameters", "forward GFLOP / image", "batch", "memory MiB")
    for title, network, call, size in rows:
        parameters, gflop, kept = cost_of(network, call)
        memory = (16 * parameters + kept * size) / 2**20
        result.add_row(title, f"{parameters:,}", f"{gflop:.4f}", str(size), f"{memory:,.0f}")
    return result
