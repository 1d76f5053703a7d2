"""Train students, one or those of several seeds at once, and score them on the test part."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import ConfigError, stable_hash
from gdd.data.pixels import Normalizer
from gdd.data.splits import Split
from gdd.evaluation.batches import Images, PathMasks, StackedBatches, StudentBatches
from gdd.evaluation.images import Drawn, StudentImages, images_key
from gdd.evaluation.named import NO_TEACHER
from gdd.evaluation.recipe import Conditions, Job, Recipe, TeacherFile
from gdd.evaluation.row import Row
from gdd.evaluation.sources import CEILING
from gdd.losses.logits import distillation, released_distillation
from gdd.models import registry
from gdd.models.layers import Classifier
from gdd.runtime import checkpoint
from gdd.runtime.device import device_name, peak_memory_mb
from gdd.runtime.environment import git_revision, versions
from gdd.runtime.execution import EAGER, Execution
from gdd.sampling import ensemble_file
from gdd.training.average import Average
from gdd.training.classifier import (
    ANSWERED,
    Answers,
    Fit,
    Loss,
    count_correct,
    cross_entropy,
)
from gdd.training.optimizers import adamw, lion, sgd
from gdd.training.together import Stacked, each_own

logger = logging.getLogger(__name__)

TEACHERS = "teachers"  # a folder of a run's


def examined(network: nn.Module, split: Split, normalize: Normalizer, execution: Execution = EAGER) -> Answers:
    """Return how many of the images the network classifies correctly in eval mode, and how many not at all."""
    network.eval()

    def answer(images_u8: Tensor) -> Tensor:
        logits: Tensor = execution(
            network, normalize.from_u8(images_u8), compiled=len(images_u8) == ANSWERED[images_u8.device.type]
        )
        return logits

    return count_correct(answer, split.images_u8, split.labels)


def train(
    network: nn.Module,
    batches: StudentBatches | StackedBatches,
    loss: Loss = cross_entropy,
    execution: Execution = EAGER,
    masks: PathMasks | None = None,
) -> Tensor:
    """Train by the batches' recipe and return the last step's loss, or losses (S,) of a `Stacked`."""
    recipe = batches.recipe
    average = Average(network, recipe.average) if recipe.average else None
    training = Fit(
        network,
        batches.drawn,
        _optimizer(network, recipe, execution),
        lr=partial(recipe.lr_at, total=batches.total),
        loss=loss,
        prepare=batches.prepare,
        masks=masks,
        execution=execution,
        average=average,
    )
    last = training(range(batches.total))
    training.optimizer.zero_grad()  # a captured step's memory goes with them
    if average is not None:
        network.load_state_dict(average.module.state_dict())
    return last


def _optimizer(network: nn.Module, recipe: Recipe, execution: Execution) -> torch.optim.Optimizer:
    if recipe.optimizer == "lion":
        return lion(network, recipe.lr, recipe.weight_decay)
    make = adamw if recipe.optimizer == "adamw" else sgd
    return make(network, recipe.lr, execution.fused, recipe.weight_decay)


def _share(logits: Tensor, labels: Tensor, images_std: Tensor, share: float) -> Tensor:
    """What a teacher without any weight leaves of the plain loss."""
    return share * cross_entropy(logits, labels, images_std)


Candidate = tuple[float, float]  # alpha and temperature


@dataclass(frozen=True)
class Trained:
    """A student after its last step."""

    network: nn.Module  # its weights
    candidate: Candidate | None  # none without a teacher
    validated: Answers | None  # of validation images; none unless validation data choose
    train_loss: float  # of the last step
    optimizer_steps: int  # all of them
    keep_rates: tuple[float, ...] | None  # at which paths were kept, one after the other; none without DropPath
    seconds: float  # its share of training, generation included
    seconds_generating: float  # of which streams were generated; 0 if earlier students' were kept
    peak_memory_mb: float  # of training
    together: int  # students trained at once

    @property
    def merit(self) -> tuple[bool, int]:
        """What validation data choose the highest of: first that all logits are finite, then correct images."""
        return (True, 0) if self.validated is None else (self.validated.broken == 0, self.validated.correct)


@dataclass(eq=False, repr=False)
class Teacher:
    """A network whose outputs students imitate, kept in a folder."""

    network: nn.Module  # in eval mode
    folder: Path
    seconds: float = 0.0  # of its training
    accuracy: float | None = None  # percent of the test images, once they have been read

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save(self.folder, 0, {"network": self.network, "facts": self}, keep=1)

    def load(self) -> None:
        checkpoint.load(checkpoint.newest(self.folder), {"network": self.network, "facts": self})

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "accuracy": self.accuracy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.accuracy = state["seconds"], state["accuracy"]


@dataclass(eq=False, repr=False)
class Teachers:
    """The teachers of all students, and what students learn from them.

    Whoever needs one later, be it in another process, after a stop, or for students that imitate it in another way,
    finds it in the folder, where it is kept for the same code on the same device.
    """

    images: StudentImages
    conditions: Conditions
    build: Callable[[str, int, str], Classifier]  # makes a network of an architecture, a seed and a purpose
    execution: Execution  # of teachers
    folder: Path  # has a folder for each

    def __post_init__(self) -> None:
        self._teacher = lru_cache(maxsize=self.images.keep)(self._find)

    def losses(self, job: Job, constant: bool) -> tuple[dict[Candidate | None, Loss], Teacher | None]:
        """Return the loss of each candidate of alpha and temperature, and the job's teacher.

        If all steps have the same images, the teacher is asked once. One without any weight is not trained.
        """
        conditions = self.conditions
        if conditions.teacher == NO_TEACHER:
            return {None: cross_entropy}, None
        if not conditions.asks_teacher:
            return {(a, t): partial(_share, share=1 - a) for a, t in conditions.candidates}, None
        # One teacher for all students of a set and seed: the architecture must not be part of its key.
        data = replace(job, arch="") if conditions.teacher == "set" else None
        teacher = self._teacher(data, 0 if conditions.teacher_file else job.seed)
        formula = released_distillation if conditions.kd_recipe == "released" else distillation
        answered: Tensor | None = None

        def kd_loss(logits: Tensor, labels: Tensor, images_std: Tensor, alpha: float, temperature: float) -> Tensor:
            nonlocal answered
            if answered is None or not constant:
                with torch.no_grad():
                    answered = self.execution(teacher.network, images_std)
            return formula(logits, answered, labels, alpha, temperature)

        return {(a, t): partial(kd_loss, alpha=a, temperature=t) for a, t in conditions.candidates}, teacher

    def name(self, job: Job | None, seed: int) -> str:
        """Return what stands for all that decides a teacher on the job's set or stream, or on all real images."""
        data = None if job is None else (job.source.kind, job.source.hash, job.ipc, job.protocol)
        here = git_revision(), versions(), device_name(self.images.device)
        arch = self.conditions.teacher_arch
        return stable_hash(data, seed, self._recipe(job), arch, self.execution, here)

    def _recipe(self, job: Job | None) -> Recipe:
        return self.conditions.recipe_for(CEILING if job is None else job.source.kind)

    def _find(self, job: Job | None, seed: int) -> Teacher:
        """Return a teacher, that of the conditions' file or one trained by the students' recipe if nobody has."""
        if self.conditions.teacher_file is not None:
            return self._kept(self.conditions.teacher_file)
        network = self.build(self.conditions.teacher_arch, seed, rng.TEACHER)
        teacher = Teacher(network, self.folder / self.name(job, seed))
        if not checkpoint.steps(teacher.folder) or not self._loaded(teacher):
            began = time.perf_counter()
            images = self.images.all_real() if job is None else self.images.of(job).images
            batches = StudentBatches(images, self._recipe(job), seed, rng.TEACHER)
            train(network, batches, execution=self.execution)
            teacher.seconds = time.perf_counter() - began
            teacher.save()
        network.eval().requires_grad_(False)
        return teacher

    def _kept(self, file: TeacherFile) -> Teacher:
        """Return the teacher of a file, with its accuracy if the test part has been read for it."""
        ensemble = ensemble_file.load(file.path)
        if ensemble.hash != file.hash:
            raise ConfigError(f"the teacher {file.path} was changed while students learned from it; start anew")
        seconds = ensemble.provenance.get("seconds") or 0.0
        teacher = Teacher(ensemble.to(self.images.device), self.folder / file.hash, seconds)
        if checkpoint.steps(teacher.folder):
            self._loaded(teacher)
        return teacher

    def _loaded(self, teacher: Teacher) -> bool:
        try:
            teacher.load()
        except checkpoint.Damaged as error:
            logger.warning("%s; the teacher is trained or tested anew", error)
            return False
        return True

    def accuracy_of(self, teacher: Teacher | None) -> float | None:
        """Return a teacher's accuracy on the test part, which is read for it once: when its first student is scored."""
        if teacher is not None and teacher.accuracy is None:
            test = self.images.real.test()
            answers = examined(teacher.network, test, self.images.normalize, self.execution)
            teacher.accuracy = 100 * answers.correct / len(test.labels)
            teacher.save()
        return None if teacher is None else teacher.accuracy


@dataclass(eq=False, repr=False)
class StudentTrainer:
    """Trains and scores the students of one evaluation."""

    images: StudentImages
    conditions: Conditions  # recipe and teacher
    executions: Mapping[str, Execution]  # of students and teacher, by architecture
    folder: Path  # of the run, in which teachers are kept
    config_hash: str  # for the rows

    def __post_init__(self) -> None:
        archs = self.conditions.teacher_archs
        execution = self.executions[archs[0]] if archs else EAGER
        self.teachers = Teachers(self.images, self.conditions, self._build, execution, self.folder / TEACHERS)

    def untrained(self, job: Job) -> Classifier:
        """Return a job's student before its first step."""
        drops = self.conditions.recipe_for(job.source.kind).keep_rate(job.arch) is not None
        return self._build(job.arch, job.seed, rng.STUDENT, drops)

    def trained(self, job: Job) -> nn.Module:
        """Return a job's student after its last step; nothing may be left to choose on validation images."""
        batches = self._batches(job, self.images.of(job).images)
        ((candidate, loss),) = self.teachers.losses(job, batches.constant)[0].items()
        return self._train([job], [batches], candidate, [loss])[0].network

    def _batches(self, job: Job, images: Images) -> StudentBatches:
        return StudentBatches(images, self.conditions.recipe_for(job.source.kind), job.seed, rng.STUDENT)

    def _build(self, arch: str, seed: int, who: str, drop_path: bool = False) -> Classifier:
        spec = self.images.spec
        with rng.seeded(seed, f"{rng.INIT}-{who}"):
            network = registry.build(arch, spec.shape, spec.num_classes, drop_path)
        self.executions[arch].place(network.to(self.images.device))
        return network

    def score(self, jobs: Sequence[Job]) -> list[Row]:
        """Train the jobs' students, then read the test part, and return their rows.

        A student's initialisation, its order of images and its augmentation depend on the seed alone, so rows of one
        seed and architecture differ by their images only. Among candidates, the first of those that classify most
        validation images correctly, and all of them with finite logits if any does, is the student; no other is scored
        on the test part.

        Args:
            jobs: at least one. Several, which must differ by their seeds only, are trained at once.
        """
        began = time.perf_counter()
        draw = cache(self.images.of)  # a set that all have in common is on the device once
        drawn = [draw(images_key(job)) for job in jobs]
        seconds_drawing = time.perf_counter() - began
        batches = [self._batches(job, images) for job, (images, _) in zip(jobs, drawn, strict=True)]
        taught = [self.teachers.losses(job, own.constant) for job, own in zip(jobs, batches, strict=True)]
        began = time.perf_counter()
        best: list[Trained] = []
        for candidate in taught[0][0]:
            losses = [losses[candidate] for losses, _ in taught]
            trained = self._train(jobs, batches, candidate, losses)
            best = [max(both, key=lambda student: student.merit) for both in zip(best or trained, trained, strict=True)]
        seconds = time.perf_counter() - began + seconds_drawing
        return [
            self._row(
                job,
                student,
                own_images,
                teacher,
                seconds_drawing=seconds_drawing / len(jobs),
                seconds=seconds / len(jobs),
            )
            for job, student, own_images, (_, teacher) in zip(jobs, best, drawn, taught, strict=True)
        ]

    def _train(
        self,
        jobs: Sequence[Job],
        batches: Sequence[StudentBatches],
        candidate: Candidate | None,
        losses: Sequence[Loss],
    ) -> list[Trained]:
        """Train one candidate of each job; all of a job have the same first weights and see the same batches."""
        execution, data = self.executions[jobs[0].arch], [own.data for own in batches]
        rate, device = batches[0].recipe.keep_rate(jobs[0].arch), self.images.device
        networks = [self.untrained(job) for job in jobs]
        masks = None
        if rate is not None and networks[0].paths:
            masks = PathMasks(rate, networks[0].paths, batches[0].total, [job.seed for job in jobs], device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began, generated_before = time.perf_counter(), sum(images.seconds_generating for images in data)
        if len(jobs) == 1:
            train_losses = train(networks[0], batches[0], losses[0], execution, masks)[None]
        else:
            stacked = Stacked(networks)
            train_losses = train(stacked, StackedBatches(batches), each_own(losses), execution, masks)
            stacked.give_back()
        last_losses = train_losses.tolist()  # waits for the device
        seconds = (time.perf_counter() - began) / len(jobs)
        generating = (sum(images.seconds_generating for images in data) - generated_before) / len(jobs)
        memory = peak_memory_mb(device)
        validated: list[Answers | None] = [None] * len(jobs)
        if self.conditions.selects:
            val, normalize = self.images.real.val, self.images.normalize
            validated = [examined(network, val, normalize, execution) for network in networks]
        return [
            Trained(
                network=network,
                candidate=candidate,
                validated=answers,
                train_loss=train_loss,
                optimizer_steps=batches[0].total,
                keep_rates=None if masks is None else tuple(masks.in_force),
                seconds=seconds,
                seconds_generating=generating,
                peak_memory_mb=memory,
                together=len(jobs),
            )
            for network, answers, train_loss in zip(networks, validated, last_losses, strict=True)
        ]

    def _row(
        self,
        job: Job,
        best: Trained,
        drawn: Drawn,
        teacher: Teacher | None,
        *,
        seconds_drawing: float,
        seconds: float,
    ) -> Row:
        """Read the test part and return the row of a student that took so many seconds with its other candidates."""
        conditions, (data, stored) = self.conditions, drawn
        recipe = conditions.recipe_for(job.source.kind)
        seconds_selecting = seconds - seconds_drawing - best.seconds if conditions.selects else 0.0
        seconds_drawing = seconds_drawing if stored is not None else 0.0
        # A stream that an earlier student of the seed has generated costs this one the same.
        generating = best.seconds_generating or data.seconds_generating
        test = self.images.real.test()
        total = len(test.labels)
        execution = self.executions[job.arch]
        correct, broken = examined(best.network, test, self.images.normalize, execution)
        failure = None
        if broken:
            failure = (
                f"logits of {broken:,} of {total:,} test images are not finite after {best.optimizer_steps:,} steps, "
                f"last loss {best.train_loss:.4g}"
            )
        soft = stored is not None and stored.soft_labels is not None
        alpha, temperature = best.candidate or (None, None)
        source, validated = job.source, best.validated
        return Row(
            source=source.label,
            kind=source.kind,
            method=source.provenance.get("method"),
            stage=source.provenance.get("stage"),
            arch=job.arch,
            seed=job.seed,
            ipc=job.ipc,
            protocol=job.protocol,
            accuracy=None if failure else 100 * correct / total,
            validation_accuracy=None
            if validated is None
            else 100 * validated.correct / len(self.images.real.val.labels),
            correct=correct,
            total=total,
            recipe=recipe.name,
            augment=recipe.augment,
            label_kind=conditions.label_kind(job.protocol, "stored soft" if soft else "hard"),
            alpha=alpha,
            temperature=temperature,
            epochs=recipe.epochs_begun(data.count),
            images=data.count,
            distinct_images_seen=data.distinct(recipe.images_seen(data.count)),
            bytes=self.images.bytes_of(source, stored)
            + (source.ensemble.bytes if source.ensemble and stored is None else 0)
            + (conditions.teacher_file.bytes if conditions.teacher_file else 0),
            optimizer_steps=best.optimizer_steps,
            images_per_step=min(recipe.batch_size, data.count),
            train_loss=best.train_loss,
            seconds=round(seconds_drawing + best.seconds - best.seconds_generating + generating, 3),
            seconds_generating=round(seconds_drawing + generating, 3),
            seconds_teacher=0.0 if teacher is None else round(teacher.seconds, 3),
            seconds_selecting=round(seconds_selecting, 3),
            peak_memory_mb=best.peak_memory_mb,
            device=device_name(self.images.device),
            precision=execution.precision,
            compiled=execution.compiled,
            together=best.together,
            generator_seconds=source.provenance.get("seconds"),
            set_hash=None if stored is None else stored.hash,
            source_hash=source.hash,
            source_revision=source.revision,
            recipe_hash=conditions.hash,
            config_hash=self.config_hash,
            git_revision=git_revision(),
            versions=versions(),
            dataset=self.images.spec.name,
            distillation_seed=source.distillation_seed,
            failure=failure,
            keep_rates=best.keep_rates,
            teacher_accuracy=self.teachers.accuracy_of(teacher),
            pretrained=registry.pretrained_among([job.arch, *conditions.teacher_archs, source.networks]),
        )
