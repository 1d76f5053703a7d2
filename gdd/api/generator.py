"""A distilled generator: sets of any size, and batches without end for any training loop."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdd import hub, zoo
from gdd.api.image_set import ImageSet, OfDataset
from gdd.api.stream import Classes, SampleStream
from gdd.config import ConfigError, read_as
from gdd.config.fields import AtLeast0, AtLeast1
from gdd.data.pixels import pm1_to_u8, pm1_to_unit
from gdd.data.spec import DatasetSpec
from gdd.evaluation.named import teacher_beside
from gdd.sampling import curate, ensemble_file, generator_file, sample
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.generator_file import LoadedGenerator
from gdd.sampling.set_file import check_matches


class DistilledGenerator(OfDataset):
    """A conditional generator. Sample i of class c depends on (seed, c, i) alone, in sets and in streams."""

    def __init__(self, loaded: LoadedGenerator, teacher: Ensemble | None = None) -> None:
        self.loaded = loaded
        self.teacher = teacher  # that lies beside it: classifiers of the real images, which answer to samples
        self.device = torch.device("cpu")

    def __repr__(self) -> str:
        size = f"{len(self.class_names)} classes of {self.shape}, {self.bytes:,} bytes"
        return f"DistilledGenerator({self.spec.name}: {size})"

    @property
    def spec(self) -> DatasetSpec:
        return self.loaded.spec

    def to(self, device: torch.device | str) -> "DistilledGenerator":
        """Move it to a device, and return it."""
        self.device = torch.device(device)
        self.loaded.generator.to(self.device)
        if self.teacher is not None:
            self.teacher.to(self.device)
        return self

    @property
    def noise_dim(self) -> int:
        """Numbers of noise that make an image."""
        return self.loaded.generator.noise_dim

    @property
    def bytes(self) -> int:
        """Of its file."""
        return self.loaded.bytes

    @property
    def provenance(self) -> dict[str, Any]:
        """What its maker wrote down: method, seeds, settings, seconds."""
        return self.loaded.provenance

    def sample(self, ipc: int, seed: int = 0, soft_labels: bool = False) -> ImageSet:
        """Return a set of `ipc` images of every class, ordered by class: that of `gdd sample`, to the bit on a CPU.

        The first 10 of IPC 50 are those of IPC 10.

        Args:
            ipc: images per class, at least 1.
            seed: of the noise, at least 0.
            soft_labels: whether the teacher's logits are stored with them.

        Raises:
            ConfigError: a number is too small, or no teacher lies beside the generator.
        """
        ipc, seed = read_as(AtLeast1, ipc, "ipc"), read_as(AtLeast0, seed, "seed")
        if not soft_labels:
            return ImageSet(sample.sample_set(self.loaded, ipc, seed, self.device))
        samples = curate.Generated(self.loaded, seed, self.device)
        return ImageSet(curate.curated_set(samples, self._asked(), ipc, self.device, soft_labels=True))

    def stream(
        self, batch_size: int, seed: int = 0, soft_labels: bool = False, classes: Classes | None = None
    ) -> SampleStream:
        """Return batches without end, each of new samples.

        Args:
            batch_size: at least 1.
            seed: of the noise, at least 0.
            soft_labels: whether a batch ends with the teacher's logits (B, K).
            classes: names or numbers of those that are wanted, in the order in which they take turns; none: all.

        Raises:
            ConfigError: a number is too small, a class is unknown, or no teacher lies beside the generator.
        """
        return SampleStream(self, batch_size, seed, classes, self._asked() if soft_labels else None)

    @torch.no_grad()
    def images_u8(self, labels: Tensor, indices: Tensor, seed: int) -> Tensor:
        """Return samples `indices[b]` of classes `labels[b]`, both (B,) int64 on the CPU: uint8 (B, C, H, W)."""
        noise = sample.latents(seed, labels, indices, self.noise_dim).to(self.device, non_blocking=True)
        return pm1_to_u8(self.loaded.generator(noise, labels.to(self.device, non_blocking=True)))

    def _asked(self) -> Ensemble:
        if self.teacher is None:
            raise ConfigError(f"soft_labels is True, expected False: no {zoo.TEACHER} lies beside the generator")
        return self.teacher

    def generate(self, labels: Tensor, noise: Tensor) -> Tensor:
        """Return the images of given labels (B,) and noise (B, noise_dim): float32 (B, C, H, W) in [0, 1].

        They are not rounded to 256 levels, and gradients reach the noise.

        Raises:
            ConfigError: labels or noise have another shape or type, or a label is none of the classes'.
        """
        classes = len(self.class_names)
        whole = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1
        if not whole or not bool(((labels >= 0) & (labels < classes)).all()):
            raise ConfigError(f"labels are {_kind(labels)}, expected int64 of shape (B,), each from 0 to {classes - 1}")
        shape = (len(labels), self.noise_dim)
        if not isinstance(noise, Tensor) or noise.dtype != torch.float32 or noise.shape != shape:
            raise ConfigError(f"noise is {_kind(noise)}, expected float32 of {shape}")
        return pm1_to_unit(self.loaded.generator(noise.to(self.device), labels.to(self.device)))


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def load_generator(path: Path | str) -> DistilledGenerator:
    """Read a generator from its .safetensors file or its run folder.

    It may also be zoo:NAME, one that comes with gdd (`gdd zoo`), or hub:USER/NAME, one on the Hugging Face Hub. A
    teacher that lies beside it is read too.

    Raises:
        ConfigError: it is missing or damaged, or there is none of the name.
    """
    loaded, beside = generator_file.load(path), teacher_beside(hub.local_path(path))
    if beside is None:
        return DistilledGenerator(loaded)
    teacher = ensemble_file.load(beside)
    check_matches(teacher.spec, loaded.spec, beside)
    return DistilledGenerator(loaded, teacher)
