"""What every reader returns, and the two operations they share: splitting by class and resizing."""

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from gdd import rng
from gdd.config import ConfigError
from gdd.data.mapped import ImageRows, subset

# A test part carved out of train is the same for every run, so that scores of different seeds compare.
HOLDOUT_FRACTION = 0.2
HOLDOUT_SEED = 0


class Split(NamedTuple):
    images_u8: ImageRows  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64

    def subset(self, indices: Tensor) -> "Split":
        return Split(subset(self.images_u8, indices), self.labels[indices])

    def to(self, device: torch.device) -> "Split":
        return Split(self.images_u8.to(device), self.labels.to(device))


class RawDataset(NamedTuple):
    """A dataset as its reader returns it: the whole train part, the test part unread."""

    class_names: tuple[str, ...]
    train: Split
    read_test: Callable[[], Split]


def stratified_split(labels: Tensor, fraction: float, seed: int, stream: str) -> tuple[Tensor, Tensor]:
    """Return sorted indices (kept, held out), with `fraction` of every class held out.

    Every class of the labels (N,) holds out at least one sample and keeps at least one, unless `fraction`, below 1, is
    0. What a smaller fraction holds out is a subset of what a larger one holds out. ValueError if a class has fewer
    than two samples.
    """
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    if fraction > 0:
        for label in labels.unique().tolist():
            members = (labels == label).nonzero().flatten()
            if len(members) < 2:
                raise ValueError(f"class {label} has 1 sample, too few to split")
            count = min(max(1, int(fraction * len(members) + 0.5)), len(members) - 1)
            order = torch.randperm(len(members), generator=rng.generator(seed, stream, label))
            held_out[members[order[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()


def require_two_each(labels: Tensor, class_names: tuple[str, ...], where: object) -> None:
    counts = labels.bincount(minlength=len(class_names))
    if counts.min() < 2:
        raise ConfigError(
            f"class {class_names[int(counts.argmin())]!r} of {where} has {int(counts.min())} train image, "
            "too few to split off a test or validation part"
        )


def holdout(labels: Tensor, class_names: tuple[str, ...], where: object) -> tuple[Tensor, Tensor]:
    """Return indices (train, test) for data that comes without a test part."""
    require_two_each(labels, class_names, where)
    return stratified_split(labels, HOLDOUT_FRACTION, HOLDOUT_SEED, rng.SPLIT_TEST)


def random_real(train: Split, num_classes: int, ipc: int, seed: int) -> Split:
    """Return `ipc` random images of every class, ordered by class; IPC 10 holds the first 10 of IPC 50's."""
    return train.subset(torch.cat([shuffled(train, label, seed)[:ipc] for label in range(num_classes)]))


def shuffled(train: Split, label: int, seed: int, turn: int = 0) -> Tensor:
    """Return the indices of a class's images in the order of one of many turns."""
    members = (train.labels == label).nonzero().flatten()
    counters = (label, turn) if turn else (label,)
    order = rng.Draws(seed, rng.RANDOM_REAL, *counters).permutation(len(members))
    return members[order.to(members.device)]


def require_memory(shape: tuple[int, ...], what: object) -> None:
    """Refuse uint8 images that this machine cannot hold, before the system ends the process for them."""
    needed, memory = math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ConfigError(
            f"{what} take {needed / 2**30:.1f} GiB as {' x '.join(map(str, shape))} bytes, but this machine has "
            f"{memory / 2**30:.1f} GiB: set data.size to something smaller"
        )


def to_array(image: Image.Image, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Return (C, H, W) uint8, resized with Pillow's antialiased bilinear filter; transparency is dropped."""
    # Convert first: palette entries cannot be interpolated.
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def resized(split: Split, size: tuple[int, int] | None, channels: int | None) -> Split:
    """Return images of another size (H, W) or channel count; None keeps what they have."""
    images = split.images_u8[:]
    count, old_channels, *old_size = images.shape
    channels = channels or old_channels
    if channels == old_channels and size in (None, tuple(old_size)):
        return split
    shape = (count, channels, *(size or old_size))
    require_memory(shape, "the images")
    # Pillow's integer arithmetic gives the same bytes on every machine; torch's kernels depend on the CPU.
    images_u8 = np.empty(shape, np.uint8)
    for index, pixels in enumerate(rearrange(images, "n c h w -> n h w c").numpy()):
        image = Image.fromarray(pixels[..., 0] if old_channels == 1 else pixels)
        images_u8[index] = to_array(image, size, channels)
    return Split(torch.from_numpy(images_u8), split.labels)
