"""Several generators as one: of a task each, as replay streams them, or snapshots of one training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gdd.api.generator import DistilledGenerator
from gdd.api.image_set import ImageSet, OfDataset
from gdd.api.stream import Classes, SampleStream
from gdd.config import ConfigError, read_as
from gdd.config.fields import AtLeast0, AtLeast1
from gdd.data.spec import DatasetSpec, union
from gdd.sampling import sample
from gdd.sampling.set_file import SyntheticSet


class Mixture(OfDataset):
    """Generators joined by `mix`.

    Sample i of a class is sample i of that class of its generator, so its noise depends on (seed, the number that the
    class has within its generator, i) alone. Of a class that several generators have, it is that of each in turn.
    """

    def __init__(self, generators: Sequence[DistilledGenerator]) -> None:
        self.generators = tuple(generators)
        self._spec = union([generator.spec for generator in generators])
        # Of each class: the places of the generators that make it, and the number that it has there.
        self._makers = [
            [(place, made.class_names.index(name)) for place, made in enumerate(generators) if name in made.class_names]
            for name in self.class_names
        ]
        self.to(generators[0].device)

    def __repr__(self) -> str:
        size = f"{len(self.class_names)} classes of {self.shape}, {self.bytes:,} bytes"
        return f"Mixture of {len(self.generators)} generators: {size}"

    @property
    def spec(self) -> DatasetSpec:
        return self._spec

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(generator.bytes for generator in self.generators)

    def to(self, device: torch.device | str) -> "Mixture":
        """Move all generators to a device, and return the mixture."""
        self.device = torch.device(device)
        for generator in self.generators:
            generator.to(device)
        return self

    def sample(self, ipc: int, seed: int = 0) -> ImageSet:
        """Return a set of `ipc` images of every class, ordered by class: as `DistilledGenerator.sample`."""
        ipc, seed = read_as(AtLeast1, ipc, "ipc"), read_as(AtLeast0, seed, "seed")
        images = torch.empty(len(self._makers), ipc, *self.shape, dtype=torch.uint8)
        for of_class, makers in zip(images, self._makers, strict=True):
            for turn, (place, label) in enumerate(makers):
                mine, loaded = slice(turn, None, len(makers)), self.generators[place].loaded
                of_class[mine] = sample.sample_images(loaded, label, 0, ipc, seed, self.device)[mine]
        labels, _ = sample.balanced_labels(len(self._makers), 0, ipc)
        return ImageSet(SyntheticSet(images.flatten(0, 1), labels, self.spec, ipc, self._origin(seed)))

    def stream(self, batch_size: int, seed: int = 0, *, classes: Classes | None = None) -> SampleStream:
        """Return batches without end, each of new samples: as `DistilledGenerator.stream`."""
        return SampleStream(self, batch_size, seed, classes)

    def images_u8(self, labels: Tensor, indices: Tensor, seed: int) -> Tensor:
        """Return samples `indices[b]` of classes `labels[b]`, both (B,) int64 on the CPU: uint8 (B, C, H, W)."""
        makers = [self._makers[label] for label in labels.tolist()]
        turns = zip(makers, indices.tolist(), strict=True)
        numbers, own = torch.tensor([several[index % len(several)] for several, index in turns]).unbind(1)
        images = torch.empty(len(labels), *self.shape, dtype=torch.uint8, device=self.device)
        for number in numbers.unique().tolist():
            mine = (numbers == number).nonzero().flatten()
            images[mine] = self.generators[number].images_u8(own[mine], indices[mine], seed)
        return images

    def _origin(self, seed: int) -> dict[str, Any]:
        members = [generator.loaded.hash for generator in self.generators]
        return {"method": "mixed generators", "generators": members, "sample_seed": seed}


def mix(generators: Sequence[DistilledGenerator]) -> Mixture:
    """Join generators into one over all their classes, in the order in which these first appear.

    Each class is told by its name. Samples of one that several generators have, such as snapshots of one training,
    are taken from them in turn.

    Args:
        generators: at least one, all of images of one shape; they are moved to the device of the first.

    Raises:
        ConfigError: they are no generators, or their images differ in shape.
    """
    if not isinstance(generators, Sequence) or not generators:
        raise ConfigError(f"generators is {generators!r:.60}, expected a list of at least one")
    for number, generator in enumerate(generators, 1):
        if not isinstance(generator, DistilledGenerator):
            kind = type(generator).__name__
            raise ConfigError(f"generator {number} is a {kind}, expected what gdd.load_generator returns")
    return Mixture(generators)
