"""Batches without end of what makes images that are numbered by class."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from gdd.config import ConfigError, read_as
from gdd.config.fields import AtLeast0, AtLeast1
from gdd.data.pixels import u8_to_unit
from gdd.data.spec import DatasetSpec
from gdd.sampling.ensemble_file import Ensemble

Classes = Sequence[str | int]  # by their names or numbers


class Numbered(Protocol):
    """Images of classes; image i of class c is the same whenever it is asked for."""

    device: torch.device

    @property
    def spec(self) -> DatasetSpec: ...

    def images_u8(self, labels: Tensor, indices: Tensor, seed: int) -> Tensor:
        """Return images `indices[b]` of classes `labels[b]`, both (B,) on the CPU: uint8 (B, C, H, W) on the device."""


class SampleStream(IterableDataset[tuple[Tensor, ...]]):
    """Batches without end: float32 images (B, C, H, W) in [0, 1], rounded to 256 levels, and labels (B,).

    With a teacher a batch has its logits (B, K) besides.

    Batch k holds samples k*B to (k+1)*B - 1 of one sequence that goes through the classes in turn, so every batch is as
    balanced as its size allows. Each of N processes of a process group takes every N-th batch, and so do the workers of
    `DataLoader(stream, batch_size=None, num_workers=W)`, which together give the batches in the order of one.
    A stream starts anew, with the same batches, whenever it is iterated.
    """

    def __init__(
        self,
        generator: Numbered,
        batch_size: int,
        seed: int,
        classes: Classes | None = None,
        teacher: Ensemble | None = None,
    ) -> None:
        self.generator = generator
        self.batch_size = read_as(AtLeast1, batch_size, "batch_size")
        self.seed = read_as(AtLeast0, seed, "seed")
        self.labels = torch.tensor(generator.spec.labels_of(classes))  # in turn
        self.teacher = teacher

    def batch(self, index: int) -> tuple[Tensor, ...]:
        """Return batch `index`, counted from 0 over all processes."""
        places, classes = torch.arange(index * self.batch_size, (index + 1) * self.batch_size), len(self.labels)
        labels = self.labels[places % classes]
        images_u8 = self.generator.images_u8(labels, places // classes, self.seed)
        answers = () if self.teacher is None else (self.teacher.logits(images_u8),)
        return u8_to_unit(images_u8), labels.to(self.generator.device, non_blocking=True), *answers

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        worker = get_worker_info()
        if worker is not None and self.generator.device.type != "cpu":
            raise ConfigError(f"a stream's generator is on {self.generator.device}, expected cpu with num_workers")
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, processes = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return map(self.batch, itertools.count(rank + processes * number, processes * workers))
