"""A stored set as a torch Dataset."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gdd.data.pixels import u8_to_unit
from gdd.data.spec import DatasetSpec
from gdd.sampling import generator_file, set_file
from gdd.sampling.set_file import SyntheticSet

Transform = Callable[[Tensor], Any]


class OfDataset(ABC):
    """What sets and generators know of the real dataset that they stand for."""

    @property
    @abstractmethod
    def spec(self) -> DatasetSpec:
        """All that is known of the dataset."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In order of the labels."""
        return self.spec.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.spec.shape

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of the real training images' pixels in [0, 1]."""
        return self.spec.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of the real training images' pixels in [0, 1]."""
        return self.spec.std


class ImageSet(OfDataset, Dataset[tuple[Any, int]]):
    """A stored set, for a DataLoader: item i is an image and its label.

    An image is float32 (C, H, W) with pixels in [0, 1], which only those that were optimised as pixels leave. Students
    of gdd see it normalised, as `transform=torchvision.transforms.v2.Normalize(images.mean, images.std)` does.
    """

    def __init__(self, stored: SyntheticSet, transform: Transform | None = None) -> None:
        self.stored = stored
        self.transform = transform

    def __len__(self) -> int:
        return len(self.stored.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.stored.images[index]
        image = u8_to_unit(image) if image.dtype == torch.uint8 else image.clone()
        return image if self.transform is None else self.transform(image), int(self.stored.labels[index])

    def __repr__(self) -> str:
        return f"ImageSet({self.spec.name}: {self.spec.num_classes} classes, {self.ipc} images of {self.shape} each)"

    @property
    def spec(self) -> DatasetSpec:
        return self.stored.spec

    @property
    def labels(self) -> Tensor:
        """(N,) int64, in order of the items."""
        return self.stored.labels

    @property
    def soft_labels(self) -> Tensor | None:
        """(N, K) logits, if the set has some: softmax makes probabilities of them."""
        return self.stored.soft_labels

    @property
    def ipc(self) -> int:
        """Images per class."""
        return self.stored.ipc

    @property
    def provenance(self) -> dict[str, Any]:
        """What its maker wrote down: method, seeds, settings, seconds."""
        return self.stored.provenance

    def save(self, path: Path | str) -> None:
        """Write it as a .safetensors file, which `load_set` and every command of gdd read, and its card beside it.

        Raises:
            ConfigError: they cannot be written.
        """
        from gdd.report import card  # jinja2 is needed here alone

        set_file.save(path, self.stored)
        card.write(path)


def load_set(path: Path | str, transform: Transform | None = None) -> ImageSet:
    """Read a stored set.

    Args:
        path: the .safetensors file, the run folder of gradient matching, or hub:datasets/USER/NAME.
        transform: applied to each image, (C, H, W) in [0, 1], when it is taken.

    Raises:
        ConfigError: it is missing, damaged or no set.
    """
    return ImageSet(set_file.load(generator_file.result_file(Path(path), set_file.FILE, "gdd distill")), transform)
