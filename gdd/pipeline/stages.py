"""One record per stage: what it will do, which networks it builds, and how it is done, once in its run folder."""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator

from gdd import zoo
from gdd.checks import pool_members
from gdd.config import Config, ConfigError, stable_hash, stages, to_plain
from gdd.data.readers import Dataset
from gdd.data.spec import DatasetSpec
from gdd.evaluation import dd_ranking
from gdd.evaluation.grid import estimated_cost, grouped
from gdd.evaluation.recipe import Conditions, Job, resolve_recipe
from gdd.evaluation.sources import LOSS_NAMES
from gdd.models.cost import TRAINING, classifier_flop, gan_flop_of
from gdd.models.gan import width_of
from gdd.runtime import checkpoint
from gdd.runtime.run import Run
from gdd.runtime.workers import Team
from gdd.sampling import ensemble_file, generator_file, set_file
from gdd.training import distil, ensemble, generator_choice, guidance, matching

logger = logging.getLogger(__name__)


class Scope(NamedTuple):
    """What the work of a stage depends on."""

    config: Config
    dataset: Dataset
    jobs: Sequence[Job]  # the students to score
    team: Team  # that trains them
    device: torch.device = torch.device("cpu")  # of this process


@dataclass(frozen=True)
class Work:
    """What a stage will do, in words and in numbers, as if on this process's threads."""

    text: str
    flop: float
    gan_steps: int = 0  # adversarial ones
    student_steps: float = 0  # of classifiers
    of_gan: bool = False  # whether its FLOP are executed in the precision of the GAN, not in float32


class Networks(NamedTuple):
    """Classifiers that a stage builds, of one purpose."""

    purpose: str
    archs: Sequence[str]
    batch_size: int


@dataclass(frozen=True)
class Stage:
    """What tells a stage from others."""

    work: Callable[[Scope], Work]
    networks: Callable[[Config, DatasetSpec], Networks] | None = None  # classifiers; none: it builds none
    train: Callable[..., Path] | None = None  # none of what scores or measures
    has_gan: bool = False
    has_card: bool = True  # whether one is written beside its file
    students: Callable[[list[Job]], list[Job]] | None = None  # that it trains of those planned
    has_ceiling: bool = False  # whether students of all real images are planned unless they are named


def _gan_work(stage: str, text: str, scope: Scope) -> Work:
    """Return the work of pretraining or refinement, the proxy's students included."""
    config, spec = scope.config, scope.dataset.spec
    section = stages.steps_of(config, stage)
    steps, batch_size = section.steps, section.batch_size
    student_steps, proxy_flop = generator_choice.proxy_work(config, steps, spec)
    flop = distil.adversarial_flop(config, stage, spec) + proxy_flop
    if stage == stages.REFINE:
        flop += guidance.guidance_flop(config, spec)
    return Work(f"{text}: {steps:,} x {batch_size} images", flop, steps, student_steps, of_gan=True)


def _pretrain_work(scope: Scope) -> Work:
    return _gan_work(stages.PRETRAIN, "pretrain a GAN", scope)


def _refine_work(scope: Scope) -> Work:
    settings = scope.config.refine
    start = "it" if settings.pretrained is None else f"the generator of {settings.pretrained}"
    return _gan_work(stages.REFINE, f"refine {start} ({LOSS_NAMES[settings.loss]})", scope)


def _ensemble_work(scope: Scope) -> Work:
    settings = scope.config.ensemble
    text = f"train {len(settings.archs)} classifiers: {settings.steps:,} x {settings.batch_size} images each"
    flop = ensemble.ensemble_flop(settings, scope.dataset.spec)
    return Work(text, flop, student_steps=settings.steps * len(settings.archs))


def _matching_work(scope: Scope) -> Work:
    settings, spec = scope.config.matching, scope.dataset.spec
    text = f"{matching.method_name(settings)}: {settings.iterations:,} iterations at {settings.ipc} per class"
    updates = matching.updates_of(settings, spec.num_classes)
    return Work(text, matching.matching_flop(settings, spec), student_steps=updates)


def _audit_work(scope: Scope) -> Work:
    spec, count = scope.dataset.spec, len(scope.dataset.train.labels)
    samples = scope.config.evaluate.ipc[0] * spec.num_classes
    pairs = (samples + max(len(scope.dataset.val.labels), count // 10)) * count  # all other pairs are few
    # In float64, half as fast.
    return Work(f"compare {samples:,} samples with training and held-out images", 4 * pairs * math.prod(spec.shape))


def _students_work(text: str, students: Sequence[tuple[Conditions, Job]], scope: Scope) -> Work:
    config, spec, count = scope.config, scope.dataset.spec, len(scope.dataset.train.labels)
    steps, streams = 0, set[tuple[str, int, int]]()
    alone = {job for group in grouped([job for _, job in students], scope.device) for job in group[:1]}
    for conditions, job in students:
        images, recipe = job.images(spec, count), conditions.recipe_for(job.source.kind)
        if job in alone:  # a stack's steps are one student's
            steps += recipe.total_steps(images)
        if job.protocol == "stream" and job.source.kind == "generator":  # generated once for all students of a seed
            streams.add((job.source.hash, job.seed, recipe.epochs_begun(images) * images))
    making, _ = gan_flop_of(config.gan, spec.shape, spec.num_classes)
    flop = TRAINING * sum(estimated_cost(job, conditions, spec, count) for conditions, job in students)
    for conditions, job in students:
        if conditions.teacher_file is not None:  # it answers to every batch
            seen = conditions.recipe_for(job.source.kind).images_seen(job.images(spec, count))
            members = conditions.teacher_archs
            flop += seen * sum(classifier_flop(arch, spec.shape, spec.num_classes) for arch in members)
    flop += making * sum(images for _, _, images in streams)
    team = scope.team
    flop *= torch.get_num_threads() / (team.workers * team.threads)
    return Work(text, flop, student_steps=steps / team.workers)


def _evaluate_work(scope: Scope) -> Work:
    conditions = Conditions.of(scope.config.evaluate, scope.dataset.spec)
    at_once = f", {scope.team.workers} at once" if scope.team.workers > 1 else ""
    text = f"train and score {len(scope.jobs)} students{at_once}"
    return _students_work(text, [(conditions, job) for job in scope.jobs], scope)


def _dd_ranking_work(scope: Scope) -> Work:
    spec, count = scope.dataset.spec, len(scope.dataset.train.labels)
    students = dd_ranking.extra_students(scope.config.evaluate, scope.jobs, spec, count)
    return _students_work(f"train and score {len(students)} more for DD-Ranking's scores", students, scope)


def _landscape_work(scope: Scope) -> Work:
    (job,) = scope.jobs
    text = f"train {job.arch} and find the largest eigenvalues of its loss's Hessian, which takes longer"
    return _students_work(text, [(Conditions.of(scope.config.evaluate, scope.dataset.spec), job)], scope)


def _guiding_pool(config: Config, spec: DatasetSpec) -> Networks:
    members = pool_members(config) if config.refine.guided else ()
    return Networks("pool", members, config.refine.pool.batch_size)


def _fresh_pool(config: Config, spec: DatasetSpec) -> Networks:
    return Networks("pool", pool_members(config), config.matching.batch_real)


def _judges(config: Config, spec: DatasetSpec) -> Networks:
    return Networks("ensemble", config.ensemble.archs, config.ensemble.batch_size)


def _students(config: Config, spec: DatasetSpec) -> Networks:
    recipe = resolve_recipe(config.evaluate.recipe, spec.flip)
    batch_size = min(recipe.batch_size, max(config.evaluate.ipc) * spec.num_classes)
    return Networks("student", config.evaluate.archs, batch_size)


STAGES = {
    stages.PRETRAIN: Stage(_pretrain_work, train=distil.distil, has_gan=True),
    stages.REFINE: Stage(_refine_work, _guiding_pool, distil.distil, has_gan=True),
    stages.MATCHING: Stage(_matching_work, _fresh_pool, matching.distil_pixels),
    stages.ENSEMBLE: Stage(_ensemble_work, _judges, ensemble.train_judges, has_card=False),
    stages.EVALUATE: Stage(_evaluate_work, _students, students=list, has_ceiling=True),
    stages.COMPARE: Stage(_evaluate_work, _students, students=list),
    stages.DD_RANKING: Stage(_dd_ranking_work),
    # The floor's job comes first; only the last is kept.
    stages.LANDSCAPE: Stage(_landscape_work, _students, students=lambda jobs: jobs[-1:]),
    stages.AUDIT: Stage(_audit_work),
}


def open_run(config: Config, stage: str, fingerprint: str, accelerator: Accelerator, part: str = "") -> Run:
    """Return the run in a stage's folder, or in a part of it, to be entered."""
    folder = config.run.root / config.name / stage / part
    return Run(folder, config.run, to_plain(config), fingerprint, accelerator)


def _run_stage(
    stage: str, config: Config, dataset: Dataset, accelerator: Accelerator, start: Path | None = None
) -> Path:
    """Do a stage's work unless its folder holds the result already, and return the folder.

    The fingerprint counts every setting that decides the stage's result, the content of the dataset, and the weights of
    the generator `start`.
    """
    record, start_hash = STAGES[stage], None if start is None else generator_file.load(start).hash
    parts = stage, stages.decisive(config, stage), dataset.spec.to_dict(), dataset.fingerprint, start_hash
    assert record.train is not None
    with open_run(config, stage, stable_hash(*parts), accelerator) as run:
        files = generator_file.FILE, set_file.FILE, ensemble_file.FILE
        if any((run.folder / name).exists() for name in files):
            logger.info("%s: finished before", run.folder)
        else:
            # Of both stages of the GAN that is distil.distil, which refines if it is given a start.
            record.train(config, dataset, run, *([] if start is None else [start]))
        if run.is_main and record.has_card:
            from gdd.report import card

            card.write(run.folder)
    return run.folder


def train_gan(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Pretrain the GAN, or find it done, and return the run folder."""
    return _run_stage(stages.PRETRAIN, config, dataset, accelerator)


def train_ensemble(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Train the classifiers that judge samples, or find them done, and return the run folder."""
    return _run_stage(stages.ENSEMBLE, config, dataset, accelerator)


def distill(config: Config, dataset: Dataset, accelerator: Accelerator) -> Path:
    """Distil by the config's method and return the run folder of the generator or the set."""
    if config.method == "matching":
        matching.check_first_images(config, dataset)  # a folder that is claimed would refuse other settings
        return _run_stage(stages.MATCHING, config, dataset, accelerator, config.matching.generator)
    guidance.check_others(config, dataset)
    start = config.refine.pretrained or train_gan(config, dataset, accelerator)
    _check_start(config, dataset, start)
    folder = _run_stage(stages.REFINE, config, dataset, accelerator, start)
    if config.ensemble.teaches:
        _put_teacher(train_ensemble(config, dataset, accelerator), folder, accelerator)
    return folder


def _put_teacher(trained: Path, folder: Path, accelerator: Accelerator) -> None:
    """Put a trained ensemble beside a generator, whose card tells of it then."""
    if accelerator.is_main_process:
        from gdd.report import card

        teacher = folder / zoo.TEACHER
        checkpoint.write_atomically(teacher, partial(shutil.copyfile, trained / ensemble_file.FILE))
        logger.info("wrote %s", teacher)
        card.write(folder)
    accelerator.wait_for_everyone()


def _check_start(config: Config, dataset: Dataset, start: Path) -> None:
    """Refuse a pretrained GAN that is missing, is this run's refined one, or was made for other data or sizes."""
    what = f"refine.pretrained {start}"
    if not checkpoint.steps(start):
        raise ConfigError(f"{what} holds no checkpoint, expected a finished run folder of gdd train-gan")
    if start.resolve() == (config.run.root / config.name / stages.REFINE).resolve():
        raise ConfigError(f"refine.pretrained is {str(start)!r}, where this run would write; choose another --name")
    pretrained = generator_file.load(start)
    set_file.check_matches(pretrained.spec, dataset.spec, what)
    settings = pretrained.provenance.get("config", {}).get("gan", {})
    if not isinstance(pretrained.provenance.get("seconds"), int | float) or not settings:
        raise ConfigError(f"{what} does not say how it was made, expected one of gdd train-gan")
    gan, made = config.gan, pretrained.generator
    used: dict[str, object] = {
        "arch": made.arch,
        "width": made.width,
        "noise_dim": made.noise_dim,
        "loss": settings.get("loss"),
    }
    width = width_of(gan, dataset.spec.shape)
    wanted: dict[str, object] = {"arch": gan.arch, "width": width, "noise_dim": gan.noise_dim, "loss": gan.loss}
    decays = settings.get("ema_decays", gan.ema_decays)  # 0.1.0 had one, which may go on with another
    if len(decays) > 1 or len(gan.ema_decays) > 1:
        used["ema_decays"], wanted["ema_decays"] = list(decays), list(gan.ema_decays)
    for key, value in wanted.items():
        if used[key] != value:
            raise ConfigError(f"gan.{key} is {value!r}, but {what} was made with {used[key]!r}")
