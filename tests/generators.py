"""Untrained generators and teachers on disk."""

from pathlib import Path

from torch import Tensor

from gdd import rng, zoo
from gdd.data.spec import DatasetSpec
from gdd.models import registry
from gdd.models.gan import DimGenerator
from gdd.sampling import ensemble_file, generator_file
from gdd.sampling.ensemble_file import Ensemble

PETS = DatasetSpec("pets", 3, 16, 24, ("cat", "dog", "eel"), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), True)


def untrained(spec: DatasetSpec = PETS, seed: int = 0, width: int = 4, noise_dim: int = 6) -> DimGenerator:
    with rng.seeded(seed, "test"):
        return DimGenerator(spec.shape, spec.num_classes, width, noise_dim)


def save_generator(
    folder: Path, spec: DatasetSpec = PETS, *, seed: int = 0, gain: float = 1.0, **facts: object
) -> Path:
    """Write an untrained generator, with weights `gain` times as large, into a new folder; return its path."""
    generator = untrained(spec, seed)
    for parameter in generator.parameters():
        parameter.data.mul_(gain)
    folder.mkdir(exist_ok=True)
    return generator_file.save(folder, generator, spec, {"method": "gan", "seconds": 1.5, **facts})


def as_stored(values: Tensor) -> Tensor:
    """Return weights as a file keeps them: matrices and kernels in float16."""
    return values.half().float() if values.ndim > 1 else values


def save_teacher(
    folder: Path, spec: DatasetSpec = PETS, archs: tuple[str, ...] = ("mlp-w8",), seed: int = 0, **facts: object
) -> Path:
    """Write untrained classifiers as the teacher of a folder; return its path."""
    with rng.seeded(seed, "teacher"):
        members = [registry.build(arch, spec.shape, spec.num_classes) for arch in archs]
    folder.mkdir(exist_ok=True)
    ensemble_file.save(folder, Ensemble(archs, spec, members), {"method": "real", "seconds": 2.0, **facts})
    return (folder / ensemble_file.FILE).rename(folder / zoo.TEACHER)
