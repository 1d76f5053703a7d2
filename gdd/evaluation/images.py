"""The images that students are trained on, of every job, drawn once for all that share them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch

from gdd.data.mapped import MappedImages
from gdd.data.pixels import Normalizer
from gdd.data.spec import DatasetSpec
from gdd.data.splits import Split, random_real
from gdd.evaluation.batches import Fixed, GeneratedStream, Images, RealStream
from gdd.evaluation.recipe import Job
from gdd.evaluation.sources import CEILING, CROPS, FLOOR, FRACTION, STREAM_CEILING, Source
from gdd.sampling import curate, sample
from gdd.sampling.crops import crop_set
from gdd.sampling.curate import Generated, Kept, Real
from gdd.sampling.ensemble_file import Ensemble
from gdd.sampling.set_file import SyntheticSet, set_bytes


@dataclass(frozen=True)
class RealImages:
    """The real images on the device; the test part stays unread until a student has been trained."""

    train: Split  # what distillation may have seen, validation part excluded
    val: Split  # chooses among candidates
    test: Callable[[], Split]  # reads the test part once and keeps it


class Drawn(NamedTuple):
    """What a student is trained on."""

    images: Images
    stored: SyntheticSet | None  # the set that they are; none of a stream, and of images that stay in their file


@dataclass(eq=False, repr=False)
class StudentImages:
    """The images of every job, drawn once for all that share them."""

    real: RealImages  # on the device
    spec: DatasetSpec
    device: torch.device
    label_temperature: float  # that soft labels' logits are divided by
    keep: int  # sets and streams kept in memory; the number of seeds is enough

    def __post_init__(self) -> None:
        self.normalize = Normalizer(self.spec.mean, self.spec.std, self.device)
        self._stored_set = lru_cache(maxsize=self.keep)(self.stored_set)
        self._stream = lru_cache(maxsize=self.keep)(self._open_stream)

    def of(self, job: Job) -> Drawn:
        """Return the images to train on and, unless they are streamed, their set."""
        job = images_key(job)
        if job.protocol == "stream":
            return Drawn(self._stream(job.source, job.ipc, job.seed), None)
        if job.source.kind == CEILING and isinstance(self.real.train.images_u8, MappedImages):
            return Drawn(self.all_real(), None)
        stored = self._stored_set(job.source, job.ipc, job.seed)
        if job.source.kind == CEILING:
            return Drawn(self.all_real(), stored)
        labels = stored.labels
        if stored.soft_labels is not None:
            labels = (stored.soft_labels.float() / self.label_temperature).softmax(1)
        return Drawn(Fixed(stored.images.to(self.device), labels.to(self.device), self.normalize), stored)

    def all_real(self) -> Fixed:
        """Return all real training images."""
        return Fixed(self.real.train.images_u8, self.real.train.labels, self.normalize)

    def stored_set(self, source: Source, ipc: int | None, seed: int) -> SyntheticSet:
        """Return the stored set itself, or the one that `seed` draws, the same for all architectures."""
        if source.synthetic is not None:
            return source.synthetic
        if source.ensemble is not None:
            assert ipc is not None
            return self._judged_set(source, source.ensemble, ipc, seed)
        if source.generator is not None:
            assert ipc is not None
            return sample.sample_set(source.generator, ipc, seed, self.device)
        split = self.real.train
        if ipc is not None:
            split = random_real(split, self.spec.num_classes, ipc, seed)
        return SyntheticSet(split.images_u8[:].cpu(), split.labels.cpu(), self.spec, ipc or 0, source.provenance)

    def _judged_set(self, source: Source, ensemble: Ensemble, ipc: int, seed: int) -> SyntheticSet:
        """Return images that an ensemble has filtered, chosen or labelled."""
        if source.generator is not None:
            return curate.curated_set(
                Generated(source.generator, seed, self.device),
                ensemble,
                ipc,
                self.device,
                filtered=source.selection is None,
                selection=source.selection,
                pool=max(curate.POOL_SIZE, ipc),
                soft_labels=source.soft_labels,
            )
        real = Real(self.real.train, self.spec, source.hash, seed)
        if source.kind == CROPS:
            return crop_set(real, ensemble, ipc, self.device, soft_labels=source.soft_labels)
        return curate.curated_set(
            real, ensemble, ipc, self.device, selection=source.selection, pool=None, soft_labels=source.soft_labels
        )

    def bytes_of(self, source: Source, stored: SyntheticSet | None) -> int:
        """Return the bytes of a set, of a stream's generator, or of all real images and their labels."""
        if stored is not None:
            return stored.bytes
        if source.generator is not None:
            return source.generator.bytes
        return set_bytes(self.real.train.images_u8.numel(), len(self.real.train.labels), self.spec.num_classes)

    def _open_stream(self, source: Source, ipc: int | None, seed: int) -> GeneratedStream | RealStream:
        assert ipc is not None
        if source.generator is None:
            return RealStream(self.real.train, self.spec.num_classes, ipc, seed, self.normalize)
        filtered = None
        if source.ensemble is not None:
            filtered = Kept(Generated(source.generator, seed, self.device), source.ensemble, self.device)
        return GeneratedStream(source.generator, ipc, seed, self.normalize, filtered)


def images_key(job: Job) -> Job:
    """Return the cache key of a job's images."""
    depends_on_seed = job.source.kind in (FLOOR, CROPS, FRACTION, STREAM_CEILING, "generator")
    return job if depends_on_seed else replace(job, seed=0)
