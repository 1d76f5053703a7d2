"""A student's batches: the same images every epoch, or as many new ones from a generator."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from gdd import rng
from gdd.data import augment
from gdd.data.mapped import ImageRows
from gdd.data.pixels import Normalizer
from gdd.data.spec import DC, parse_strategy
from gdd.data.splits import Split, shuffled
from gdd.evaluation.recipe import Recipe
from gdd.models import layers
from gdd.rng import Count
from gdd.runtime.device import Stopwatch
from gdd.runtime.graphs import Rate, Replayed, Scalars
from gdd.sampling import sample
from gdd.sampling.curate import Kept
from gdd.sampling.generator_file import LoadedGenerator
from gdd.training.schedule import KeepRate

# A set whose float copy would take more is normalised batch by batch.
FLOAT_BYTES = 2**30
# A stream whose images would take more is generated again for every student.
STREAM_BYTES = 2**28
# Images per forward pass of a generator, which bounds its memory.
PASS = 1024


def to_std(images: Tensor, normalize: Normalizer) -> Tensor:
    """Return uint8 or [0, 1]-scale images in classifier space."""
    if images.dtype == torch.uint8:
        return normalize.from_u8(images)
    return normalize.from_unit(images)


@dataclass(eq=False, repr=False)
class Fixed:
    """The same images in every epoch."""

    images: ImageRows  # (N, C, H, W) uint8 or float32 in [0, 1]-scale, on the device
    labels: Tensor  # (N,) classes, or (N, K) probabilities
    normalize: Normalizer  # on the same device
    seconds_generating: float = 0.0

    def __post_init__(self) -> None:
        self.count = len(self.labels)
        self.is_std = isinstance(self.images, Tensor) and 4 * self.images.numel() <= FLOAT_BYTES
        if self.is_std:
            self.images = to_std(self.images[:], self.normalize)

    def batch(self, epoch: int, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return images in classifier space and labels: those that `chosen` (B,) indexes, or all."""
        images, labels = self.images, self.labels
        if chosen is not None:
            images, labels = images[chosen], labels[chosen]
        if self.is_std:
            assert isinstance(images, Tensor)
            return images, labels  # the same tensors in every step, if they are all
        return to_std(images[:], self.normalize), labels

    def distinct(self, seen: int) -> int:
        """Return how many different images there are among the first so many that training sees."""
        return min(self.count, seen)


@dataclass(eq=False, repr=False)
class GeneratedStream:
    """Epoch e holds samples e*ipc to (e+1)*ipc - 1 of every class: as many images as the fixed set, all new."""

    generator: LoadedGenerator  # the generator
    ipc: int  # images per class and epoch
    seed: int  # of the samples; epoch 0 is the fixed set of this seed
    normalize: Normalizer  # on the device to generate on
    filtered: Kept | None = None  # the samples that count; none: all

    def __post_init__(self) -> None:
        self.device = self.normalize.mean.device
        self.generator.generator.to(self.device)
        self.count = self.ipc * self.generator.spec.num_classes
        # Students of one seed see one stream, so a short one is kept as uint8; each row states what generating it took.
        self._most_epochs = STREAM_BYTES // (self.count * math.prod(self.generator.spec.shape))
        self._epochs: dict[int, tuple[Tensor, Tensor]] = {}
        self._images, self._epoch = torch.empty(0), -1
        self._pass = Replayed(self._made, tuple, self.device)
        self._watches: dict[tuple[int, ...], Stopwatch] = {}  # of what it generated with streams of these seeds

    @property
    def seconds_generating(self) -> float:
        return sum(watch.seconds / len(seeds) for seeds, watch in self._watches.items())

    def batch(self, epoch: int, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what `Fixed.batch` does, of this epoch's images."""
        if epoch not in self._epochs:
            self.generate([self], epoch)
        images_u8, labels = self._epochs[epoch]
        if self._epoch != epoch:
            self._images, self._epoch = self.normalize.from_u8(images_u8), epoch
        return (self._images, labels) if chosen is None else (self._images[chosen], labels[chosen])

    def has(self, epoch: int) -> bool:
        """Tell whether an epoch's images are there."""
        return epoch in self._epochs

    @staticmethod
    def generate(streams: Sequence["GeneratedStream"], epoch: int) -> None:
        """Let streams that differ by their seeds alone generate an epoch, all of them at once."""
        first, seeds = streams[0], tuple(stream.seed for stream in streams)
        watch = first._watches.setdefault(seeds, Stopwatch(first.device))
        with watch:
            labels, _ = sample.balanced_labels(first.generator.spec.num_classes, 0, first.ipc, first.device)
            made = [first._kept(epoch)] if first.filtered is not None else first._generated(epoch, seeds)
        for stream, images in zip(streams, made, strict=True):
            stream._watches[seeds] = watch
            if len(stream._epochs) >= stream._most_epochs:
                stream._epochs.clear()
            stream._epochs[epoch] = images, labels

    def _kept(self, epoch: int) -> Tensor:
        """Return an epoch's images (N, C, H, W) of those that count."""
        assert self.filtered is not None
        first, last, classes = epoch * self.ipc, (epoch + 1) * self.ipc, range(self.generator.spec.num_classes)
        return torch.cat([self.filtered.images(label, first, last) for label in classes]).to(self.device)

    def _generated(self, epoch: int, seeds: tuple[int, ...]) -> Tensor:
        """Return an epoch's images (S, N, C, H, W) of S seeds, ordered by class like the fixed set's."""
        first, last, classes = epoch * self.ipc, (epoch + 1) * self.ipc, self.generator.spec.num_classes
        stride = max(1, PASS // (classes * len(seeds)))
        starts = range(first, last, stride)
        parts = [self._pass((seeds, min(stride, last - start)), start)["images"].clone() for start in starts]
        return torch.cat([part.unflatten(1, (classes, -1)) for part in parts], 2).flatten(1, 2)

    @torch.no_grad()
    def _made(self, kind: tuple[tuple[int, ...], int], start: Count) -> Scalars:
        """Return so many samples of every class, from one on, for each seed."""
        seeds, count = kind
        labels, indices = sample.balanced_labels(self.generator.spec.num_classes, 0, count, self.device)
        return {"images": sample.images_of(self.generator, seeds, labels, indices + start)}

    def distinct(self, seen: int) -> int:
        """Return what `Fixed.distinct` does: all of them."""
        return seen


@dataclass(eq=False, repr=False)
class RealStream:
    """Epoch e holds real images e*ipc to (e+1)*ipc - 1 of every class: what a perfect generator would stream.

    Once all of a class have been seen they come again in another order. Epoch 0 is `random_real` of the seed.
    """

    train: Split  # the real images, on the device
    num_classes: int
    ipc: int  # images per class and epoch
    seed: int  # of the orders
    normalize: Normalizer  # on the same device
    seconds_generating: float = 0.0

    def __post_init__(self) -> None:
        self.count = self.ipc * self.num_classes
        self._order = lru_cache(maxsize=2 * self.num_classes)(partial(shuffled, self.train))
        self._sizes = self.train.labels.bincount(minlength=self.num_classes).tolist()
        self._images, self._labels, self._epoch = torch.empty(0), torch.empty(0), -1

    def batch(self, epoch: int, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what `Fixed.batch` does, of this epoch's images."""
        if self._epoch != epoch:
            indices = torch.cat([self._fresh(label, epoch * self.ipc) for label in range(self.num_classes)])
            self._images = self.normalize.from_u8(self.train.images_u8[indices])
            self._labels, self._epoch = self.train.labels[indices], epoch
        return (self._images, self._labels) if chosen is None else (self._images[chosen], self._labels[chosen])

    def _fresh(self, label: int, first: int) -> Tensor:
        """Return `ipc` indices from place `first` on of a class's endless order."""
        size, last = self._sizes[label], first + self.ipc
        turns = range(first // size, (last - 1) // size + 1)
        orders = [self._order(label, self.seed, turn) for turn in turns]
        start = first - turns.start * size
        return torch.cat(orders)[start : start + self.ipc]

    def distinct(self, seen: int) -> int:
        """Return what `Fixed.distinct` does; at most that if a class comes to its end in an unfinished epoch."""
        epochs = math.ceil(seen / self.count)
        return min(seen, sum(min(size, epochs * self.ipc) for size in self._sizes))


Images = Fixed | GeneratedStream | RealStream


@dataclass
class StudentBatches:
    """Map a step to augmented images in classifier space and labels, (B,) classes or (B, K) probabilities.

    Order and augmentation depend on (seed, who) and the step alone, never on the source, so students of one
    seed differ in nothing but their images. A set that fits into one batch is never reordered.
    """

    data: Images  # where the images come from
    recipe: Recipe  # batch size and augmentation
    seed: int  # of the order and of the augmentation
    who: str  # student or teacher

    def __post_init__(self) -> None:
        self.per_epoch = self.recipe.steps_per_epoch(self.data.count)
        self.total = self.recipe.total_steps(self.data.count)
        self.strategy = parse_strategy(self.recipe.augment)
        # Its operations are drawn for each batch, or fill with the batch's mean: not for several students' at once.
        self.alone = self.recipe.pick != "all" or DC in self.strategy
        self._order: tuple[int, Tensor] | None = None

    def indices(self, step: int) -> Tensor | None:
        """Return which images of its epoch batch `step` holds; none means all."""
        if self.per_epoch == 1:
            return None
        epoch, position = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            random = rng.Draws(self.seed, f"{self.who}-{rng.ORDER}", epoch, device=self.data.normalize.mean.device)
            self._order = epoch, random.permutation(self.data.count)
        return self._order[1][position * self.recipe.batch_size :][: self.recipe.batch_size]

    def drawn(self, step: int) -> tuple[Tensor, Tensor]:
        """Return what `prepare` takes, and labels. Which operations a step has is decided here, where it is random."""
        images_std, labels = self.data.batch(step // self.per_epoch, self.indices(step))
        return (self._augmented(step, images_std) if self.alone else images_std), labels

    def prepare(self, step: Count, images_std: Tensor) -> Tensor:
        """Return the images of a step, of which `drawn` gave the first argument, as the student sees them."""
        return images_std if self.alone else self._augmented(step, images_std)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        images_std, labels = self.drawn(step)
        return self.prepare(step, images_std), labels

    def _augmented(self, step: Count, images_std: Tensor) -> Tensor:
        return _augmented(self, self.seed, step, images_std)

    @property
    def constant(self) -> bool:
        """Whether all steps have the same images."""
        return isinstance(self.data, Fixed) and self.per_epoch == 1 and not self.strategy


def _augmented(batches: StudentBatches, seed: int | list[int], step: Count, images_std: Tensor) -> Tensor:
    """Return images (B, C, H, W) augmented by one seed's draws, or (S, B, C, H, W) by those of S seeds."""
    if not batches.strategy:
        return images_std
    random = rng.Draws(seed, f"{batches.who}-{rng.AUGMENT}", step, device=images_std.device)
    change = augment.draw(batches.strategy, images_std.shape[-4], random, shared=False, pick=batches.recipe.pick)
    return augment.apply(change, images_std.flatten(0, -4)).view(images_std.shape)


class StackedBatches:
    """Map a step to what S students see in it, each its own: images (S, B, C, H, W), labels (S, B) or (S, B, K)."""

    def __init__(self, students: Sequence[StudentBatches]) -> None:
        """Take students of one recipe whose sets are equally large."""
        self.recipe, self.total = students[0].recipe, students[0].total
        self._students = students
        streams = [one.data for one in students if isinstance(one.data, GeneratedStream) and one.data.filtered is None]
        alike = len(streams) == len(students) and len({id(stream.generator) for stream in streams}) == 1
        self._streams = streams if alike else []  # that generate at once
        self._parts: list[Tensor] = []
        self._stacked = torch.empty(0), torch.empty(0)

    def drawn(self, step: int) -> tuple[Tensor, Tensor]:
        """Return what `prepare` takes, and labels."""
        if self._streams and not self._streams[0].has(epoch := step // self._students[0].per_epoch):
            GeneratedStream.generate(self._streams, epoch)
        images_std, labels = zip(*(batches.drawn(step) for batches in self._students), strict=True)
        parts = [*images_std, *labels]
        # Sets that are one batch and not augmented come as the same tensors in every step.
        if not self._parts or any(map(operator.is_not, parts, self._parts)):
            self._parts, self._stacked = parts, (torch.stack(images_std), torch.stack(labels))
        return self._stacked

    def prepare(self, step: Count, images_std: Tensor) -> Tensor:
        """Return the images of a step, of which `drawn` gave the first argument, as the students see them."""
        if self._students[0].alone:
            return images_std
        seeds = [student.seed for student in self._students]
        return _augmented(self._students[0], seeds, step, images_std)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        images_std, labels = self.drawn(step)
        return self.prepare(step, images_std), labels


@dataclass(eq=False, repr=False)
class PathMasks:
    """The paths that each image of a step keeps: what DropPath drops, drawn by (seed, step) alone."""

    rate: KeepRate  # at which they are kept
    paths: int  # of the network
    total: int  # optimiser steps
    seeds: Sequence[int]  # of the students that are trained at once
    device: torch.device  # to train on

    def __post_init__(self) -> None:
        self.in_force: list[float] = []  # the rates so far, each once for as long as it holds

    def rate_at(self, step: int) -> float:
        """Return the rate of a step, and remember it."""
        rate = self.rate.at(step, self.total)
        if [rate] != self.in_force[-1:]:
            self.in_force.append(rate)
        return rate

    def __call__(self, step: Count, rate: Rate, count: int) -> Tensor:
        """Return (count, paths), or (S, count, paths) of S seeds, also while all paths are kept.

        So virtual shortcuts have a gradient, 0 at first, in every step: torch's fused optimisers need that.
        """
        seeds = self.seeds[0] if len(self.seeds) == 1 else self.seeds
        random = rng.Draws(seeds, f"{rng.STUDENT}-{rng.DROP_PATH}", step, device=self.device)
        return layers.path_masks(count, self.paths, rate, random)
