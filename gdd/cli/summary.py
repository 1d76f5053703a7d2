"""What a command says before it works: what it does, on which data and machine, for how long, and where results go."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator

from gdd.checks import pool_members
from gdd.config import Config
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation import dd_ranking
from gdd.evaluation.grid import estimated_cost
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.sources import LOSS_NAMES
from gdd.models.cost import TRAINING, classifier_flop, gan_flop, gan_step_flop
from gdd.models.gan import width_of
from gdd.runtime import speed as machine
from gdd.runtime.device import device_name
from gdd.runtime.execution import resolve
from gdd.runtime.workers import Team, team_for
from gdd.training import matching

# The share of a large matrix product's speed that training reaches, and the seconds of a step's many small calls, both
# fitted once to runs on two CPU cores. Estimates are meant to tell minutes from hours.
_EFFICIENCY, _GAN_STEP, _STUDENT_STEP = 0.4, 0.03, 0.001
BUSY = 1.5  # times as long as alone, from which on it is told


class Speed(NamedTuple):
    """The FLOP in a second of training."""

    gan: float  # of generators and discriminators, in the precision that they are executed in
    others: float  # of students, which are so narrow that bfloat16 gives them little: as in float32
    busy: float = 1.0  # times as long as on a machine that does nothing else, at least 1


class _Work(NamedTuple):
    """What a stage does, as if on this process's threads."""

    text: str
    seconds: float  # of its many small calls
    flop: float
    of_gan: bool = False


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
    lines = [("work" if index == 0 else "", text) for index, (text, *_) in enumerate(works)]
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
) -> list[_Work]:
    team = team_for(config.run, accelerator.device, accelerator.num_processes, len(jobs))
    return [_work(stage, config, dataset, jobs, team) for stage in stages]


def _minutes(works: Sequence[_Work], at: Speed) -> float:
    return sum(work.seconds + work.flop / (at.gan if work.of_gan else at.others) for work in works) / 60


def rounded(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 60 / 24:.0f} days"


def as_busy(minutes: float, at: Speed) -> str:
    """Say how long it takes if others go on using the machine."""
    return f"{rounded(minutes * at.busy)} if the machine stays as busy as it is"


def step_flop(stage: str, config: Config, spec: DatasetSpec) -> float:
    """Return the FLOP of a step of pretrain or refine."""
    both = gan_step_flop(*_gan_flop(config, spec), config.gan.penalties)
    if stage == "pretrain":
        return config.pretrain.batch_size * both
    if not config.refine.matches:
        return config.refine.batch_size * both
    asked = config.refine.images_asked / config.refine.steps
    return config.refine.batch_size * both + TRAINING * asked * _member_flop(config, spec)


def _gan_flop(config: Config, spec: DatasetSpec) -> tuple[float, float]:
    gan = config.gan
    return gan_flop(gan.arch, spec.shape, spec.num_classes, width_of(gan, spec.shape), gan.noise_dim)


def _member_flop(config: Config, spec: DatasetSpec) -> float:
    """Return the FLOP of a pool member's answer to an image; three times as much with its gradient."""
    members = [classifier_flop(name, spec.shape, spec.num_classes) for name in pool_members(config)]
    return sum(members) / len(members)


def _adversarial(stage: str, steps: int, config: Config, spec: DatasetSpec) -> tuple[float, float]:
    """Return the seconds of the small calls and the FLOP of pretrain or refine, the proxy's students included."""
    proxy = config.gan.proxy
    learned = proxy.steps * len(config.gan.ema_decays) * -(-steps // proxy.every) if proxy.every else 0
    each = TRAINING * classifier_flop(proxy.arch, spec.shape, spec.num_classes) + _gan_flop(config, spec)[0]
    flop = steps * step_flop(stage, config, spec) + learned * proxy.batch_size * each
    return steps * _GAN_STEP + learned * _STUDENT_STEP, flop


def _work(stage: str, config: Config, dataset: Dataset, jobs: Sequence[Job], team: Team) -> _Work:
    spec, settings, count = dataset.spec, config.matching, len(dataset.train.labels)
    if stage == "pretrain":
        steps, batch = config.pretrain.steps, config.pretrain.batch_size
        text = f"pretrain a GAN: {steps:,} x {batch} images"
        return _Work(text, *_adversarial(stage, steps, config, spec), of_gan=True)
    if stage == "refine":
        steps, batch = config.refine.steps, config.refine.batch_size
        start = "it" if config.refine.pretrained is None else f"the generator of {config.refine.pretrained}"
        how = LOSS_NAMES[config.refine.loss]
        text = f"refine {start} ({how}): {steps:,} x {batch} images"
        return _Work(text, *_adversarial(stage, steps, config, spec), of_gan=True)
    if stage == "ensemble":
        judges = config.ensemble
        flop = sum(classifier_flop(arch, spec.shape, spec.num_classes) for arch in judges.archs)
        text = f"train {len(judges.archs)} classifiers: {judges.steps:,} x {judges.batch_size} images each"
        steps = judges.steps * len(judges.archs)
        return _Work(text, steps * _STUDENT_STEP, TRAINING * judges.steps * judges.batch_size * flop)
    if stage == "matching":
        outer, inner = matching.loops(settings.ipc, settings.outer, settings.inner)
        outer, inner = (outer, inner) if settings.objective == "gradient" else (1, 0)
        updates = settings.iterations * outer * spec.num_classes
        # The gradient of a gradient costs about three times as much as that.
        images = 3 * settings.batch_real + (9 + 3 * inner) * settings.ipc
        text = f"{matching.method_name(settings)}: {settings.iterations:,} iterations at {settings.ipc} per class"
        return _Work(text, updates * _STUDENT_STEP, updates * images * _member_flop(config, spec))
    if stage == "audit":
        samples, held_out = config.evaluate.ipc[0] * spec.num_classes, max(len(dataset.val.labels), count // 10)
        pairs = (samples + held_out) * count  # all other pairs are few
        text = f"compare {samples:,} samples with training and held-out images"
        return _Work(text, 0, 2 * 2 * pairs * math.prod(spec.shape))  # in float64, half as fast
    conditions = Conditions.of(config.evaluate, spec)
    students = [(conditions, job) for job in jobs]
    if stage == "dd-ranking":
        students = dd_ranking.more(config.evaluate, jobs, spec, count)
    steps, streams = 0, set()
    for conditions, job in students:
        images, recipe = job.images(spec, count), conditions.recipe_for(job.source.kind)
        steps += recipe.total_steps(images)
        if job.protocol == "stream" and job.source.kind == "generator":  # generated once for all students of a seed
            streams.add((job.source.hash, job.seed, recipe.epochs_begun(images) * images))
    flop = 3 * sum(estimated_cost(job, conditions, spec, count) for conditions, job in students)
    flop += _gan_flop(config, spec)[0] * sum(images for _, _, images in streams)
    at_once = f", {team.workers} at once" if team.workers > 1 else ""
    flop *= torch.get_num_threads() / (team.workers * team.threads)
    if stage == "landscape":
        text = f"train {jobs[0].arch} and find the largest eigenvalues of its loss's Hessian, which takes longer"
        return _Work(text, steps * _STUDENT_STEP, flop)
    how = " more for DD-Ranking's scores" if stage == "dd-ranking" else f" students{at_once}"
    return _Work(f"train and score {len(students)}{how}", steps * _STUDENT_STEP / team.workers, flop)


def speed(config: Config, device: torch.device) -> Speed:
    """Measure large matrix products on this process's threads, as if nobody else worked on the machine."""
    own = getattr(torch, resolve(config.run.precision, device))
    products = {dtype: machine.matrix_product_taken(device, dtype) for dtype in {own, torch.float32}}
    rates = {dtype: _EFFICIENCY * work / took.alone for dtype, (work, took) in products.items()}
    busy = max(took.now / took.alone for _, took in products.values())
    return Speed(rates[own], rates[torch.float32], max(1.0, busy))
