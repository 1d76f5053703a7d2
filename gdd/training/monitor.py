"""What to look at while a generator trains: a grid of its images and how different those of one class are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gdd.data.batches import Batches
from gdd.data.pixels import pm1_to_unit, u8_to_pm1
from gdd.sampling import sample

_AT_ONCE = 500  # images that are generated at once; a thousand classes at once took gigabytes


def class_diversity(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the mean pairwise Euclidean distance within each class, (K,); 0 for fewer than two images."""
    distances = []
    for label in range(num_classes):
        flat = images[labels == label].flatten(1)
        distances.append(torch.pdist(flat).mean() if len(flat) > 1 else flat.new_zeros(()))
    return torch.stack(distances)


@dataclass(eq=False, repr=False)
class Monitor:
    """A fixed set of noise per class, generated anew whenever metrics are due."""

    batches: Batches  # real images to compare with
    num_classes: int
    noise_dim: int  # length of the noise vector
    seed: int  # root seed
    per_class: int = 10  # images per class and row of the grid

    def __post_init__(self) -> None:
        self.labels, indices = sample.balanced_labels(self.num_classes, 0, self.per_class)
        self.noise = sample.latents(self.seed, self.labels, indices, self.noise_dim)
        labels = self.batches.labels
        where = torch.cat([torch.nonzero(labels == label)[: self.per_class, 0] for label in range(self.num_classes)])
        real = u8_to_pm1(self.batches.images_u8[where])
        self.real_diversity = class_diversity(real, labels[where], self.num_classes)

    @torch.no_grad()
    def sample(self, average: torch.nn.Module) -> Tensor:
        """Return (K * per_class, C, H, W) in [-1, 1], ordered by class."""
        device = next(average.parameters()).device
        average.eval()
        parts = zip(self.noise.split(_AT_ONCE), self.labels.split(_AT_ONCE), strict=True)
        return torch.cat([average(noise.to(device), labels.to(device)) for noise, labels in parts])

    def diversity(self, images: Tensor) -> dict[str, Tensor]:
        """Return each class's diversity relative to real images: the mean and the smallest; collapse shows as 0.

        Nothing is returned where no class has two different real images.
        """
        labels = self.labels.to(images.device)
        varied = self.real_diversity > 0  # a class of one real image has nothing to compare with
        if not varied.any():
            return {}
        ratio = class_diversity(images, labels, self.num_classes)[varied] / self.real_diversity[varied]
        return {"diversity/mean": ratio.mean(), "diversity/min": ratio.min()}

    def grid(self, images: Tensor) -> Tensor:
        """Return one picture (C, H, W) in [0, 1] with a row per class."""
        from torchvision.utils import make_grid  # takes a second to import, for which no start need wait

        return make_grid(pm1_to_unit(images.clamp(-1, 1)), nrow=self.per_class, padding=2, pad_value=1.0)
