"""The stored set: images and labels in one .safetensors file that describes itself."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdd import hub, zoo
from gdd.config import ConfigError, read_as
from gdd.config.fields import AtLeast1
from gdd.data.spec import DatasetSpec
from gdd.runtime import checkpoint
from gdd.sampling.generator_file import header_of, save_described, tensor_hash

FILE = zoo.SET  # named there, where torch is not imported


@dataclass(frozen=True)
class SyntheticSet:
    """A fixed training set, whoever made it."""

    images: Tensor  # (N, C, H, W), uint8, or float32 in unclipped [0, 1]-scale for sets whose pixels were optimised
    labels: Tensor  # (N,) int64
    spec: DatasetSpec  # the dataset that it stands for; class names in index order
    ipc: int  # images per class
    provenance: dict[str, Any] = field(default_factory=dict)  # JSON: method, stage, seeds, seconds and so on
    soft_labels: Tensor | None = None  # (N, K) floating-point logits, if any

    def __post_init__(self) -> None:
        if self.images.dtype not in (torch.uint8, torch.float32):
            raise ConfigError(f"the set's images are {self.images.dtype}, expected uint8 or float32 in [0, 1]-scale")
        if self.images.ndim != 4 or tuple(self.images.shape[1:]) != self.spec.shape:
            raise ConfigError(f"the set's images are {tuple(self.images.shape)}, expected (N, *{self.spec.shape})")
        if not bool(self.images.isfinite().all()):
            raise ConfigError("the set's images hold values that are infinite or not a number")
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ConfigError(
                f"the set's labels are {self.labels.dtype} {tuple(self.labels.shape)}, expected int64 (N,)"
            )
        if len(self.labels) != len(self.images) or len(self.labels) == 0:
            raise ConfigError(f"the set has {len(self.labels)} labels for {len(self.images)} images")
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= self.spec.num_classes:
            raise ConfigError(f"the set's labels leave 0..{self.spec.num_classes - 1}")
        soft, expected = self.soft_labels, (len(self.labels), self.spec.num_classes)
        if soft is not None and (soft.shape != expected or not soft.is_floating_point() or not soft.isfinite().all()):
            raise ConfigError(f"the set's soft labels are {soft.dtype} {tuple(soft.shape)}, expected finite {expected}")

    @property
    def tensors(self) -> dict[str, Tensor]:
        tensors = {"images": self.images, "labels": self.labels}
        return tensors if self.soft_labels is None else {**tensors, "soft_labels": self.soft_labels}

    @cached_property
    def hash(self) -> str:
        return tensor_hash(self.tensors)

    @property
    def bytes(self) -> int:
        """Size of images and labels."""
        soft = 0 if self.soft_labels is None else self.soft_labels.nbytes
        return set_bytes(self.images.nbytes, len(self.labels), self.spec.num_classes) + soft


def set_bytes(of_images: int, labels: int, num_classes: int) -> int:
    """Return the bytes of images and so many labels, each of which is one byte up to 256 classes, else two."""
    return of_images + (1 if num_classes <= 256 else 2) * labels


def check_matches(actual: DatasetSpec, expected: DatasetSpec, what: object) -> None:
    """Refuse a set or a generator made for other classes or another image shape."""
    if actual.class_names != expected.class_names:
        raise ConfigError(
            f"{what} has the classes {_short(actual.class_names)}, expected those of {expected.name}, "
            f"{_short(expected.class_names)}, in this order"
        )
    if actual.shape != expected.shape:
        raise ConfigError(f"{what} has images of shape {actual.shape}, expected {expected.shape} of {expected.name}")


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 12 else ", ".join(names[:12]) + f", ... ({len(names)})"


def save(path: Path | str, synthetic: SyntheticSet) -> None:
    """Write a set as .safetensors; ConfigError if the folder cannot be written to."""
    with checkpoint.creating(Path(path)):
        save_described(Path(path), "set", synthetic.tensors, synthetic.spec, synthetic.provenance, ipc=synthetic.ipc)


def load(path: Path | str) -> SyntheticSet:
    """Read a set from its file or hub:datasets/USER/NAME.

    Raises:
        ConfigError: it is missing, damaged, no set, unbalanced, or contradicts its own header.
    """
    path = hub.local_path(path)
    return from_tensors(path, *checkpoint.load_tensors(path))


def from_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> SyntheticSet:
    """Return the set that `path` was found to hold; ConfigError as of `load`."""
    with header_of(path, metadata, "set") as (spec, provenance):
        ipc = read_as(AtLeast1, metadata["ipc"], "ipc")
        images, labels, soft = tensors["images"], tensors["labels"], tensors.get("soft_labels")
        synthetic = SyntheticSet(images, labels, spec, ipc, provenance, soft)
    if synthetic.hash != metadata.get("hash"):
        raise ConfigError(f"{path}: the content does not match the hash in its header; the file was changed")
    counts = synthetic.labels.bincount(minlength=spec.num_classes).tolist()
    for name, count in zip(spec.class_names, counts, strict=True):
        if count != ipc:
            raise ConfigError(f"{path} says {ipc} images per class but holds {count} of class {name!r}")
    return synthetic
