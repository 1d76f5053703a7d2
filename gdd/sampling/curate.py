"""Images that an ensemble approves of, and sets chosen among them: of a generator, of another program, or real ones."""

import math
import sys
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from gdd.config import ConfigError
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split, shuffled
from gdd.losses.logits import classified
from gdd.sampling import sample
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.generator_file import LoadedGenerator, tensor_hash
from gdd.sampling.origin import joint_origin, sample_origin
from gdd.sampling.set_file import SyntheticSet, check_matches

# In which order the samples of a class are taken into a set, so that the first n are a good set of n.
Selection = Literal["herding", "kmeans", "confident"]

# Samples of each class that are chosen from.
POOL_SIZE = 500

# A class of which fewer than one in so many samples is kept is given up, after so many times this number.
_LEAST, _TRIES = 1000, 5


class Samples(Protocol):
    """Images that are numbered by class; the k-th of a class depends on a seed alone."""

    @property
    def spec(self) -> DatasetSpec: ...

    def images(self, label: int, start: int, stop: int) -> Tensor:
        """Return images `start..stop-1` of a class, (N, C, H, W) uint8 on the CPU, or fewer where they end."""

    def origin(self, ensemble: Ensemble | None) -> dict[str, Any]:
        """Return where a set of them comes from, as JSON, that the ensemble has judged, if there is one."""


@dataclass(eq=False, repr=False)
class Generated:
    """What a generator makes of a seed; there is no end of it."""

    loaded: LoadedGenerator
    seed: int  # of the noise
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        self.spec = self.loaded.spec
        self.loaded.generator.to(self.device)

    def images(self, label: int, start: int, stop: int) -> Tensor:
        return sample.sample_images(self.loaded, label, start, stop, self.seed, self.device)

    def origin(self, ensemble: Ensemble | None) -> dict[str, Any]:
        joint = {} if ensemble is None else joint_origin(self.loaded, ensemble)
        return {**sample_origin(self.loaded, self.seed), **joint}


@dataclass(eq=False, repr=False)
class Real:
    """Real training images in the order in which `real:random` of a seed takes them."""

    train: Split
    spec: DatasetSpec
    data: str  # fingerprint of the dataset
    seed: int  # of the order

    def __post_init__(self) -> None:
        self._order = cache(partial(shuffled, self.train, seed=self.seed))

    def images(self, label: int, start: int, stop: int) -> Tensor:
        return self.train.images_u8[self._order(label)[start:stop]].cpu()

    def origin(self, ensemble: Ensemble | None) -> dict[str, Any]:
        seconds = None if ensemble is None else ensemble.provenance.get("seconds")
        return {"method": "real images", "data": self.data, "seconds": seconds, "sample_seed": self.seed}


@dataclass(frozen=True, eq=False, repr=False)
class MadeElsewhere:
    """Images that another program has made, as many of each class as there are, in their order."""

    images_u8: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    spec: DatasetSpec  # the dataset that they stand for
    provenance: dict[str, Any]  # JSON

    def images(self, label: int, start: int, stop: int) -> Tensor:
        return self.images_u8[(self.labels == label).nonzero().flatten()[start:stop]]

    def origin(self, ensemble: Ensemble | None) -> dict[str, Any]:
        """Return where they come from, the hash of all of them included; nobody knows what they were made from."""
        tensors = {"images": self.images_u8, "labels": self.labels}
        return {**self.provenance, "imported_hash": tensor_hash(tensors)}


@dataclass(eq=False, repr=False)
class Kept:
    """The samples that an ensemble classifies as their label, numbered by class.

    They are made in order, and what lies before the latest request is forgotten; asked for an earlier one again, it
    begins anew.
    """

    samples: Samples
    ensemble: Ensemble
    device: torch.device | str = "cpu"  # of the ensemble
    least: float = math.inf  # kept samples of a class from which on they may end before they are as many as asked for
    scanned: int = 0  # samples so far, of all classes
    kept: int = 0  # those of them that the ensemble classifies as their label
    _classes: dict[int, "_OfClass"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_matches(self.ensemble.spec, self.samples.spec, "the ensemble")
        self.ensemble.to(self.device)

    def images(self, label: int, start: int, stop: int) -> Tensor:
        """Return kept samples `start..stop-1` of a class, (N, C, H, W) uint8 on the CPU; fewer if they may end.

        Raises:
            ConfigError: the samples end and may not, or the ensemble hardly ever sees this class in samples of it.
        """
        state = self._classes.setdefault(label, _OfClass())
        if start < state.first:
            state = self._classes[label] = _OfClass()
        while state.first + len(state.images) < stop:
            chunk = self.samples.images(label, state.scanned, state.scanned + sample.CHUNK)
            if len(chunk):  # not every network answers to none
                right = classified(self.ensemble.logits(chunk.to(self.device)), label).cpu()
                state.images += chunk[right].unbind()
                state.scanned += len(chunk)
                self.scanned += len(chunk)
                self.kept += int(right.sum())
            approved, name = state.first + len(state.images), self.samples.spec.class_names[label]
            known = f"of {state.scanned:,} samples of class {name!r} the ensemble classifies {approved:,} as that"
            if state.scanned >= _LEAST * max(_TRIES, approved):
                raise ConfigError(f"{known}, expected at least one in {_LEAST:,}")
            if len(chunk) < sample.CHUNK and approved < stop:
                if approved >= self.least:
                    break
                raise ConfigError(f"{known} and there are no more, {min(stop, self.least):,} are asked for")
        del state.images[: start - state.first]
        state.first = start
        return torch.stack(state.images[: stop - start])


@dataclass
class _OfClass:
    """The kept samples of a class from number `first` on."""

    images: list[Tensor] = field(default_factory=list)
    first: int = 0
    scanned: int = 0


def first_set(samples: Samples, ipc: int) -> SyntheticSet:
    """Return the first `ipc` samples of every class, ordered by class, which nobody has judged."""
    spec = samples.spec
    images = torch.cat([_first(samples, spec, label, ipc, ipc) for label in range(spec.num_classes)])
    labels, _ = sample.balanced_labels(spec.num_classes, 0, ipc)
    return SyntheticSet(images, labels, spec, ipc, samples.origin(None))


def _first(samples: Samples | Kept, spec: DatasetSpec, label: int, least: int, most: int) -> Tensor:
    """Return the first samples of a class, `most` or all there are; ConfigError if these are fewer than `least`."""
    images = samples.images(label, 0, most)
    if len(images) < least:
        raise ConfigError(f"class {spec.class_names[label]!r} has {len(images):,} images, {least:,} are asked for")
    return images


def curated_set(
    samples: Samples,
    ensemble: Ensemble,
    ipc: int,
    device: torch.device | str = "cpu",
    *,
    filtered: bool = False,
    selection: Selection | None = None,
    pool: int | None = POOL_SIZE,
    soft_labels: bool = False,
) -> SyntheticSet:
    """Return `ipc` samples of every class, ordered by class; a smaller IPC's are the first of a larger one's.

    Args:
        samples: of a generator, of another program, or real images.
        ensemble: of the same classes and shape.
        ipc: images per class.
        device: where the ensemble works.
        filtered: whether samples count only if the ensemble classifies them as their label.
        selection: chooses among the first `pool` samples of each class; none takes the first `ipc`.
        pool: at least `ipc`; none: all images of the class, which must come to an end.
        soft_labels: whether the ensemble's logits are stored, as float16.
    """
    if selection is not None and pool is not None and pool < ipc:
        raise ConfigError(f"--pool is {pool}, expected at least --ipc, {ipc}")
    least = most = ipc
    if selection is not None:
        least, most = (ipc, sys.maxsize) if pool is None else (pool, pool)
    kept, spec = Kept(samples, ensemble, device, least), samples.spec
    parts = []
    for label in range(spec.num_classes):
        images = _first(kept if filtered else samples, spec, label, least, most)
        parts.append(images if selection is None else images[_chosen(ensemble, images, label, selection, ipc, device)])
    images = torch.cat(parts)
    labels, _ = sample.balanced_labels(spec.num_classes, 0, ipc)
    soft = logits_of(ensemble, images, device).half() if soft_labels else None
    how: dict[str, Any] = {"ensemble": ensemble.hash, "archs": list(ensemble.archs)}
    how |= {"kept": round(kept.kept / kept.scanned, 4) if filtered else None}
    how |= {"select": selection, "pool": None if selection is None else pool}
    return SyntheticSet(images, labels, spec, ipc, {**samples.origin(ensemble), "curated": how}, soft)


def _chosen(
    ensemble: Ensemble, images: Tensor, label: int, selection: Selection, count: int, device: torch.device | str
) -> Tensor:
    if selection == "confident":
        return confident(logits_of(ensemble, images, device), label, count)
    features = torch.cat([ensemble.features(part.to(device)).cpu() for part in images.split(sample.CHUNK)])
    choose = {"herding": herding, "kmeans": kmeans}[selection]
    return choose(standardized(features), count)


def logits_of(ensemble: Ensemble, images: Tensor, device: torch.device | str) -> Tensor:
    """Return the ensemble's logits on the CPU, in batches of one size, which may round differently from others."""
    return torch.cat([ensemble.logits(part.to(device)).cpu() for part in images.split(sample.CHUNK)])


def standardized(features: Tensor) -> Tensor:
    """Return features (N, F) with mean 0 and standard deviation 1 in every dimension that varies."""
    centred = features - features.mean(0)
    std = centred.square().mean(0).sqrt()
    return centred / torch.where(std > 1e-6 * (1 + features.abs().amax(0)), std, torch.ones_like(std))


def herding(features: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of rows (N, F) whose running mean stays closest to that of all (Welling 2009)."""
    mean, total = features.mean(0), torch.zeros_like(features[0])
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen = []
    for taken in range(count):
        distances = (mean - (total + features) / (taken + 1)).square().sum(1)
        index = int(distances.where(free, torch.inf).argmin())
        chosen.append(index)
        free[index] = False
        total = total + features[index]
    return torch.tensor(chosen)


def kmeans(features: Tensor, count: int) -> Tensor:
    """Return the indices (count,) of rows (N, F), each of which most lowers the k-means cost of all rows.

    The cost is the sum of squared distances to the nearest chosen row. Greedy choice gets at least 1 - 1/e of what the
    best rows save (Nemhauser, Wolsey and Fisher 1978), and its first n are its choice of n, which k-means' are not.
    """
    distances = torch.cdist(features, features).square()  # (N, N)
    # What the first one saves is measured from a cost that no choice exceeds.
    cost = distances.amax(1)
    free = torch.ones(len(features), dtype=torch.bool, device=features.device)
    chosen = []
    for _ in range(count):
        saved = (cost[:, None] - distances).clamp(min=0).sum(0)
        index = int(saved.where(free, -torch.inf).argmax())
        chosen.append(index)
        free[index] = False
        cost = torch.minimum(cost, distances[:, index])
    return torch.tensor(chosen)


def confident(logits: Tensor, label: int, count: int) -> Tensor:
    """Return the indices (count,) of the rows of logits (N, K) with the highest probability of a class."""
    return logits.log_softmax(1)[:, label].argsort(descending=True, stable=True)[:count]
