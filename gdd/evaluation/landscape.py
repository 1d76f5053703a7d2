"""How sharp the minimum is that a student has found: train it, then measure the curvature of its training loss."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdd import rng
from gdd.config import ConfigError
from gdd.data.mapped import MappedImages
from gdd.data.readers import Dataset
from gdd.evaluation.grid import executions_of
from gdd.evaluation.images import RealImages, StudentImages
from gdd.evaluation.recipe import Conditions, Job
from gdd.evaluation.sources import CEILING
from gdd.evaluation.student import StudentTrainer
from gdd.runtime import checkpoint
from gdd.runtime.run import Run, progress_bar
from gdd.runtime.signals import Stopped, is_due

logger = logging.getLogger(__name__)

LANDSCAPE_FILE = "landscape.json"
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


def measure_landscape(
    job: Job, conditions: Conditions, dataset: Dataset, run: Run, count: int, reach: float
) -> Landscape:
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
    if job.source.kind == CEILING and isinstance(dataset.train.images_u8, MappedImages):
        raise ConfigError(f"the images of {dataset.spec.name} do not fit into the memory, as {CEILING} has to here")
    real = RealImages(dataset.train.to(run.device), dataset.val.to(run.device), dataset.test)
    executions = executions_of([job], conditions, dataset, run, processes=1)
    images = StudentImages(real, dataset.spec, run.device, conditions.recipe.label_temperature, keep=1)
    trainer = StudentTrainer(images, conditions, executions, run.folder, config_hash="")
    images_std, labels = images.of(job).images.batch(0, None)
    loss = WeightLoss(_student(trainer, job, run), images_std, labels)
    size = len(loss.weights)
    with progress_bar(run.is_main) as progress:
        products = progress.add_task("products with the Hessian", total=None)

        def times(vector: Tensor) -> Tensor:
            if is_due(run.settings.max_minutes):
                raise Stopped(f"landscape: stopped; the same command goes on with the student in {run.folder}")
            progress.advance(products)
            return loss.hessian_times(vector)

        eigenvalues, eigenvectors = top_eigenpairs(times, size, count, run.device)
    distances = torch.arange(-STEPS, STEPS + 1, dtype=torch.float64) * (reach / STEPS)
    landscape = Landscape(
        source=job.source.label,
        arch=job.arch,
        seed=job.seed,
        recipe=conditions.recipe_for(job.source.kind).name,
        label_kind=conditions.label_kind(job.protocol, "hard" if labels.ndim == 1 else "stored soft"),
        weights=size,
        loss=loss.at(loss.weights),
        eigenvalues=eigenvalues.tolist(),
        distances=distances.tolist(),
        surface=surface(loss, eigenvectors[:2], distances).tolist(),
    )
    checkpoint.write_json(run.folder / LANDSCAPE_FILE, landscape.__dict__)
    return landscape


def _student(trainer: StudentTrainer, job: Job, run: Run) -> nn.Module:
    if checkpoint.steps(run.folder):
        network = trainer.untrained(job)
        checkpoint.load(checkpoint.newest(run.folder), {"network": network})
        logger.info("landscape: the student was trained before")
        return network
    trained = trainer.trained(job)
    count = job.images(trainer.images.spec, len(trainer.images.real.train.labels))
    steps = trainer.conditions.recipe_for(job.source.kind).total_steps(count)
    checkpoint.save(run.folder, steps, {"network": trained}, keep=1)
    return trained


HESSIAN_BATCH = 500  # images whose graph is in memory at once
_TOLERANCE = 1e-6  # of eigenvalues, relative


class WeightLoss:
    """Mean cross-entropy on fixed images as a function of a network's weights, in eval mode and float64.

    Args:
        network: maps images in classifier space (B, C, H, W) to logits (B, K); it is copied.
        images_std: (N, C, H, W) in classifier space.
        labels: (N,) classes, or (N, K) probabilities.
    """

    def __init__(self, network: nn.Module, images_std: Tensor, labels: Tensor) -> None:
        self.network = copy.deepcopy(network).double().eval().requires_grad_(True)
        self.batches = [*zip(images_std.split(HESSIAN_BATCH), labels.split(HESSIAN_BATCH), strict=True)]
        self.count = len(labels)
        self.parameters = [*self.network.parameters()]
        self.weights = _flat(self.parameters).detach()  # (P,)

    def _shares(self) -> Iterator[Tensor]:
        """Yield what each batch adds to the loss."""
        for images_std, labels in self.batches:
            target = labels.double() if labels.is_floating_point() else labels
            yield F.cross_entropy(self.network(images_std.double()), target, reduction="sum") / self.count

    @torch.no_grad()
    def at(self, weights: Tensor) -> float:
        """Return the loss at weights (P,)."""
        self._move_to(weights)
        loss = float(sum(self._shares()))
        self._move_to(self.weights)
        return loss

    def _move_to(self, weights: Tensor) -> None:
        pieces = weights.split([parameter.numel() for parameter in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))

    def hessian_times(self, vector: Tensor) -> Tensor:
        """Return the product (P,) of the Hessian at the network's own weights and a vector (P,) (Pearlmutter 1994)."""
        product = torch.zeros_like(vector)
        for share in self._shares():
            slope = torch.autograd.grad(share, self.parameters, create_graph=True, materialize_grads=True)
            along = _flat(slope) @ vector
            product += _flat(torch.autograd.grad(along, self.parameters, materialize_grads=True))
        return product


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return all entries one after another; in channels-last, torch's own function for it fails."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def top_eigenpairs(
    times: Callable[[Tensor], Tensor], size: int, count: int, device: torch.device, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the algebraically largest eigenvalues (count,) of a symmetric matrix, descending, and their eigenvectors.

    The eigenvectors (count, size) have length 1, and their largest entry is positive. Lanczos' method with restarts
    (ARPACK; Lehoucq, Sorensen and Yang 1998), to a relative error of 1e-6; of several that are equal it may miss some.

    Args:
        times: maps a vector (size,) to the product with the matrix, both float64 on the device.
        size: rows of the matrix.
        count: at least 1 and below `size`; ConfigError otherwise.
        device: of the vectors.
        seed: of the first vector.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh  # takes half a second to import

    if not 1 <= count < size:
        raise ConfigError(f"{count} eigenvalues are asked for, expected 1 to {size - 1:,} of {size:,} weights")

    def matvec(vector: np.ndarray) -> np.ndarray:
        return times(torch.from_numpy(vector.reshape(-1).copy()).to(device)).cpu().numpy()

    operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
    first = rng.Draws(seed, rng.EIGENVECTORS).normal(size).double().numpy()
    values, vectors = eigsh(operator, k=count, which="LA", v0=first, tol=_TOLERANCE)
    order = np.argsort(-values)
    rows = torch.from_numpy(vectors.T[order].copy())
    sign = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return torch.from_numpy(values[order].copy()), (sign * rows).to(device)


def surface(loss: WeightLoss, directions: Tensor, distances: Tensor) -> Tensor:
    """Return the loss (D, D) at the weights moved by every pair of distances (D,) along two directions (2, P).

    Entry (i, j) is that at weights + distances[i] * directions[0] + distances[j] * directions[1].
    """
    first, second = directions
    values = [[loss.at(loss.weights + a * first + b * second) for b in distances] for a in distances]
    return torch.tensor(values, dtype=torch.float64)
