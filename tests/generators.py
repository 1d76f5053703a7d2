"""An untrained generator on disk."""

from pathlib import Path

from gdd import rng
from gdd.data.spec import DatasetSpec
from gdd.models.gan import DimGenerator
from gdd.sampling import generator_file

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
