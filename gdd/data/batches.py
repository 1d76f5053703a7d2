"""Batches of a uint8 tensor in memory, each a pure function of the seed and the step, dealt to processes by rows."""

import torch
from torch import Tensor

from gdd import rng
from gdd.data.pixels import Normalizer


def local_rows(rows: Tensor, rank: int, world_size: int) -> Tensor:
    """Return the rows of a draw for all processes that belong to process `rank`: every `world_size`-th."""
    return rows[rank::world_size]


class Batches:
    """Epochs of random order without replacement over images on one device.

    Batch k of all processes together is `batch_size` images, of which each takes its `local_rows`. Images left over at
    the end of an epoch are skipped, and come in other epochs. A dataset smaller than `batch_size` makes smaller
    batches.

    Args:
        images_u8: (N, C, H, W).
        labels: (N,).
        batch_size: images per step over all processes.
        seed: root seed.
        stream: name of the random stream.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        images_u8: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int,
        stream: str,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images_u8, self.labels = images_u8, labels
        self.batch_size = min(batch_size, len(labels))
        self.seed, self.stream, self.rank, self.world_size = seed, stream, rank, world_size
        self.per_epoch = len(labels) // self.batch_size
        self._order: tuple[int, Tensor] | None = None

    def indices(self, step: int) -> Tensor:
        """Return which images batch `step` holds on this process."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            random = rng.generator(self.seed, self.stream, epoch)
            self._order = epoch, torch.randperm(len(self.labels), generator=random)
        batch = self._order[1][position * self.batch_size :][: self.batch_size]
        return local_rows(batch, self.rank, self.world_size).to(self.labels.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) uint8 and labels (B,)."""
        chosen = self.indices(step)
        return self.images_u8[chosen], self.labels[chosen]


class ClassBatches:
    """Random images of one class, without replacement, in classifier space.

    Args:
        images_u8: (N, C, H, W).
        labels: (N,).
        num_classes: K.
        normalize: on the images' device.
        seed: root seed.
    """

    def __init__(self, images_u8: Tensor, labels: Tensor, num_classes: int, normalize: Normalizer, seed: int) -> None:
        self.images_u8, self.normalize, self.seed = images_u8, normalize, seed
        self.indices_by_class = [(labels == label).nonzero().flatten().cpu() for label in range(num_classes)]

    @property
    def num_classes(self) -> int:
        return len(self.indices_by_class)

    def __call__(self, label: int, count: int, stream: str, *counters: int) -> Tensor:
        """Return min(count, all) images (B, C, H, W) of a class; they depend on seed, stream, counters and class."""
        indices = self.indices_by_class[label]
        order = torch.randperm(len(indices), generator=rng.generator(self.seed, stream, *counters, label))
        return self.normalize.from_u8(self.images_u8[indices[order[:count]].to(self.images_u8.device)])
