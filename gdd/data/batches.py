"""Batches of a uint8 tensor in memory, each a pure function of (seed, step, rank)."""

import torch
from torch import Tensor

from gdd import rng


class Batches:
    """Epochs of random order without replacement over images on one device.

    Batch k of all processes together is `batch_size` images; process r takes every `world_size`-th of them.
    Images left over at the end of an epoch are skipped, and come in other epochs. A dataset smaller than
    `batch_size` makes smaller batches.

    Args:
        images_u8: (N, C, H, W).
        labels: (N,).
        batch_size: images per step over all processes.
        seed: root seed.
        purpose: distinguishes streams of one root seed.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        images_u8: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int,
        purpose: str,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images_u8, self.labels = images_u8, labels
        self.batch_size = min(batch_size, len(labels))
        self.seed, self.purpose, self.rank, self.world_size = seed, purpose, rank, world_size
        self.per_epoch = len(labels) // self.batch_size
        self._order: tuple[int, Tensor] | None = None

    def indices(self, step: int) -> Tensor:
        """Return which images batch `step` holds on this process."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            draw = rng.generator(self.seed, self.purpose, epoch)
            self._order = epoch, torch.randperm(len(self.labels), generator=draw)
        batch = self._order[1][position * self.batch_size :][: self.batch_size]
        return batch[self.rank :: self.world_size].to(self.labels.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) uint8 and labels (B,)."""
        chosen = self.indices(step)
        return self.images_u8[chosen], self.labels[chosen]
