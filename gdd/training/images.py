"""The real images that matching draws from, and the pixels that it optimises."""

import torch
from torch import Tensor, nn

from gdd import rng
from gdd.config import Config, ConfigError
from gdd.data.pixels import Normalizer
from gdd.data.readers import Dataset
from gdd.synth import artifact, sample, store


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


def first_images(config: Config, dataset: Dataset, real: RealImages) -> Tensor:
    """Return (K, ipc, C, H, W) in classifier space: noise, real images, or a generator's.

    Raises:
        ConfigError: a class has too few real images, or the generator was made for other data.
    """
    settings, spec = config.match, dataset.spec
    size = (spec.num_classes, settings.ipc, *spec.shape)
    if settings.init == "noise":
        return torch.randn(size, generator=rng.generator(config.seed, "match-noise"))
    if settings.init == "real":
        fewest = min(range(spec.num_classes), key=lambda label: len(real.members[label]))
        if len(real.members[fewest]) < settings.ipc:
            raise ConfigError(
                f"match.ipc is {settings.ipc}, but class {spec.class_names[fewest]!r} has "
                f"{len(real.members[fewest])} training images for init real"
            )
        return torch.stack([real.draw(label, settings.ipc, "match-init") for label in range(spec.num_classes)])
    assert settings.generator is not None
    found = artifact.load(settings.generator)
    store.check_matches(found.spec, spec, f"match.generator {settings.generator}")
    made = sample.sample_set(found, settings.ipc, config.seed, real.images_u8.device)
    return real.normalize.from_u8(made.images.to(real.images_u8.device)).view(size)
