"""The real images that matching draws from, and the pixels that it optimises."""

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, ConfigError
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.sampling import generator_file, sample, set_file


class RealImages:
    """Random real images of one class, without replacement, from uint8 tensors on the device.

    Args:
        dataset: its train part.
        normalize: on the device.
        seed: root seed.
    """

    def __init__(self, dataset: Dataset, normalize: Normalizer, seed: int) -> None:
        device = normalize.mean.device
        self.images_u8 = dataset.train.images_u8.to(device)
        labels = dataset.train.labels
        self.members = [(labels == label).nonzero().flatten() for label in range(dataset.spec.num_classes)]
        self.normalize, self.seed = normalize, seed

    def draw(self, label: int, count: int, purpose: str, *counters: int) -> Tensor:
        """Return min(count, all) images (B, C, H, W) in classifier space; they depend on seed, purpose and counters."""
        where = self.members[label]
        order = torch.randperm(len(where), generator=rng.generator(self.seed, purpose, *counters, label))
        return self.normalize.from_u8(self.images_u8[where[order[:count]].to(self.images_u8.device)])


class SyntheticImages(nn.Module):
    """The pixels being optimised.

    Args:
        images_std: (K, ipc, C, H, W) in classifier space, unclipped.
    """

    def __init__(self, images_std: Tensor) -> None:
        super().__init__()
        self.images_std = nn.Parameter(images_std)

    @property
    def labels(self) -> Tensor:
        """(K * ipc,), ordered by class."""
        classes, ipc = self.images_std.shape[:2]
        return torch.arange(classes, device=self.images_std.device).repeat_interleave(ipc)

    def flat(self) -> Tensor:
        """Return (K * ipc, C, H, W), without gradient."""
        return self.images_std.detach().flatten(0, 1)


def check_first_images(config: Config, dataset: Dataset) -> None:
    """Raise ConfigError if a class has too few real images to start from, or the generator was made for other data."""
    settings, spec = config.match, dataset.spec
    counts = dataset.train.labels.bincount(minlength=spec.num_classes)
    if settings.init == "real" and int(counts.min()) < settings.ipc:
        raise ConfigError(
            f"match.ipc is {settings.ipc}, but class {spec.class_names[int(counts.argmin())]!r} has "
            f"{int(counts.min())} training images for init real"
        )
    if settings.generator is not None:
        set_file.check_matches(
            generator_file.load(settings.generator).spec, spec, f"match.generator {settings.generator}"
        )


def first_images(config: Config, dataset: Dataset, real: RealImages) -> Tensor:
    """Return (K, ipc, C, H, W) in classifier space: noise, real images, or a generator's, all checked before."""
    settings, spec = config.match, dataset.spec
    size = (spec.num_classes, settings.ipc, *spec.shape)
    if settings.init == "noise":
        return torch.randn(size, generator=rng.generator(config.seed, "match-noise"))
    if settings.init == "real":
        return torch.stack([real.draw(label, settings.ipc, "match-init") for label in range(spec.num_classes)])
    assert settings.generator is not None
    made = sample.sample_set(generator_file.load(settings.generator), settings.ipc, config.seed, real.images_u8.device)
    return real.normalize.from_u8(made.images.to(real.images_u8.device)).view(size)
