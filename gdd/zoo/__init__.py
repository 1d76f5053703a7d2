"""Generators that come with gdd, each by a name such as `zoo:mnist`, and what is known of them; without torch.

Each has a folder here: `generator.safetensors`; `config.yaml`, the settings that made it; `rows.jsonl`, a line per
student that was trained on it, on random real images and on fresh ones; `audit.json`, whether it copies its training
images; `manifest.json`, all of a `Manifest`; and `README.md`, its card. `benchmarks/zoo.py` writes them.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from gdd.config import ConfigError, did_you_mean, read_as

PREFIX = "zoo:"
FILE = "generator.safetensors"
SET = "set.safetensors"
ENSEMBLE = "ensemble.safetensors"
TEACHER = "teacher.safetensors"  # an ensemble beside a generator, which answers to its images
MANIFEST = "manifest.json"
HOME = Path(__file__).parent


@dataclass(frozen=True)
class Mean:
    """A mean over students' seeds, in percent of the test images."""

    mean: float
    half_width: float | None  # of the 95 % interval by Student's t; none for one student
    n: int  # students


@dataclass(frozen=True)
class Score:
    """What students of one architecture learn from the generator, beside what they learn from real images."""

    arch: str
    protocol: str  # of the generator
    ipc: int  # images per class: of random real ones, and of an epoch of a stream
    recipe: str
    steps: int  # of the students' optimiser
    precision: str  # of the students
    floor: Mean  # on random real images
    generator: Mean
    ceiling: Mean  # on fresh real images, as many as of the generator


@dataclass(frozen=True)
class Manifest:
    """What a generator is, and what it is worth."""

    sha256: str  # of its file
    bytes: int  # of its file
    dataset: str
    shape: tuple[int, int, int]  # channels, height and width of an image
    classes: tuple[str, ...]  # in index order
    version: str  # of gdd, which made it
    stage: str  # of the distillation: pretrain or refine
    seconds: float  # that its training took
    scores: tuple[Score, ...]  # one per number of steps and architecture


def names() -> list[str]:
    """Return what may follow `zoo:`."""
    return sorted(path.parent.name for path in HOME.glob(f"*/{MANIFEST}"))


def manifest(name: str) -> Manifest:
    """Read the manifest of one of `names()`; ConfigError if it is damaged."""
    path = HOME / name / MANIFEST
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error})") from error
    return read_as(Manifest, values, str(path))


def generator_path(named: Path | str) -> Path:
    """Return the file of `zoo:NAME`; any other path as it is.

    Raises:
        ConfigError: there is no generator of that name, or its file is not that of its manifest.
    """
    text = str(named)
    if not text.startswith(PREFIX):
        return Path(named)
    name, known = text.removeprefix(PREFIX), names()
    if name not in known:
        listed = ", ".join(PREFIX + known_name for known_name in known)
        raise ConfigError(
            f"{text} is no generator that comes with gdd, expected one of {listed}{did_you_mean(name, known)}"
        )
    path = HOME / name / FILE
    if not path.is_file() or sha256(path) != manifest(name).sha256:
        raise ConfigError(f"{path} was changed: its checksum differs from the manifest's; install gdd again")
    return path


def sha256(path: Path) -> str:
    """Return the checksum of a file, in 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
