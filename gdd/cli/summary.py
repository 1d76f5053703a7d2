"""What a command says before it works: what it does, on which data and machine, for how long, and where results go."""

import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from gdd import pipeline
from gdd.config import Config
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation.grid import enumerate_jobs, estimated_cost, flop_per_image
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.sources import CEILING, FLOOR, Source, complete
from gdd.models.gan import Discriminator, Generator
from gdd.runtime.device import device_name
from gdd.training import matching

# What is left of a large matrix product's speed in training steps, and the seconds of a step's many small calls:
# fitted once to digits and CIFAR-10 on CPUs. Estimates are meant to tell minutes from hours.
_EFFICIENCY, _GAN_STEP, _STUDENT_STEP = 0.4, 0.03, 0.001


def block(
    config: Config, dataset: Dataset, accelerator: Accelerator, stages: Sequence[str], sources: Sequence[Source] = ()
) -> str:
    """Return the lines that a command begins with; without `sources`, it scores what it distils itself."""
    spec = dataset.spec
    work, seconds = zip(*(_work(stage, config, dataset, stages, sources) for stage in stages), strict=True)
    minutes = sum(seconds) / 60 / accelerator.num_processes
    processes = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    classes = f"{spec.num_classes} classes of {spec.height}x{spec.width}x{spec.channels}"
    images = f"{len(dataset.train.labels):,} training and {len(dataset.val.labels):,} validation images"
    pixels = f"mean {', '.join(map(str, spec.mean))}, std {', '.join(map(str, spec.std))}"
    lines = {
        "work": "; ".join(work),
        "data": f"{spec.name}: {classes}, {images}; {pixels}",
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
    spec, settings = dataset.spec, config.matching
    members = [flop_per_image(name, spec.shape, spec.num_classes) for name in pipeline.pool_members(config)]
    member = sum(members) / len(members)  # forward, for one image; three times as much with its gradient
    if stage == "pretrain":
        steps, batch = config.pretrain.steps, config.pretrain.batch_size
        text, seconds = f"pretrain a GAN, {steps:,} steps of {batch}", steps * _GAN_STEP
        flop = steps * batch * _gan_flop(config, spec)
    elif stage == "refine":
        steps, batch, pool = config.refine.steps, config.refine.batch_size, config.refine.pool
        text, seconds = f"refine its generator, {steps:,} steps of {batch}", steps * _GAN_STEP
        learned = pool.steps_between * pool.batch_size
        flop = steps * (batch * (_gan_flop(config, spec) + 4 * member) + 3 * learned * member)
    elif stage == "matching":
        outer, inner = matching.loops(settings.ipc, settings.outer, settings.inner)
        updates = settings.iterations * (outer if settings.objective == "gradient" else 1) * spec.num_classes
        text = f"{matching.method_name(settings)}, {settings.iterations:,} iterations at {settings.ipc} per class"
        # The gradient of a gradient costs about three times as much as that.
        seconds, flop = updates * _STUDENT_STEP, updates * (3 * settings.batch_real + 9 * settings.ipc) * member
        flop += updates * inner * settings.ipc * 3 * member * (settings.objective == "gradient")
    else:
        jobs, conditions = _jobs(config, dataset, stages, sources), Conditions.of(config.evaluate, spec)
        count = len(dataset.train.labels)
        images = {job: count if job.ipc is None else job.ipc * spec.num_classes for job in jobs}
        recipes = {job: conditions.recipe_for(job.source.kind) for job in jobs}
        steps = sum(recipes[job].epochs * recipes[job].steps_per_epoch(images[job]) for job in jobs)
        text, seconds = f"{stage} by {len(jobs)} students", steps * _STUDENT_STEP
        flop = 3 * sum(estimated_cost(job, conditions, spec, count) for job in jobs)
    return text, seconds + flop / _speed()


def _jobs(config: Config, dataset: Dataset, stages: Sequence[str], sources: Sequence[Source]) -> list[Job]:
    """Return the students of an evaluation; what is to be distilled first is stood in for."""
    settings = config.evaluate
    if not sources and "matching" in stages:
        floor_ipcs: tuple[int, ...] = (config.matching.ipc,)
        sources = [Source("floor", FLOOR, ""), Source("set", FLOOR, ""), Source(CEILING, CEILING, "")]
    elif not sources:
        floor_ipcs, generators = settings.ipc, [Source(name, "generator", "") for name in ("pretrained", "refined")]
        sources = [Source(FLOOR, FLOOR, ""), *generators, Source(CEILING, CEILING, "")]
    else:
        sources, floor_ipcs = complete(sources, settings.ipc, dataset, ceiling="compare" not in stages)
    return enumerate_jobs(sources, settings.ipc, floor_ipcs, settings.protocols, settings.archs, settings.seeds)


def _gan_flop(config: Config, spec: DatasetSpec) -> float:
    """Return the FLOP of one step of both networks for each image of a batch, the gradient penalty included."""
    with torch.device("meta"):
        generator = Generator(spec.shape, spec.num_classes, config.gan.width, config.gan.noise_dim)
        discriminator = Discriminator(spec.shape, spec.num_classes, config.gan.width)
        noise, labels = torch.zeros(2, config.gan.noise_dim), torch.zeros(2, dtype=torch.int64)
        with FlopCounterMode(display=False) as of_generator:
            images = generator(noise, labels)
        with FlopCounterMode(display=False) as of_discriminator:
            discriminator(images)
    penalties = 1.0 if config.gan.loss == "wgan-gp" else (config.gan.r1 > 0) / config.gan.r1_every
    return (4 * of_generator.get_total_flops() + (8 + 6 * penalties) * of_discriminator.get_total_flops()) / 2


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
