"""What a command says before it works: what it does, on which data and machine, for how long, and where results go."""

import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gdd import pipeline
from gdd.config import Config
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation.grid import flop_per_image
from gdd.evaluation.recipe import Conditions
from gdd.evaluation.sources import Source
from gdd.models.gan import Discriminator, Generator
from gdd.runtime.device import device_name
from gdd.training import matching

# What is left of a large matrix product's speed in training steps, and the seconds of a step's many small calls:
# fitted once to digits and CIFAR-10 on CPUs. Estimates are meant to tell minutes from hours.
_EFFICIENCY, _GAN_STEP, _CLASSIFIER_STEP = 0.4, 0.03, 0.001


def block(
    config: Config, dataset: Dataset, accelerator: Accelerator, stages: Sequence[str], sources: Sequence[Source] = ()
) -> str:
    """Return the lines that stand at the beginning of a command's output.

    Args:
        config: of the experiment.
        dataset: opened.
        accelerator: its device and processes.
        stages: what will be done, of pretrain, refine, matching, evaluate and compare.
        sources: that an evaluation scores; none for what the run itself distils.
    """
    spec = dataset.spec
    work, seconds = zip(*(_work(stage, config, dataset, stages, sources) for stage in stages), strict=True)
    minutes = sum(seconds) / 60 / accelerator.num_processes
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    images = f"{len(dataset.train.labels):,} training and {len(dataset.val.labels):,} validation images"
    lines = {
        "work": "; ".join(work),
        "data": f"{spec.name}: {spec.num_classes} classes of {spec.height}x{spec.width}x{spec.channels}, {images}",
        "machine": f"{device_name(accelerator.device)}{processes}",
        "time": f"about {_rounded(minutes)}, estimated from the number of operations",
        "results": f"{config.run.root / config.name}, with the whole config",
    }
    return "\n".join(f"{name:8} {text}" for name, text in lines.items())


def _rounded(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} days"


def _work(
    stage: str, config: Config, dataset: Dataset, stages: Sequence[str], sources: Sequence[Source]
) -> tuple[str, float]:
    """Return what a stage does, and roughly the seconds that it takes one process."""
    if stage == "pretrain":
        steps, batch = config.pretrain.steps, config.pretrain.batch_size
        flop = steps * batch * _gan_flop(config, dataset.spec)
        return f"pretrain a GAN, {steps:,} steps of {batch}", steps * _GAN_STEP + flop / _speed()
    if stage == "refine":
        steps, batch, pool = config.refine.steps, config.refine.batch_size, config.refine.pool
        member = sum(_flop(name, dataset.spec) for name in pool.members) / len(pool.members)
        asked = batch * (_gan_flop(config, dataset.spec) + 3 * member)
        taught = 3 * member * pool.steps_between * pool.batch_size
        text = f"refine its generator, {steps:,} steps of {batch}"
        return text, steps * _GAN_STEP + steps * (asked + taught) / _speed()
    if stage == "matching":
        return _matching_work(config, dataset.spec)
    count, flop, steps = _students(config, dataset, stages, sources)
    return f"{stage} by {count} students", steps * _CLASSIFIER_STEP + flop / _speed()


def _matching_work(config: Config, spec: DatasetSpec) -> tuple[str, float]:
    settings = config.matching
    outer, inner = matching.loops(settings.ipc, settings.outer, settings.inner)
    if settings.objective == "embedding":
        outer, inner = 1, 0
    names = pipeline.pool_members(config)
    member = sum(_flop(name, spec) for name in names) / len(names)
    # A gradient of the synthetic images' gradient costs about three times as much as theirs.
    update = spec.num_classes * (3 * settings.batch_real + 9 * settings.ipc) * member
    between = inner * spec.num_classes * settings.ipc * 3 * member
    updates = settings.iterations * outer
    text = f"{matching.method_name(settings)}, {settings.iterations:,} iterations at {settings.ipc} images per class"
    return text, updates * spec.num_classes * _CLASSIFIER_STEP + updates * (update + between) / _speed()


def _students(
    config: Config, dataset: Dataset, stages: Sequence[str], sources: Sequence[Source]
) -> tuple[int, float, int]:
    """Return the number of students, the FLOP and the optimiser steps of training them."""
    settings, conditions = config.evaluate, Conditions.of(config.evaluate, dataset.spec)
    recipe, classes = conditions.recipe, dataset.spec.num_classes
    # The images per class of every set that is trained on, floors included.
    drawn = list(settings.ipc) * len(settings.protocols)
    if sources:
        generators = sum(source.kind == "generator" for source in sources)
        stored = [source.stored_ipc for source in sources if source.stored_ipc is not None]
        sets = drawn * generators + stored + sorted(set(stored) | set(settings.ipc if generators or not stored else ()))
    elif "matching" in stages:
        sets = [config.matching.ipc] * 2
    else:
        sets = drawn * 2 + list(settings.ipc)
    ceiling = 0 if "compare" in stages else conditions.all_epochs * len(dataset.train.labels)
    images = recipe.epochs * classes * sum(sets) + ceiling
    steps = sum(recipe.epochs * recipe.steps_per_epoch(classes * ipc) for ipc in sets) + ceiling // recipe.batch_size
    candidates, seeds = max(1, len(conditions.candidates)), len(settings.seeds)
    flop = seeds * candidates * images * sum(3 * _flop(arch, dataset.spec) for arch in settings.archs)
    students = seeds * len(settings.archs) * (len(sets) + bool(ceiling))
    return students, flop, seeds * candidates * len(settings.archs) * steps


def _flop(arch: str, spec: DatasetSpec) -> float:
    return flop_per_image(arch, spec.shape, spec.num_classes)


def _gan_flop(config: Config, spec: DatasetSpec) -> float:
    """Return the FLOP of one step of both networks for each image of a batch, the gradient penalty included."""
    with torch.device("meta"):
        generator = Generator(spec.shape, spec.num_classes, config.gan.width, config.gan.noise_dim)
        discriminator = Discriminator(spec.shape, spec.num_classes, config.gan.width)
        noise, labels = torch.zeros(2, config.gan.noise_dim), torch.zeros(2, dtype=torch.int64)
        of_generator = _forward_flop(generator, noise, labels)
        of_discriminator = _forward_flop(discriminator, torch.zeros(2, *spec.shape))
    penalties = 1.0 if config.gan.loss == "wgan-gp" else (config.gan.r1 > 0) / config.gan.r1_every
    return 4 * of_generator + (8 + 6 * penalties) * of_discriminator


def _forward_flop(network: nn.Module, *inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() / len(inputs[0])


def _speed() -> float:
    """Return the FLOP in a second of training, from a large matrix product on one process's threads."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.ones(1024, 1024, device=device)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        (matrix @ matrix).sum().item()
        seconds.append(time.perf_counter() - began)
    return _EFFICIENCY * 2 * 1024**3 / min(seconds)
