"""A tiny generator on disk, and the sentence of a refusal."""

from gdd import rng
from gdd.data.spec import DatasetSpec
from gdd.models.gan import Generator
from gdd.sampling import generator_file

SPEC = DatasetSpec("pets", 3, 16, 24, ("cat", "dog", "eel"), (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), True)
IPC, SIZE = 7, 8  # 21 samples of 3 classes: shards of 8, 8 and 5


def save_generator(folder, spec, seed=0):
    """Write an untrained generator and return its path."""
    with rng.seeded(seed, "test"):
        generator = Generator(spec.shape, spec.num_classes, 8, 6)
    folder.mkdir()
    return generator_file.save(folder, generator, spec, 8, {"method": "gan", "seconds": 1.5})


def refusal(result):
    """Return the one sentence with which a command refused."""
    code, _, error = result
    assert code == 2
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("gdd: ")]
    return line
