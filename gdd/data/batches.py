"""Batches of uint8 images, each a pure function of the seed and the step; a process takes its rows."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.data.mapped import ImageRows, MappedImages
from gdd.data.pixels import Normalizer


def local_rows(rows: Tensor, rank: int, world_size: int) -> Tensor:
    """Return the rows of a draw for all processes that belong to process `rank`: every `world_size`-th."""
    return rows[rank::world_size]


@dataclass(eq=False, repr=False)
class Batches:
    """Epochs of random order without replacement over images on one device.

    Batch k of all processes together is `batch_size` images, of which each takes its `local_rows`. Images left over at
    the end of an epoch are skipped, and come in other epochs. A dataset smaller than `batch_size` makes smaller
    batches. Images that lie in a file are read for the step that follows while this one is at work.
    """

    images_u8: ImageRows  # (N, C, H, W)
    labels: Tensor  # (N,)
    batch_size: int  # images per step over all processes
    seed: int  # root seed
    stream: str  # name of the random stream
    rank: int = 0  # this process
    world_size: int = 1  # number of processes

    def __post_init__(self) -> None:
        self.batch_size = min(self.batch_size, len(self.labels))
        self.per_epoch = len(self.labels) // self.batch_size
        self._order: tuple[int, Tensor] | None = None
        is_mapped = isinstance(self.images_u8, MappedImages)
        self._drawn_on = torch.device("cpu") if is_mapped else self.labels.device  # where the rows are looked up
        self._reader = ThreadPoolExecutor(1) if is_mapped else None
        self._ahead: tuple[int, Future[Tensor]] | None = None  # images that are being read, and of which step

    def indices(self, step: int) -> Tensor:
        """Return which images batch `step` holds on this process."""
        order, begin = self._place(step)
        return local_rows(order[begin:][: self.batch_size], self.rank, self.world_size)

    def others(self, step: int) -> Tensor:
        """Return as many images (B, C, H, W) uint8, none of them in batch `step` of two or more in an epoch."""
        order, begin = self._place(step)
        following = torch.cat([order[begin + self.batch_size :], order])[: self.batch_size]
        return self.images_u8[local_rows(following, self.rank, self.world_size)]

    def _place(self, step: int) -> tuple[Tensor, int]:
        """Return the order of the step's epoch, and where in it the batch begins."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            random = rng.Draws(self.seed, self.stream, epoch, device=self._drawn_on)
            self._order = epoch, random.permutation(len(self.labels))
        return self._order[1], position * self.batch_size

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) uint8 and labels (B,)."""
        chosen = self.indices(step)
        return self._images(step, chosen), self.labels[chosen.to(self.labels.device)]

    def _images(self, step: int, chosen: Tensor) -> Tensor:
        if self._reader is None:
            return self.images_u8[chosen]
        ahead, self._ahead = self._ahead, None
        images = ahead[1].result() if ahead is not None and ahead[0] == step else self.images_u8[chosen]
        self._ahead = step + 1, self._reader.submit(self.images_u8.__getitem__, self.indices(step + 1))
        return images


@dataclass(eq=False, repr=False)
class ClassBatches:
    """Random images of each class, without replacement, in classifier space."""

    images_u8: ImageRows  # (N, C, H, W)
    labels: Tensor  # (N,)
    num_classes: int
    normalize: Normalizer  # on the images' device
    seed: int  # root seed

    def __post_init__(self) -> None:
        labels, device = self.labels.cpu(), self.images_u8.device
        by_class = [(labels == label).nonzero().flatten() for label in range(self.num_classes)]
        self.sizes = [len(indices) for indices in by_class]
        self._counts = torch.tensor(self.sizes, device=device)
        self._table = nn.utils.rnn.pad_sequence(by_class, batch_first=True).to(device)  # (K, the largest class)

    def __call__(self, count: int, stream: str, *counters: int) -> list[Tensor]:
        """Return which images to take of each class, min(count, all) indices.

        Those of a class depend on seed, stream, counters and class.
        """
        classes, device = range(self.num_classes), self.images_u8.device
        random = rng.Draws(self.seed, stream, *counters, each=classes, device=device)
        order = random.permutations(self._counts, self._table.shape[1])[:, :count]
        return [indices[:size] for indices, size in zip(self._table.gather(1, order), self.sizes, strict=True)]

    def images(self, indices: Tensor) -> Tensor:
        """Return images (B, C, H, W) by their indices (B,)."""
        return self.normalize.from_u8(self.images_u8[indices])
