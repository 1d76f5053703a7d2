"""How sharp the minimum is that a student has found: train it, then measure the curvature of its training loss."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gdd.data.readers import Dataset
from gdd.evaluation import curvature
from gdd.evaluation.curvature import WeightLoss
from gdd.evaluation.grid import executions_of
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.student import RealImages, StudentTrainer
from gdd.runtime import checkpoint
from gdd.runtime.run import Run, progress_bar
from gdd.runtime.signals import Stopped, is_due

logger = logging.getLogger(__name__)

STAGE, RESULT = "landscape", "landscape.json"
STEPS = 12  # of the surface from the student to either side, along each of two eigenvectors


@dataclass(frozen=True)
class Landscape:
    """What was found of one student's loss: mean cross-entropy on its images, not augmented, in eval mode."""

    source: str  # what it was trained on
    arch: str
    seed: int  # of the student
    recipe: str
    label_kind: str  # what it learned from; the loss is that of the labels alone
    weights: int
    loss: float
    eigenvalues: list[float]  # of the Hessian, the largest ones, descending
    distances: list[float]  # along both eigenvectors, of length 1
    surface: list[list[float]]  # loss at distances[i] along the first and distances[j] along the second


def measure(job: Job, conditions: Conditions, dataset: Dataset, run: Run, count: int, reach: float) -> Landscape:
    """Train a student, or find it trained, and return what its loss looks like; the test part is not read.

    Args:
        job: the student, on stored images.
        conditions: how it is trained, with one candidate at most.
        dataset: the real images.
        run: the student goes to its folder, and so does the result.
        count: eigenvalues, at least 2 and fewer than the student has weights.
        reach: how far the surface goes along an eigenvector.

    Raises:
        ConfigError: the student has too few weights.
        Stopped: a signal came, or run.max_minutes were over; the same call goes on with the student, once trained.
    """
    real = RealImages(dataset.train.to(run.device), dataset.val.to(run.device), dataset.test)
    executions = executions_of([job], conditions, dataset, run, processes=1)
    trainer = StudentTrainer(real, dataset.spec, conditions, executions, run.device, config_hash="", keep=1)
    images_std, labels = trainer.images(job).batch(0, None)
    loss = WeightLoss(_student(trainer, job, run), images_std, labels)
    size = len(loss.weights)
    with progress_bar(run.is_main) as progress:
        products = progress.add_task("products with the Hessian", total=None)

        def times(vector: Tensor) -> Tensor:
            if is_due(run.settings.max_minutes):
                raise Stopped(f"landscape: stopped; the same command goes on with the student in {run.folder}")
            progress.advance(products)
            return loss.hessian_times(vector)

        eigenvalues, eigenvectors = curvature.top_eigenpairs(times, size, count, run.device)
    distances = torch.arange(-STEPS, STEPS + 1, dtype=torch.float64) * (reach / STEPS)
    found = Landscape(
        source=job.source.label,
        arch=job.arch,
        seed=job.seed,
        recipe=conditions.recipe_for(job.source.kind).name,
        label_kind=conditions.label_kind(job.protocol, "hard" if labels.ndim == 1 else "stored soft"),
        weights=size,
        loss=loss.at(loss.weights),
        eigenvalues=eigenvalues.tolist(),
        distances=distances.tolist(),
        surface=curvature.surface(loss, eigenvectors[:2], distances).tolist(),
    )
    checkpoint.write_json(run.folder / RESULT, found.__dict__)
    return found


def _student(trainer: StudentTrainer, job: Job, run: Run) -> nn.Module:
    if checkpoint.steps(run.folder):
        network = trainer.untrained(job)
        checkpoint.load(checkpoint.newest(run.folder), {"network": network})
        logger.info("landscape: the student was trained before")
        return network
    trained = trainer.trained(job)
    images = job.images(trainer.spec, len(trainer.real.train.labels))
    steps = trainer.conditions.recipe_for(job.source.kind).total_steps(images)
    checkpoint.save(run.folder, steps, {"network": trained}, keep=1)
    return trained
