"""What sets and generators know of the real dataset that they stand for."""

from abc import ABC, abstractmethod

from gdd.data.spec import DatasetSpec


class OfDataset(ABC):
    """Facts that a network's input and output need."""

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
